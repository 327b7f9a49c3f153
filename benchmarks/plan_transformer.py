"""Time of one plan by beam search: flat and factored Trajectory Transformers, and without a cache.

    python benchmarks/plan_transformer.py [--threads 2] [--plans 5] [--uncached 1] [--out FILE]

Weights are random: time does not depend on them. The search settings are the released ones (hopper:
beam 128, 2 expansions, horizon 15, context 5; half-cheetah: beam 32, horizon 5), the network is the
thesis's (4 layers, 4 heads, width 128, 100 bins), or that of the recipes of the factored model ("as
trained", 3 layers of 96). "no cache" computes the whole sequence for every
token; "released" also crops it to 5 transitions, as the public code does. The bound is the time of
the matrix products that the flat search cannot do without, at the rate measured for a large one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from forethought.checkpoint import current_commit, hardware, write_result
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlanner
from forethought.studies.beam_cost import (
    Search,
    make_planner,
    model_of,
    operations,
    plan_once,
    product_rate,
)


@dataclass(frozen=True)
class Task:
    """A task's released search, and what is aimed at, in seconds."""

    name: str
    search: Search
    aims: dict[str, float]


TASKS = (
    Task("hopper", Search(), {"flat": 1.5, "factored": 0.1}),
    Task(
        "half-cheetah",
        Search(observation_dim=17, action_dim=6, beam=32, horizon=5),
        {"flat": 0.25, "factored": 0.05},
    ),
)


TRAINED_SIZE = {"width": 96, "depth": 3, "head_width": 96}  # of the recipes' factored model


def plan_seconds(planner: BeamPlanner, search: Search, seed: int) -> tuple[float, float]:
    """Wall and processor seconds of one plan after a full history."""
    began, processor = time.perf_counter(), time.process_time()
    plan_once(planner, search, seed)
    return time.perf_counter() - began, time.process_time() - processor


def times_of(planner: BeamPlanner, search: Search, plans: int) -> list[tuple[float, float]]:
    """Of several plans, after one that is not counted."""
    plan_seconds(planner, search, 0)
    return [plan_seconds(planner, search, seed) for seed in range(plans)]


def report(label: str, times: list[tuple[float, float]], note: str = "") -> dict[str, Any]:
    """Print a row; its median times."""
    wall = statistics.median(wall for wall, _ in times)
    processor = statistics.median(processor for _, processor in times)
    print(f"  {label:22} {wall:8.3f} s wall, {processor:8.3f} s processor   {note}", flush=True)
    return {"wall": round(wall, 4), "processor": round(processor, 4), "plans": len(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of one plan by beam search.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plans", type=int, default=5, help="of the cached planners")
    parser.add_argument("--uncached", type=int, default=1, help="plans without a cache; 0 = none")
    parser.add_argument("--uncached-horizon", type=int, default=0, help="0 = the task's own")
    parser.add_argument("--only", default="", help="name of one task")
    parser.add_argument("--out", type=Path, help="result file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rate = product_rate()
    print(f"{hardware()}, {arguments.threads} threads, {rate / 1e9:.0f} GFLOP/s in a large product")
    rows = {
        task.name: time_task(task, arguments, rate)
        for task in TASKS
        if arguments.only in ("", task.name)
    }
    if arguments.out:
        facts = {"hardware": hardware(), "commit": current_commit(), "made": f"{date.today()}"}
        facts["product_gflops"] = round(rate / 1e9)
        write_result(arguments.out, {"kind": "plan-transformer", "facts": facts, **rows})


def time_task(task: Task, arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Print one task's rows; seconds by row."""
    search, rows = task.search, {}
    print(f"{task.name}: beam {search.beam}, {search.expand} expansions, horizon {search.horizon}")
    for name in task.aims:
        bound = operations(search, name)
        note = f"aim {task.aims[name]} s; at least {bound / 1e9:.1f} GFLOP, {bound / rate:.3f} s"
        planner = make_planner(search, model_of(search, name))
        rows[name] = report(name, times_of(planner, search, arguments.plans), note)
        rows[name] |= {"aim": task.aims[name], "bound": round(bound / rate, 4)}
    planner = make_planner(search, replace(model_of(search, "factored"), **TRAINED_SIZE))
    label = "factored, as trained"
    rows[label] = report(label, times_of(planner, search, arguments.plans))
    if not arguments.uncached:
        return rows
    horizon = arguments.uncached_horizon or search.horizon
    for label, window, crop in (("flat, no cache", 0, 0), ("flat, released crop", 5, 5)):
        base = replace(search, horizon=horizon)
        config = model_of(base, "flat")
        if window:
            config = TransformerConfig(context=window - 1, horizon=1)
        planner = make_planner(base, config, cache=False, crop=crop)
        times = [plan_seconds(planner, base, seed) for seed in range(arguments.uncached)]
        rows[label] = report(label, times, f"horizon {horizon}") | {"horizon": horizon}
        if horizon == search.horizon:
            ratio = rows[label]["wall"] / rows["flat"]["wall"]
            print(f"    {ratio:.0f} times the cached flat search")
            rows[label]["ratio"] = round(ratio, 1)
    return rows


if __name__ == "__main__":
    main()
