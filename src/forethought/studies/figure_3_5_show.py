"""Curves, and environment steps to 90 % of SAC's return, from the parts of figure-3-5 alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.scores import mean_and_interval

METHODS: tuple[str, ...] = ("sac", "sac-often", "gamma-mve", "mve", "mbpo", "ppo")
LABELS = {
    "sac": "SAC",
    "sac-often": "SAC, as many updates",
    "gamma-mve": "γ-MVE",
    "mve": "MVE",
    "mbpo": "MBPO",
    "ppo": "PPO",
}
COLORS: dict[str, str] = {
    "sac": "#2d3848",
    "sac-often": "#a0522d",
    "gamma-mve": "#e8743b",
    "mve": "#3d6fb4",
    "mbpo": "#4f9d69",
    "ppo": "#b9c3d0",
}
SHARE = 0.9
"""of the way from a random policy's return to SAC's final one"""
LAST = 3
"""evaluations whose mean is a run's final return"""
RESAMPLES = 4_000

Curve = np.ndarray  # (evaluations, 2): environment steps, return


def tasks_of(parts: Mapping[str, Any]) -> list[str]:
    """Tasks with at least one curve, in the order of the parts."""
    found = [name.split("-", 1)[1] for name in parts if name.startswith("random-")]
    return [task for task in found if any(curves_of(parts, task).values())]


def curves_of(parts: Mapping[str, Any], task: str) -> dict[str, list[Curve]]:
    """Every method's curves on ``task``, one for each seed that is there."""
    curves: dict[str, list[Curve]] = {method: [] for method in METHODS}
    for method in METHODS:
        seed = 0
        while part := parts.get(f"{method}-{task}-{seed}"):
            curves[method].append(np.array(part["curve"], dtype=np.float64))
            seed += 1
    return curves


def final_returns(curves: Sequence[Curve]) -> list[float]:
    """Mean of the last evaluations of each run."""
    return [float(curve[-LAST:, 1].mean()) for curve in curves]


def threshold(parts: Mapping[str, Any], task: str) -> float | None:
    """The return to be reached; None without SAC."""
    curves = curves_of(parts, task)["sac"]
    if not curves:
        return None
    start = parts[f"random-{task}"]["return"]
    return start + SHARE * (float(np.mean(final_returns(curves))) - start)


def steps_to(curve: Curve, wanted: float) -> float:
    """Steps at the first evaluation that reaches ``wanted`` and is followed by one that does, or
    is the last; infinite if there is none."""
    reached = np.append(curve[:, 1] >= wanted, True)
    both = np.flatnonzero(reached[:-1] & reached[1:])
    return float(curve[both[0], 0]) if len(both) else math.inf


