"""What a single pass of a gamma-model saves, and how far training is from its matrix products.

    python benchmarks/gamma_speed.py [--threads 1] [--rounds 5] [--cpu-time] [--out FILE]

Sampling: states at discount 0.99 by one pass of a flow of the thesis's size, against a rollout of
an equally sized single-step model over the 299 steps that cover 95 % of the same discount, and one
pass of a flow-matching model of that size. Training: seconds of a step of every kind beside the
time that its matrix products alone would take, at the rate of one product (batch, width) x (width,
width) measured in the same round. Everything runs in turn, round by round; printed are medians over
rounds, and of ratios their range. ``--cpu-time`` counts the process's own time, which is disturbed
less by other programs; it is for one thread. Weights are untrained: they do not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from forethought.checkpoint import current_commit, hardware, write_result
from forethought.config import Experiment, TrainConfig
from forethought.datasets.linear import build_linear
from forethought.models.base import Model
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.models.gamma import steps_to_cover
from forethought.models.gamma_base import GammaModel
from forethought.models.gamma_flow import GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.recipes import gamma as recipes
from forethought.training import TrainingRun

Clock = Callable[[], float]
DISCOUNT, DIM = 0.99, 2
THESIS_FLOW = GammaFlowConfig(discount=DISCOUNT)
TRAINED = {  # settings, batch size, width of the products that its time is held against
    "flow, recipe": (recipes.flow(), 256, 128),
    "flow, Table A.2": (GammaFlowConfig(), 1024, 256),
    "GAN, recipe": (recipes.gan(), 256, 256),
    "GAN, Table A.1": (GammaGANConfig(samples=512), 128, 256),
    "TD2, recipe": (recipes.matching(), 256, 128),
    "TD2, width 256": (GammaMatchingConfig(), 256, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps timed a round")
    parser.add_argument("--skip-thesis", action="store_true", help="train recipe sizes only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cpu-time", action="store_true", help="not wall time; one thread only")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time adds up the time of all threads; use it with --threads 1")
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    torch.set_num_threads(arguments.threads)
    print(hardware())
    sampling = [measure_sampling(n, arguments.rounds, clock) for n in (1, 1000)]
    training = measure_training(arguments, clock)
    if arguments.out:
        facts = {"hardware": hardware(), "commit": current_commit(), "rounds": arguments.rounds}
        rows = {"sampling": sampling, "training": training}
        write_result(arguments.out, {"kind": "gamma-speed", "facts": facts, **rows})


def measure_sampling(n: int, rounds: int, clock: Clock) -> dict:
    """Seconds for n states by each way, and ratios to the flow and to flow matching."""
    torch.manual_seed(0)
    spaces = build_linear(0, 100, DIM).spaces
    flow = THESIS_FLOW.build(spaces).eval()
    size = count(flow.network)
    matching, step = sized_matching(size), sized_step(size)
    steps = steps_to_cover(0.0, DISCOUNT, 0.95)
    here, action = torch.zeros(n, DIM), torch.zeros(n, DIM // 2)
    ways: dict[str, Callable[[], object]] = {
        "flow": lambda: flow.sample(here, action, 1),
        "matching": lambda: matching.sample(here, action, 1),
        "rollout": lambda: roll_out(step, here, action, steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name, way in ways.items():
            repeats = 1 if name == "rollout" else 5
            began = clock()
            with torch.inference_mode():
                for _ in range(repeats):
                    way()
            if index:  # the first round warms up
                seconds[name].append((clock() - began) / repeats)
    ratios = {
        name: [r / own for r, own in zip(seconds["rollout"], seconds[name], strict=True)]
        for name in ("flow", "matching")
    }
    sizes = {"flow": size, "matching": count(matching.network), "rollout": count(step)}
    print(f"\n{n} states at discount {DISCOUNT}; a rollout has {steps} steps")
    for name, values in seconds.items():
        told = f" rollout / this: {spread(ratios[name])}" if name in ratios else ""
        time_ms = 1e3 * statistics.median(values)
        print(f"  {name:9s} {sizes[name]:9,} weights {time_ms:9.2f} ms {told}")
    return {"states": n, "steps": steps, "weights": sizes, "seconds": seconds, "ratios": ratios}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def sized_step(size: int) -> Dynamics:
    """A single-step model of three hidden layers with about ``size`` weights."""
    spaces = build_linear(0, 100, DIM).spaces
    built = (
        DynamicsConfig(members=1, width=width, layers=3).build(spaces)
        for width in range(64, 2048, 8)
    )
    return next(model for model in built if count(model) >= size).eval()


def sized_matching(size: int) -> GammaModel:
    """A flow-matching model of three blocks with about ``size`` weights."""
    spaces = build_linear(0, 100, DIM).spaces
    built = (
        GammaMatchingConfig(discount=DISCOUNT, width=width).build(spaces)
        for width in range(64, 2048, 8)
    )
    return next(model for model in built if count(model.network) >= size).eval()


def roll_out(model: Dynamics, state: torch.Tensor, action: torch.Tensor, steps: int) -> None:
    """A rollout under a policy that costs next to nothing."""
    for _ in range(steps):
        state = model.step(state, action)
        action = -0.2 * state[:, : action.shape[1]]


def measure_training(arguments: argparse.Namespace, clock: Clock) -> list[dict]:
    """Seconds a step of every kind against its products' own time."""
    dataset = build_linear(0, 5_000, DIM)
    runs, seconds, bound = {}, {}, {}
    for name, (config, batch, _) in TRAINED.items():
        if arguments.skip_thesis and "Table" in name:
            continue
        train = TrainConfig(batch_size=batch, precision="fp32")
        experiment = Experiment(name=name, dataset="", env="", model=config, train=train)
        model = experiment.model.build(dataset.spaces)
        model.fit_statistics(dataset)
        runs[name] = (TrainingRun(model, train), model, config.view(dataset))
        seconds[name], bound[name] = [], []
    operations = {name: count_operations(*run) for name, run in runs.items()}
    for _ in range(arguments.rounds):
        for name, (run, model, view) in runs.items():
            rate = product_rate(*TRAINED[name], clock)
            repeats = 1 if "Table" in name else arguments.steps
            began = clock()
            for _ in range(repeats):
                run.advance(model, view)
            seconds[name].append((clock() - began) / repeats)
            bound[name].append(operations[name] / rate)
    print("\na training step")
    rows = []
    for name in runs:
        ratios = [s / b for s, b in zip(seconds[name], bound[name], strict=True)]
        ms = [1e3 * statistics.median(values[name]) for values in (seconds, bound)]
        print(
            f"  {name:16s} {ms[0]:9.1f} ms; its products alone {ms[1]:8.1f} ms "
            f"({operations[name] / 2e6:,.0f} million multiply-adds): {spread(ratios)} times"
        )
        rows.append({"name": name, "seconds": seconds[name], "ratios": ratios})
        rows[-1] |= {"multiply_adds": operations[name] // 2, "batch": TRAINED[name][1]}
    return rows


def count_operations(run: TrainingRun, model: Model, view: object) -> int:
    """Floating-point operations of the matrix products of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run.advance(model, view)  # type: ignore[arg-type]
    return counter.get_total_flops()


def product_rate(config: object, batch: int, width: int, clock: Clock) -> float:
    """Operations a second of (rows, width) x (width, width), rows as the model sees them."""
    rows = batch * (config.samples if isinstance(config, GammaGANConfig) else 1)
    left, right = torch.randn(rows, width), torch.randn(width, width)
    repeats = max(2, 50_000 // rows)
    torch.mm(left, right)
    began = clock()
    for _ in range(repeats):
        torch.mm(left, right)
    return 2 * rows * width**2 * repeats / (clock() - began)


def spread(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main()
