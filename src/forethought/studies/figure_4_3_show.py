"""Figure 4.3 from its computed parts: curves, likelihoods, differences paired by trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forethought.figures import INK, MUTED
from forethought.scores import mean_and_interval
from forethought.studies.prediction_setup import MODELS, TASKS

Array = NDArray[np.float64]

JUDGED = (1, 10, 25, 50, 75, 100)  # steps at which every trajectory's value is kept
REPORTED = (50, 100)
REFERENCES = ("oracle", "simulator", "data")
STYLE: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle": ("discrete oracle", {"color": MUTED, "ls": "--"}),
    "simulator": ("1,000 simulated trajectories", {"color": INK, "ls": ":"}),
    "data": ("all data, any time", {"color": MUTED, "ls": ":"}),
    "transformer": ("transformer", {"color": "#2f6690"}),
    "markov": ("transformer, Markov", {"color": "#7fb0d3"}),
    "partial": ("transformer", {"color": "#2f6690"}),
    "partial-markov": ("transformer, Markov", {"color": "#7fb0d3"}),
    "robust": ("transformer, learned with 20 % hidden", {"color": "#4f9d69"}),
    "flat": ("transformer, flat", {"color": "#2f6690", "ls": "--"}),
    "ensemble": ("ensemble (PETS)", {"color": "#e8743b"}),
    "ensemble-binned": ("ensemble, over the bins", {"color": "#e8743b", "ls": "--"}),
}
PANELS = {
    "observed": (
        *REFERENCES,
        *("transformer", "robust", "markov", "flat", "ensemble", "ensemble-binned"),
    ),
    "half of the dimensions hidden": (*REFERENCES, "partial", "partial-markov"),
}
PAIRS = (
    ("transformer", "ensemble"),
    ("transformer", "ensemble-binned"),
    ("markov", "ensemble"),
    ("transformer", "markov"),
    ("partial", "partial-markov"),
    ("simulator", "transformer"),
    ("robust", "transformer"),
    ("robust", "ensemble-binned"),
)


def over_starts(values: Array) -> tuple[float, float, float]:
    """Mean and interval over starts of means over trajectories (S, N) that still go on."""
    kept = [row[~np.isnan(row)] for row in values]
    return mean_and_interval([float(row.mean()) for row in kept if len(row)])


def collect(parts: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Curves of a task by name; ValueError if they were judged on different trajectories."""
    names = [f"{task}-{key}" for key in ("references", *MODELS)]
    found = {name: parts[name] for name in names if name in parts}
    if len({part["truths"] for part in found.values()}) > 1:
        raise ValueError(
            f"the parts of {task} were judged on different true trajectories, so they do not "
            "compare; compute them again with --redo, with one seed, policy and data set"
        )
    return {name: curve for part in found.values() for name, curve in part["curves"].items()}


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any], step: int
) -> tuple[float, float, float, float]:
    """Mean difference at a step, its interval over starts, share of trajectories above zero."""
    at = JUDGED.index(step)
    values = [
        np.array([[row[at] for row in start] for start in curve["by_trajectory"]], dtype=float)
        for curve in (first, second)
    ]
    gap = values[0] - values[1]
    known = gap[~np.isnan(gap)]
    return (*over_starts(gap), float((known > 0).mean()))


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """A figure a task: fully observed, and half hidden."""
    figures = {}
    for task in TASKS:
        curves = collect(parts, task)
        if any(key in curves for key in MODELS):
            figures[task] = _draw(task, curves)
    return figures


def _draw(task: str, curves: Mapping[str, Any]) -> Figure:
    panels = {
        title: [key for key in keys if key in curves]
        for title, keys in PANELS.items()
        if any(key in curves and key in MODELS for key in keys)
    }
    figure = Figure(figsize=(5.4 * len(panels), 4.0), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, keys) in zip(axes, panels.items(), strict=True):
        for key in keys:
            label, style = STYLE[key]
            mean = np.array(curves[key]["mean"], dtype=float)
            low, high = np.array(curves[key]["interval"], dtype=float).T
            steps = np.arange(1, len(mean) + 1)
            axis.plot(steps, mean, lw=1.6, label=label, **style)
            if key in MODELS:
                axis.fill_between(steps, low, high, color=style["color"], alpha=0.15, lw=0)
        axis.set_title(f"{task}: {title}", fontsize=10, color=INK)
        axis.set_xlabel("steps ahead")
        axis.legend(fontsize=7.5, frameon=False, loc="lower left", ncols=2)
        axis.spines[["top", "right"]].set_visible(False)
    # by the means: intervals of few starting points would push them flat
    means = np.concatenate(
        [np.array(curves[key]["mean"], dtype=float) for keys in panels.values() for key in keys]
    )
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    axes[0].set_ylim(low - 0.3 * (high - low) - 1, high + 0.1 * (high - low) + 1)
    axes[0].set_ylabel("log-likelihood of the true state (nats)")
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Likelihoods at the reported steps, and paired differences."""
    lines: list[str] = []
    for task in TASKS:
        curves = collect(parts, task)
        if not curves:
            continue
        facts = next(
            parts[f"{task}-{k}"] for k in ("references", *MODELS) if f"{task}-{k}" in parts
        )
        other = next(iter(curves.values()))["lower_floor"]["floor"]
        titles = [*(f"step {step}" for step in (1, *REPORTED)), f"step {JUDGED[-1]}, {other:g}"]
        lines += [
            f"{task.capitalize()}: {facts['trajectories']} true trajectories from "
            f"{facts['starts']} starting points ({100 * facts['alive_at_100']:.0f} % last 100 "
            f"steps), {facts['sequences']:,} sampled sequences from each; floor {facts['floor']} "
            f"(last column: {other:g} of it). Nats, with 95 % intervals over starting points; in "
            "parentheses the share of dimensions at the floor.",
            "",
            f"| model | {' | '.join(titles)} |",
            "|---|" + "---|" * len(titles),
        ]
        lines += [_likelihood_row(key, curve) for key, curve in curves.items()]
        lines += ["", *_pair_rows(curves)]
    return "\n".join(lines)


def _likelihood_row(key: str, curve: Mapping[str, Any]) -> str:
    cells = []
    for step in (1, *REPORTED):
        low, high = curve["interval"][step - 1]
        interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        cell = f"{curve['mean'][step - 1]:.2f}{interval}"
        if step in REPORTED:
            cell += f" ({100 * curve['floored'][REPORTED.index(step)]:.1f} %)"
        cells.append(cell)
    cells.append(f"{curve['lower_floor']['mean'][-1]:.2f}")
    label = STYLE[key][0] + (", partially observed" if key.startswith("partial") else "")
    return f"| {label} | " + " | ".join(cells) + " |"


def _pair_rows(curves: Mapping[str, Any]) -> list[str]:
    pairs = [pair for pair in PAIRS if pair[0] in curves and pair[1] in curves]
    if not pairs:
        return []
    lines = [
        "| difference | " + " | ".join(f"step {step}" for step in REPORTED) + " |",
        "|---|" + "---|" * len(REPORTED),
    ]
    for first, second in pairs:
        cells = []
        for step in REPORTED:
            mean, low, high, share = difference(curves[first], curves[second], step)
            cells.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}], above in {100 * share:.0f} %")
        lines.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
    return [*lines, ""]
