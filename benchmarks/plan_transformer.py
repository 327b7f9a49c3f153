"""Time of one plan by beam search: flat and factored Trajectory Transformers, and without a cache.

    python benchmarks/plan_transformer.py [--threads 2] [--plans 5] [--uncached 1]

Weights are random: time does not depend on them. The search settings are the released ones (hopper:
beam 128, 2 expansions, horizon 15, context 5; half-cheetah: beam 32, horizon 5), the network is the
thesis's (4 layers, 4 heads, width 128, 100 bins). "no cache" computes the whole sequence for every
token; "released" also crops it to 5 transitions, as the public code does. The bound is the time of
the matrix products that the flat search cannot do without, at the rate measured for a large one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from forethought.checkpoint import hardware
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.token_model import TokenModelConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlanner, BeamPlannerConfig
from forethought.planners.beam_search import RewardSearch
from forethought.types import Trajectory


@dataclass(frozen=True)
class Task:
    """Sizes of a task and the released search settings for it."""

    name: str
    observation_dim: int
    action_dim: int
    beam: int
    horizon: int
    flat_limit: float
    factored_limit: float
    context: int = 5
    expand: int = 2

    @property
    def columns(self) -> int:
        return self.observation_dim + self.action_dim + 2


TASKS = (
    Task("hopper", 11, 3, 128, 15, 1.5, 0.1),
    Task("half-cheetah", 17, 6, 32, 5, 0.25, 0.05),
)
MODELS: dict[str, type[TokenModelConfig]] = {
    "flat": TransformerConfig,
    "factored": FactoredTransformerConfig,
}


def make_planner(task: Task, config: TokenModelConfig, **changes: int | bool) -> BeamPlanner:
    """A planner over an untrained model of the task's sizes."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    steps = 200
    episode = Episode(
        rng.normal(size=(steps + 1, task.observation_dim)),
        rng.normal(size=(steps, task.action_dim)),
        rng.normal(size=steps),
    )
    dataset = EpisodeDataset.from_episodes([episode])
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    settings = BeamPlannerConfig(
        horizon=task.horizon,
        beam=task.beam,
        context=task.context,
        reward=RewardSearch(expand=task.expand),
    )
    return BeamPlanner(model.eval().requires_grad_(False), replace(settings, **changes))


def plan_seconds(planner: BeamPlanner, task: Task, seed: int) -> tuple[float, float]:
    """Wall and processor seconds of one plan after a full history."""
    noise = torch.Generator().manual_seed(seed)
    history = Trajectory(
        observations=torch.randn(1, task.context, task.observation_dim, generator=noise),
        actions=torch.randn(1, task.context, task.action_dim, generator=noise),
        times=torch.arange(-task.context, 0),
        rewards=torch.randn(1, task.context, generator=noise),
    )
    observation = torch.randn(1, task.observation_dim, generator=noise)
    began, processor = time.perf_counter(), time.process_time()
    planner.plan(observation, history=history, generator=noise)
    return time.perf_counter() - began, time.process_time() - processor


def product_rate() -> float:
    """Floating-point operations a second of a large matrix product, by processor time, so that
    other programs on the machine do not count."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(6):
        began = time.process_time()
        torch.mm(a, b)
        times.append(time.process_time() - began)
    return torch.get_num_threads() * 2 * 2048**3 / min(times[1:])


def bound_operations(task: Task, width: int = 128, depth: int = 4, bins: int = 100) -> float:
    """Operations of the flat search's layers and heads: a token of a kept sequence for each value
    and observation token, one of an expanded sequence for each action and reward token."""
    wide = task.beam * task.expand
    per_step = wide * (task.action_dim + 1) + task.beam * (task.observation_dim + 1)
    tokens = task.horizon * per_step - task.beam * (task.observation_dim + 1)
    prefix = task.context * task.columns + task.observation_dim
    # attention: scores and sums over the prefix and half of the plan
    seen = prefix + task.horizon * task.columns / 2
    per_token = depth * (24 * width**2 + 4 * width * seen) + 2 * width * bins
    return tokens * per_token


def report(label: str, times: list[tuple[float, float]], note: str = "") -> float:
    wall = statistics.median(wall for wall, _ in times)
    processor = statistics.median(processor for _, processor in times)
    print(f"  {label:22} {wall:8.3f} s wall, {processor:8.3f} s processor   {note}", flush=True)
    return wall


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one plan by beam search.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plans", type=int, default=5, help="of the cached planners")
    parser.add_argument("--uncached", type=int, default=1, help="plans without a cache; 0 = none")
    parser.add_argument("--uncached-horizon", type=int, default=0, help="0 = the task's own")
    parser.add_argument("--only", default="", help="name of one task")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rate = product_rate()
    print(f"{hardware()}, {arguments.threads} threads, {rate / 1e9:.0f} GFLOP/s in a large product")
    for task in TASKS:
        if arguments.only in ("", task.name):
            time_task(task, arguments, rate)


def time_task(task: Task, arguments: argparse.Namespace, rate: float) -> None:
    """Print one task's rows."""
    bound = bound_operations(task)
    print(
        f"{task.name}: beam {task.beam}, {task.expand} expansions, horizon {task.horizon}; "
        f"at least {bound / 1e9:.1f} GFLOP, {bound / rate:.3f} s"
    )
    walls = {}
    for name, config in MODELS.items():
        limit = task.flat_limit if name == "flat" else task.factored_limit
        planner = make_planner(task, config(context=task.context, horizon=task.horizon))
        plan_seconds(planner, task, 0)  # warm-up
        times = [plan_seconds(planner, task, seed) for seed in range(arguments.plans)]
        walls[name] = report(name, times, f"aim {limit} s")
    if not arguments.uncached:
        return
    horizon = arguments.uncached_horizon or task.horizon
    for label, window, crop in (("flat, no cache", 0, 0), ("flat, released crop", 5, 5)):
        base = replace(task, horizon=horizon)
        config = TransformerConfig(context=task.context, horizon=horizon)
        if window:
            config = TransformerConfig(context=window - 1, horizon=1)
        planner = make_planner(base, config, cache=False, crop=crop)
        times = [plan_seconds(planner, base, seed) for seed in range(arguments.uncached)]
        wall = report(label, times, f"horizon {horizon}")
        if horizon == task.horizon:
            print(f"    {wall / walls['flat']:.0f} times the cached flat search")


if __name__ == "__main__":
    main()
