"""Time of one plan: the shipped maze models beside the ``-thesis`` recipe run with all its steps.

    python benchmarks/plan_maze.py [--plans 30]

The two are run in turn on the same machine, one plan (one environment) at a time. The thesis
networks
are untrained: time does not depend on the weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from forethought.checkpoint import hardware, load_config, load_model
from forethought.planners.base import Planner
from forethought.registry import recipes

POINTS = {"umaze": ((1, 1), (3, 1)), "medium": ((1, 1), (6, 6)), "large": ((1, 1), (7, 9))}
LIMITS_MS = {"umaze": 20, "medium": 40, "large": 40}


def plan_seconds(planner: Planner, layout: str, seed: int) -> float:
    """Wall time of one plan between the layout's two points."""
    start, goal = (torch.tensor([[*point, 0.0, 0.0]]) for point in POINTS[layout])
    generator = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    planner.plan(start, goal=goal, generator=generator)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", type=int, default=30, help="of the shipped model")
    parser.add_argument("--thesis-plans", type=int, default=3)
    arguments = parser.parse_args()
    print(hardware())
    for layout, limit in LIMITS_MS.items():
        folder = Path("pretrained/diffuser") / f"maze-{layout}"
        ours = load_config(folder)["experiment"].planner.build(load_model(folder))
        thesis = recipes[f"diffuser/maze-{layout}-thesis"]()
        spaces = load_config(folder)["spaces"]
        theirs = thesis.planner.build(thesis.model.build(spaces).eval())
        for planner in (ours, theirs):
            plan_seconds(planner, layout, 0)  # warm-up
        fast, slow = [], []
        for turn in range(arguments.thesis_plans):
            slow.append(plan_seconds(theirs, layout, turn))
            share = arguments.plans // arguments.thesis_plans
            fast += [plan_seconds(ours, layout, seed) for seed in range(share)]
        ours_ms, thesis_ms = (1e3 * statistics.median(times) for times in (fast, slow))
        worst = 1e3 * max(fast)
        print(
            f"{layout:7} shipped {ours_ms:6.1f} ms median, {worst:.1f} max (limit {limit})   "
            f"-thesis, {thesis.model.denoising_steps} steps {thesis_ms:8.0f} ms   "
            f"ratio {thesis_ms / ours_ms:.0f}"
        )


if __name__ == "__main__":
    main()
