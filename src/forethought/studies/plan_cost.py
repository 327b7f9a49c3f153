"""How the cost of a plan grows: time and memory against rows, candidates and the maze's size.

One factor is varied at a time around the Large model's own plan (48 rows, one candidate, its three
denoising steps). The exponent b of time = c x^b is fitted over the larger half of each range, where
the fixed cost no longer hides it; a convolutional network over time should show 1.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch.profiler import ProfilerActivity, profile

from forethought.checkpoint import load_config, load_model
from forethought.planners.base import Planner
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import checkpoint_of

LAYOUTS = ("umaze", "medium", "large")
HORIZONS = tuple(2**k for k in range(5, 13))
CANDIDATES = tuple(4**k for k in range(6))
SECONDS = 1.0  # of repeated plans a point, at least three
LABELS = {"horizon": "rows of the plan", "candidates": "candidates", "maze": "free cells"}


@studies.register("plan-cost")
def plan_cost() -> Study:
    """Plan time and memory against horizon, candidates and maze size, one factor at a time."""
    parts = (
        Part(name="horizon", minutes=1.0, compute=_horizon),
        Part(name="candidates", minutes=1.0, compute=_candidates),
        Part(name="maze", minutes=0.2, compute=_maze),
    )
    return Study(
        title="How the cost of a plan grows with its length, candidates and the maze",
        parts=parts,
        plot=_plot,
        markdown=_markdown,
    )


def _horizon(settings: StudySettings) -> list[dict[str, Any]]:
    rows = []
    for horizon in HORIZONS:
        planner = _planner(settings, "large", length=horizon)
        rows.append({"x": horizon, **_plan_cost(planner)})
    return rows


def _candidates(settings: StudySettings) -> list[dict[str, Any]]:
    rows = []
    for candidates in CANDIDATES:
        rows.append({"x": candidates, **_plan_cost(_planner(settings, "large", candidates))})
    return rows


def _maze(settings: StudySettings) -> list[dict[str, Any]]:
    """The shipped models as they are; rows and denoising steps differ between them."""
    rows = []
    for layout in LAYOUTS:
        experiment = load_config(checkpoint_of(settings, layout))["experiment"]
        env: Any = gymnasium.make(experiment.env, disable_env_checker=True).unwrapped
        planner = _planner(settings, layout, steps=0)
        facts = {"layout": layout, "rows": experiment.model.horizon}
        facts["steps"] = experiment.planner.sampler.steps
        rows.append({"x": len(env.layout.free_cells()), **facts, **_plan_cost(planner)})
    return rows


def _planner(
    settings: StudySettings, layout: str, candidates: int = 1, *, length: int = 0, steps: int = 3
) -> Planner:
    """Of a shipped model; length in rows, 0 = as shipped; steps 0 = as shipped."""
    folder = checkpoint_of(settings, layout)
    experiment, model = load_config(folder)["experiment"], load_model(folder)
    config = replace(experiment.planner, candidates=candidates)
    if steps:
        config = replace(config, sampler=replace(config.sampler, steps=steps))
    if length:
        config = replace(config, length=(length - 1) * experiment.model.stride)
    return config.build(model)


def _plan_cost(planner: Planner) -> dict[str, Any]:
    start, goal = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    return measure(
        lambda: planner.plan(start, goal=goal, generator=torch.Generator().manual_seed(0))
    )


def measure(plan: Callable[[], Any]) -> dict[str, Any]:
    """Median time of a plan and the most memory its tensors took at once (one environment)."""
    plan()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        began = time.perf_counter()
        plan()
        seconds.append(time.perf_counter() - began)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        plan()
    return {
        "ms": round(1e3 * statistics.median(seconds), 3),
        "plans": len(seconds),
        "megabytes": round(_peak_bytes(profiler) / 1e6, 3),
        "threads": torch.get_num_threads(),
    }


def _peak_bytes(profiler: profile) -> int:
    """The highest running sum of allocations and releases, in the order in which they happened."""
    inner: Any = profiler.profiler  # its raw events keep releases that the public ones leave out
    events = [event for event in inner.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(np.max(np.cumsum([event.nbytes() for event in events]), initial=0))


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y against log x by least squares over the larger half of the points."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)[0])


def _plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    axes = figure.subplots(2, 3)
    measured = (("ms", "one plan, ms", "#3d6fb4"), ("megabytes", "peak memory, MB", "#d9772b"))
    for column, (factor, label) in enumerate(LABELS.items()):
        for panel, (key, title, color) in zip(axes[:, column], measured, strict=True):
            panel.set(xlabel=label, ylabel=title)
            panel.spines[["top", "right"]].set_visible(False)
            if rows := parts.get(factor):
                _draw(panel, [row["x"] for row in rows], [row[key] for row in rows], color)
    return {"growth": figure}


def _draw(panel: Any, x: list[float], y: list[float], color: str) -> None:
    """Points with a line of slope 1 beside them; few points stand on a linear scale from zero."""
    panel.plot(x, y, "o-", color=color)
    panel.set_ylim(0, 1.1 * max(y))
    if len(x) > 3:
        panel.set(xscale="log", yscale="log")
        panel.plot(x, [y[-1] * value / x[-1] for value in x], "--", color="#999", linewidth=1)
        panel.set_ylim(0.7 * min(y), 1.4 * max(y))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_title(f"~ x^{exponent(x, y):.2f} (dashed: x^1)", fontsize=9)
    panel.minorticks_off()
    panel.set_xticks(x, labels=[str(value) for value in x], fontsize=8)


def _markdown(parts: Mapping[str, Any]) -> str:
    lines = ["| factor | value | one plan, ms (median) | peak memory, MB |", "|---|---|---|---|"]
    for factor in LABELS:
        for row in parts.get(factor, []):
            extra = f" ({row['layout']}, {row['rows']} rows)" if "layout" in row else ""
            cells = f"{row['x']}{extra} | {row['ms']:.2f} | {row['megabytes']:.2f}"
            lines.append(f"| {LABELS[factor]} | {cells} |")
    for factor in ("horizon", "candidates"):
        if rows := parts.get(factor):
            x, ms, memory = ([row[key] for row in rows] for key in ("x", "ms", "megabytes"))
            lines += [
                "",
                f"{LABELS[factor].capitalize()}: time grows with exponent {exponent(x, ms):.2f}, "
                f"memory with {exponent(x, memory):.2f} (1 = linear), over the larger half.",
            ]
    return "\n".join(lines)
