"""Do plans keep to a wall-clock budget, and what do they score?

    python benchmarks/plan_budget.py [--calls 10000] [--episodes 100] [--layouts large]

For each maze and budget: the share of calls that end within the budget + 1 ms, the median, 99th
percentile and maximum, the denoising steps and candidates used, and the score of the same planner.
Run it on an idle machine. The first call of each planner measures what fits and is not counted.
``--freeze-garbage`` moves everything alive out of the garbage collector's sight before the calls
(``gc.freeze``), as a control loop would; collections of what a plan leaves behind still happen.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import torch

import forethought.envs  # noqa: F401  registers the mazes
from forethought.checkpoint import current_commit, hardware, load_config, load_model, write_result
from forethought.evaluation import make_policy
from forethought.planners.base import Planner
from forethought.rollout import evaluate

LATE_MS = 1.0


def observations_of(env_id: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts (n, O) as an episode draws them, and the maze's goal (1, O)."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(n)])
    goal = env.get_wrapper_attr("goal_observation")
    env.close()
    return torch.from_numpy(starts.astype(np.float32)), torch.from_numpy(goal)[None]


def time_calls(planner: Planner, starts: torch.Tensor, goal: torch.Tensor, calls: int) -> dict:
    """Wall times of ``calls`` single plans and what they used."""
    generator = torch.Generator().manual_seed(0)
    planner.plan(starts[:1], goal=goal, generator=generator)  # calibrates
    seconds, used = np.empty(calls), Counter()
    for index, row in zip(range(calls), itertools.cycle(range(len(starts))), strict=False):
        start = starts[row : row + 1]
        began = time.perf_counter()
        plan = planner.plan(start, goal=goal, generator=generator)
        seconds[index] = time.perf_counter() - began
        assert plan.candidates is not None, "a DiffusionPlanner shows its candidates"
        used[(plan.stats["network_calls"], plan.candidates.observations.shape[1])] += 1
    times = 1e3 * seconds
    return {
        "calls": calls,
        "p50": round(float(np.median(times)), 3),
        "p99": round(float(np.percentile(times, 99)), 3),
        "max": round(float(times.max()), 3),
        "times": times,
        "used": [[*key, count / calls] for key, count in used.most_common()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=100, help="per score; 0 = none")
    parser.add_argument("--layouts", nargs="+", default=["umaze", "medium", "large"])
    parser.add_argument("--budgets", nargs="+", type=float, default=[5, 10, 20, 50], help="ms")
    parser.add_argument("--candidates", type=int, default=64, help="at most")
    parser.add_argument("--threads", type=int, default=0, help="0 = torch's default")
    parser.add_argument("--freeze-garbage", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/plan-budget.json"))
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    facts = {
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "commit": current_commit(),
        "freeze_garbage": arguments.freeze_garbage,
    }
    print(facts)
    rows = []
    for layout, budget in itertools.product(arguments.layouts, arguments.budgets):
        row = {"layout": layout, "budget_ms": budget, **measure(layout, budget, arguments)}
        rows.append(row)
        steps, candidates, share = row["used"][0]
        score = row["score"] and "score {mean:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]".format(
            **row["score"]
        )
        print(
            f"{layout:7} {budget:4.0f} ms: {row['in_time']:.2%} in time, p50 {row['p50']:.2f}, "
            f"p99 {row['p99']:.2f}, max {row['max']:.2f} ms; mostly {steps} steps x {candidates} "
            f"candidates ({share:.0%}); {score or ''}",
            flush=True,
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_result(arguments.out, {"kind": "plan-budget", "facts": facts, "rows": rows})


def measure(layout: str, budget: float, arguments: argparse.Namespace) -> dict:
    """One row: times of single calls, then the score of the same settings."""
    folder = Path("pretrained/diffuser") / f"maze-{layout}"
    experiment, model = load_config(folder)["experiment"], load_model(folder)
    config = replace(experiment.planner, budget_ms=budget, candidates=arguments.candidates)
    starts, goal = observations_of(experiment.env, min(arguments.calls, 500))
    planner = config.build(model)
    if arguments.freeze_garbage:
        gc.collect()
        gc.freeze()
    row = time_calls(planner, starts, goal, arguments.calls)
    row["in_time"] = float(np.mean(row.pop("times") <= budget + LATE_MS))
    row["score"] = row["success_rate"] = None
    if arguments.episodes:
        policy = make_policy(model, config, experiment.control)
        result = evaluate(policy, experiment.env, arguments.episodes, 0, n_parallel=50)
        row |= {"score": result.score, "success_rate": result.success_rate, "n": result.n}
    return row


if __name__ == "__main__":
    main()
