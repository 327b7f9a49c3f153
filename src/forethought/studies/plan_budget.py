"""Do plans keep to a wall-clock budget, and what do they score?

For each maze and budget: the share of calls that end within the budget + 1 ms, the median, 99th
percentile and maximum, the denoising steps and candidates used, and the score of the same planner.
Run it on an idle machine, with one thread (``OMP_NUM_THREADS=1``): then no barrier waits for a
second core. As a control loop would, it moves everything alive out of the garbage collector's sight
before the calls (``gc.freeze``); collections of what a plan leaves behind still happen.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

from forethought.checkpoint import load_config, load_model
from forethought.evaluation import make_policy
from forethought.planners.base import Planner
from forethought.registry import studies
from forethought.rollout import evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import checkpoint_of, score_text

LAYOUTS, BUDGETS_MS = ("umaze", "medium", "large"), (5, 10, 20, 50)
CALLS, STARTS, EPISODES = 10_000, 500, 100
CANDIDATES = 64  # at most
LATE_MS = 1.0


@studies.register("plan-budget")
def plan_budget() -> Study:
    """Plans within budgets of 5 to 50 ms: times of 10,000 calls and scores."""
    parts = [
        Part(
            name=f"{layout}-{budget}",
            minutes=0.5 + 0.6 * budget * CALLS / 60_000,
            compute=partial(_row, layout=layout, budget=float(budget)),
        )
        for layout in LAYOUTS
        for budget in BUDGETS_MS
    ]
    return Study(
        title="Plans within a wall-clock budget",
        parts=tuple(parts),
        plot=_plot,
        markdown=_markdown,
    )


def _row(settings: StudySettings, *, layout: str, budget: float) -> dict[str, Any]:
    """Times of single calls, then the score of the same settings."""
    folder = checkpoint_of(settings, layout)
    experiment, model = load_config(folder)["experiment"], load_model(folder)
    config = replace(experiment.planner, budget_ms=budget, candidates=CANDIDATES)
    starts, goal = _observations_of(experiment.env, STARTS)
    planner = config.build(model)
    gc.collect()
    gc.freeze()
    row = time_calls(planner, starts, goal, CALLS)
    times = row.pop("times")
    policy = make_policy(model, config, experiment.control)
    n = settings.episodes or EPISODES
    result = evaluate(policy, experiment.env, n, settings.seed, n_parallel=50)
    return {
        "layout": layout,
        "budget_ms": budget,
        "threads": torch.get_num_threads(),
        **row,
        "in_time": float(np.mean(times <= budget + LATE_MS)),
        "score": result.score,
        "success_rate": result.success_rate,
        "n": result.n,
    }


def time_calls(planner: Planner, starts: torch.Tensor, goal: torch.Tensor, calls: int) -> dict:
    """Wall times of ``calls`` single plans and what they used; the first call, which measures what
    fits, is not counted."""
    generator = torch.Generator().manual_seed(0)
    planner.plan(starts[:1], goal=goal, generator=generator)
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


def _observations_of(env_id: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts (n, O) as an episode draws them, and the maze's goal (1, O)."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(n)])
    goal = env.get_wrapper_attr("goal_observation")
    env.close()
    return torch.from_numpy(starts.astype(np.float32)), torch.from_numpy(goal)[None]


def _plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Median to 99th percentile of the plan times against the budget."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    ax = figure.subplots()
    for place, (layout, color) in enumerate(
        zip(LAYOUTS, ("#3d6fb4", "#d9772b", "#3a8f5c"), strict=True)
    ):
        rows = [parts[f"{layout}-{b}"] for b in BUDGETS_MS if f"{layout}-{b}" in parts]
        x = [row["budget_ms"] * 1.06 ** (place - 1) for row in rows]  # side by side
        middle, high = [row["p50"] for row in rows], [row["p99"] for row in rows]
        up = [b - a for a, b in zip(middle, high, strict=True)]
        ax.errorbar(
            x, middle, yerr=[[0] * len(up), up], fmt="o", color=color, capsize=3, label=layout
        )
    ax.plot(BUDGETS_MS, BUDGETS_MS, "--", color="#999", linewidth=1, label="the budget")
    ax.set(xscale="log", yscale="log", xlabel="budget, ms", ylabel="one plan, ms (p50 to p99)")
    ax.minorticks_off()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(BUDGETS_MS, labels=[str(b) for b in BUDGETS_MS])
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return {"times": figure}


def _markdown(parts: Mapping[str, Any]) -> str:
    lines = [
        f"{CALLS:,} single plans each; in time means within the budget + {LATE_MS:g} ms.",
        "",
        "| maze | budget, ms | in time | p50 | p99 | max | mostly, calls x candidates | score |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in parts.values():
        steps, candidates, share = row["used"][0]
        cells = [
            f"{row['layout']} | {row['budget_ms']:g} | {row['in_time']:.2%} | {row['p50']:.1f}",
            f"{row['p99']:.1f} | {row['max']:.1f} | {steps} x {candidates} ({share:.0%})",
            f"{score_text(row)} ({row['n']} episodes)",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