def ratio_interval(ours: Sequence[float], sac: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of medians, and the 95 % bootstrap interval over the seeds of both."""
    draw = np.random.default_rng(0)
    samples = [
        np.median(draw.choice(np.array(values), (RESAMPLES, len(values))), axis=1)
        for values in (ours, sac)
    ]
    with np.errstate(invalid="ignore"):
        ratios = samples[0] / samples[1]
    ratios = np.where(np.isnan(ratios), np.inf, ratios)  # neither arrived
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    return float(np.median(ours) / np.median(sac)), float(low), float(high)


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """One panel a task: mean over seeds, one standard deviation shaded as in the thesis."""
    tasks = tasks_of(parts)
    if not tasks:
        return {}
    figure = Figure(figsize=(4.6 * len(tasks), 3.9), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        counts = []  # seeds of each method
        for method, curves in curves_of(parts, task).items():
            if not curves:
                continue
            counts.append(len(curves))
            rows = min(len(curve) for curve in curves)
            steps = curves[0][:rows, 0]
            returns = np.stack([curve[:rows, 1] for curve in curves])
            mean, spread = returns.mean(axis=0), returns.std(axis=0)
            panel.plot(steps, mean, color=COLORS[method], lw=1.8, label=LABELS[method])
            shade = {"color": COLORS[method], "alpha": 0.15, "lw": 0}
            panel.fill_between(steps, mean - spread, mean + spread, **shade)
        if (wanted := threshold(parts, task)) is not None:
            panel.axhline(wanted, color="#8893a2", lw=0.9, ls="--")
        panel.set(xlabel="environment steps", xlim=(0, None))
        seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
        panel.set_title(f"{task} ({seeds} seeds)", loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("return (deterministic policy)")
    panels[0].legend(frameon=False, fontsize=8)
    return {"curves": figure}


def markdown(parts: Mapping[str, Any]) -> str:
    """Steps to the threshold, ratio to SAC, final return and cost, one table a task."""
    lines = [
        f"Steps: environment steps, random ones included, to {SHARE:.0%} of the way from a random "
        "policy's return to SAC's final one, at the first evaluation that reaches it and is "
        "followed by another that does; median over seeds, and each seed. Ratio: of the medians, "
        f"with a 95 % bootstrap interval over seeds; ≤ where a run of SAC ends before it arrives, "
        f"which counts as its end. Final: mean of the last {LAST} evaluations, "
        "95 % interval over seeds. Cost: training seconds of a run beside SAC's on the same busy "
        "machine (a rough number; PPO's not measured).",
    ]
    for task in tasks_of(parts):
        lines += ["", *_table(parts, task)]
    return "\n".join(lines)


def _table(parts: Mapping[str, Any], task: str) -> list[str]:
    curves, wanted = curves_of(parts, task), threshold(parts, task)
    start = parts[f"random-{task}"]["return"]
    if wanted is None:
        return [f"**{task}**: no run of SAC yet, so there is no return to compare with."]
    sac = [steps_to(curve, wanted) for curve in curves["sac"]]
    lines = [
        f"**{task}**: a random policy returns {start:.0f}, the return to be reached is "
        f"{wanted:.0f}.",
        "",
        "| method | seeds | steps (each seed) | ratio to SAC [95 %] | final [95 %] | cost |",
        "|---|---|---|---|---|---|",
    ]
    for method, runs in curves.items():
        if not runs:
            continue
        steps = [steps_to(curve, wanted) for curve in runs]
        each = ", ".join(_steps_text(value, runs) for value in steps)
        # a SAC run that never arrives counts as if it had at its end, which favors SAC
        ended = [min(value, runs[-1, 0]) for value, runs in zip(sac, curves["sac"], strict=True)]
        ratio = "1" if method == "sac" else _ratio_text(*ratio_interval(steps, ended))
        if method != "sac" and ended != sac and ratio[0].isdigit():
            ratio = f"≤ {ratio}"
        mean, low, high = mean_and_interval(final_returns(runs))
        final = f"{mean:.0f}" + (f" [{low:.0f}, {high:.0f}]" if math.isfinite(low) else "")
        median = _steps_text(float(np.median(steps)), runs)
        cost = _cost(parts, task, method, len(runs))
        lines.append(
            f"| {LABELS[method]} | {len(runs)} | {median} ({each}) | {ratio} | {final} | {cost} |"
        )
    return lines


def _steps_text(value: float, runs: Sequence[Curve]) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else f"> {runs[0][-1, 0]:,.0f}"


def _ratio_text(ratio: float, low: float, high: float) -> str:
    if not math.isfinite(ratio):
        return "not reached"
    return f"{ratio:.2f} [{low:.2f}, {'∞' if math.isinf(high) else f'{high:.2f}'}]"


def _cost(parts: Mapping[str, Any], task: str, method: str, seeds: int) -> str:
    seconds = {
        name: [
            part["training"]["train_seconds"] / part["training"]["steps"]
            for seed in range(seeds)
            if "training" in (part := parts.get(f"{name}-{task}-{seed}") or {})
        ]
        for name in (method, "sac")
    }
    if not all(seconds.values()):
        return "–"
    return f"{np.median(seconds[method]) / np.median(seconds['sac']):.1f}"
