"""Tables and pictures of the study on amortization, from its parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from forethought.studies.timed_rows import lost, score_text

NAMES = ("umaze", "medium", "large", "multi-large")  # of the tasks, as in the parts' names


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Score against the share of planned steps, and error against novelty."""
    figures = {}
    colors = dict(zip(NAMES, ("#3d6fb4", "#d9772b", "#4f9d69", "#8a4fb0"), strict=True))
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in NAMES:
        rows, calibration = parts.get(f"scores-{name}"), parts.get(f"calibration-{name}")
        if rows:
            share = [100 * row["planned"] for row in rows]
            whole = rows[0]["score"]["mean"]
            score = [100 * row["score"]["mean"] / whole for row in rows]
            left.plot(share, score, "o-", color=colors[name], label=name)
        if calibration:
            bins = calibration["bins"]
            x, y = [b["novelty"] for b in bins], [b["error"] for b in bins]
            right.plot(x, y, "o-", color=colors[name], label=name)
    left.axhline(95, color="#888", linewidth=1, linestyle="--")
    left.set(xlabel="steps planned, %", ylabel="score, % of the planner's")
    right.set(
        xlabel="novelty (spread of the members)",
        ylabel="error against the planner's action (rms)",
        xscale="log",
        yscale="log",
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figures["mixture"] = figure
    return figures


def write_markdown(parts: Mapping[str, Any]) -> str:
    """Scores, calibration and rates of the parts that are there."""
    lines = [
        "The student acts; where the novelty passes a threshold, a fresh plan is made and followed "
        "for the planner's own interval. Thresholds are quantiles of the novelty in planner "
        "episodes that were not trained on. “Lost” is against the planner, by episode on matched "
        "starts.",
        "",
        "| maze | policy | steps planned | score [95 %] | success | lost, % [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        for row in parts.get(f"scores-{name}", []):
            loss = "–"
            if row["name"] != "planner":
                loss = "{:.1f} [{:.1f}, {:.1f}]".format(*lost(row, parts[f"scores-{name}"][0]))
            lines.append(
                f"| {name} | {row['name']} | {row['planned']:.1%} | {score_text(row)} | "
                f"{row['success_rate']:.0%} | {loss} |"
            )
    lines += ["", *_calibration_lines(parts), "", *_rate_lines(parts)]
    return "\n".join(lines)


def _calibration_lines(parts: Mapping[str, Any]) -> list[str]:
    lines = [
        "Calibration: planner episodes that were not trained on, then the ball put down at random "
        "places and velocities. Errors are against the "
        "planner's action, root mean squared; actions lie in [-1, 1].",
        "",
        "| maze | situations | threshold | above it | error above / below | rank correlation of "
        "novelty and error |",
        "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        found = parts.get(f"calibration-{name}")
        if not found:
            continue
        for label, rows in (("planner's", found), ("random", found.get("displaced"))):
            if rows:
                errors = " / ".join(
                    "–" if rows[key] is None else f"{rows[key]:.3f}"
                    for key in ("error_above", "error_below")
                )
                lines.append(
                    f"| {name} | {label} ({rows['steps']:,}) | {found['threshold']:.3f} | "
                    f"{rows['share_above']:.1%} | {errors} | {rows['rank_correlation']:.2f} |"
                )
    return lines


def _rate_lines(parts: Mapping[str, Any]) -> list[str]:
    rows = [(name, parts[f"rate-{name}"]) for name in NAMES if f"rate-{name}" in parts]
    if not rows:
        return []
    return [
        "| maze | decisions/s, one thread, one at a time: median (slowest 1 %) | machine's load |",
        "|---|---|---|",
        *(f"| {name} | {r['median']:,} ({r['p1']:,}) | {r['load']} |" for name, r in rows),
    ]
