"""Figure 5.3 from its result file: its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forethought.envs.maze_layout import LAYOUTS, Layout
from forethought.figures import ALARM, FLOOR, INK, MUTED, TIME, draw_ends, draw_maze
from forethought.studies.figure_5_3_tables import (
    MAZES,
    Parts,
    guidance_name,
    long_horizon,
    stitching,
)

GOOD, BAD, SECOND = "#3d6fb4", "#c9a3a6", "#e8743b"
AT_COLORS = {"noisy": "#4f9d69", "mean": "#3d6fb4", "clean": "#e8743b"}
STOP_MARKERS = {0: "o", 16: "D", 32: "P"}


def plot(parts: Parts) -> dict[str, Figure]:
    """The pictures of the parts that are there."""
    figures = {}
    if any(long_horizon(parts, maze) for maze in MAZES):
        figures["a-long-horizon"] = figure_long_horizon(parts)
    stitched = stitching(parts)
    if stitched:
        figures["b-stitching"] = figure_stitching(stitched)
    for name, key, draw in (
        ("c-horizons", "horizons", figure_horizons),
        ("d-rewards", "rewards", figure_rewards),
        ("d-guidance", "guidance", figure_guidance),
    ):
        if key in parts:
            figures[name] = draw(parts[key])
    return figures


def figure_long_horizon(parts: Parts) -> Figure:
    """Executed paths from the farthest start of the largest maze computed, one panel a planner."""
    part = next(part for m in reversed(MAZES) if (part := long_horizon(parts, m)))
    hard, layout = part["hard_start"], Layout.parse(part["layout"])
    names = list(hard["paths"])
    figure = Figure(figsize=(11, 4.9), dpi=150, layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for ax, name in zip(axes, names, strict=False):
        draw_maze(ax, layout)
        path = np.asarray(hard["paths"][name])
        ax.scatter(path[:, 1], path[:, 0], c=TIME(np.linspace(0, 1, len(path))), s=3, lw=0)
        draw_ends(ax, hard["start"], hard["goal"])
        row = part["rows"][name]
        ax.set_title(
            f"{name}\nscore {row['score']['mean']:.0f}, arrives {row['success_rate']:.0%}",
            fontsize=9,
            color=INK,
        )
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    axes[-1].text(
        0.02,
        0.5,
        f"One start, {hard['cells']} cells from its goal.\nEvery 4th step, blue to orange.\n"
        f"Titles: mean of {next(iter(part['rows'].values()))['n']} episodes.",
        fontsize=9,
        color=INK,
        va="center",
        transform=axes[-1].transAxes,
    )
    return figure


def figure_stitching(part: Mapping[str, Any]) -> Figure:
    """Lines of the data, plans of the most and the least local network, share against the field."""
    rows = sorted(part["rows"], key=lambda row: row["receptive_field"])
    best = max(rows, key=lambda row: row["turning"]["mean"])
    figure = Figure(figsize=(11, 3.1), dpi=150, layout="constrained")
    data, local, whole, share = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.5))
    for line in part["lines"]:
        data.plot(*np.asarray(line).T, color=MUTED, lw=0.8)
    data.set_title("training data", fontsize=9, color=INK)
    for ax, row in ((local, best), (whole, rows[-1])):
        _draw_stitched(ax, row, part["horizon"])
    for ax in (data, local, whole):
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[], yticks=[])
    for kind, color, label in (
        ("turning", SECOND, "goal needs a turn"),
        ("straight", GOOD, "a line joins start and goal"),
    ):
        x = [row["receptive_field"] for row in rows]
        mean = np.array([row[kind]["mean"] for row in rows])
        bounds = np.array([row[kind]["interval"] for row in rows]).T
        errors = np.abs(bounds - mean)
        share.errorbar(x, mean, yerr=errors, color=color, marker="o", capsize=3, label=label)
    path = [row["turning"]["path_within"] for row in rows]
    share.plot(x, path, color=SECOND, ls="--", lw=1.2, label="a turn, timing left out")
    share.axvline(part["horizon"], color=MUTED, ls=":", lw=1)
    share.text(part["horizon"], 1.04, " rows of a plan", fontsize=8, color=MUTED)
    share.set(xscale="log", ylim=(-0.03, 1.12), xlabel="receptive field (rows)")
    share.set_xticks(x, [str(value) for value in x])
    share.minorticks_off()
    share.set_ylabel("share of plans feasible")
    share.spines[["top", "right"]].set_visible(False)
    share.legend(frameon=False, fontsize=7, loc="upper right", bbox_to_anchor=(1.0, 0.78))
    return figure


def _draw_stitched(ax: Axes, row: Mapping[str, Any], horizon: int) -> None:
    example = row["example"]
    for plan, feasible in zip(example["plans"], example["feasible"], strict=True):
        x, y = np.asarray(plan).T
        ax.plot(x, y, ".-", ms=3, lw=1, color=GOOD if feasible else BAD)
    for name, marker in (("start", "o"), ("goal", "*")):
        ax.plot(*example[name], marker, mfc=FLOOR, mec=INK, ms=8, zorder=5)
    field = row["receptive_field"]
    ax.set_title(f"field {field} of {horizon} rows", fontsize=9, color=INK)


def figure_horizons(part: Mapping[str, Any]) -> Figure:
    """Share feasible over distance and horizon, and the same start and goal at four horizons."""
    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.1, 1.4))
    left, right = halves
    ax = left.subplots()
    distances = sorted({cell["distance"] for cell in part["cells"]})
    for index, distance in enumerate(distances):
        cells = [cell for cell in part["cells"] if cell["distance"] == distance]
        color = TIME(index / max(len(distances) - 1, 1))
        x, mean = [c["rows"] for c in cells], [c["mean"] for c in cells]
        ax.plot(x, mean, "o-", color=color, ms=4, label=f"{distance} cells")
        low, high = np.array([c["interval"] for c in cells]).T
        ax.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
    ax.axvline(part["trained_rows"], color=MUTED, ls=":", lw=1)
    ax.text(part["trained_rows"], 1.01, "trained", fontsize=8, color=MUTED, ha="center")
    ax.set(xlabel=f"rows of the plan ({part['stride']} steps each)", ylim=(-0.02, 1.0))
    ax.set_ylabel("share of plans feasible")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, title="start to goal", title_fontsize=8)
    shown = [e for e in part["examples"] if e["rows"] in (20, 32, 48, 80)]
    for ax, example in zip(right.subplots(2, 2).ravel(), shown, strict=False):
        draw_maze(ax, LAYOUTS["large"])
        for path, feasible in zip(example["paths"], example["feasible"], strict=True):
            points = np.asarray(path)
            style = {"s": 9, "lw": 0} if feasible else {"s": 14, "marker": "x", "lw": 0.8}
            ax.plot(points[:, 1], points[:, 0], color=MUTED, lw=0.6)
            colors = TIME(np.linspace(0, 1, len(points)))
            ax.scatter(points[:, 1], points[:, 0], c=colors, zorder=3, **style)
        draw_ends(ax, example["start"], example["goal"])
        good = sum(example["feasible"])
        title = f"{example['rows']} rows: {good} of {len(example['feasible'])} feasible"
        ax.set_title(title, fontsize=9, color=INK)
    return figure


def figure_rewards(part: Mapping[str, Any]) -> Figure:
    """Plans of one task under no reward, each reward, and their sum."""
    example = part["examples"][0]
    figure = Figure(figsize=(11, 2.5), dpi=150, layout="constrained")
    for ax, (name, paths) in zip(figure.subplots(1, 4), example["paths"].items(), strict=True):
        draw_maze(ax, LAYOUTS["large"])
        for path in paths:
            points = np.asarray(path)
            ax.plot(points[:, 1], points[:, 0], color=GOOD, lw=1.2, alpha=0.8)
        for label, (row, col) in zip("AB", example["places"], strict=True):
            active = label in name.split(" + ")
            color = ALARM if active else MUTED
            ax.plot(col, row, "o", ms=13, mfc=color, mec="none", alpha=0.45, zorder=4)
            ax.text(col, row, label, ha="center", va="center", fontsize=8, color=INK, zorder=6)
        draw_ends(ax, example["start"], example["goal"])
        numbers = part["rows"][name]
        title = f"{name}\nA {numbers['reward_a']['mean']:.2f}, B {numbers['reward_b']['mean']:.2f}"
        title += f", feasible {numbers['feasible']['mean']:.0%}"
        ax.set_title(title, fontsize=9, color=INK)
    return figure


def figure_guidance(part: Mapping[str, Any]) -> Figure:
    """Reward against feasibility: every setting of the sweep; ways to keep one of several plans."""
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    whole, kept = figure.subplots(1, 2)
    best = max(part["rows"], key=lambda row: row["any"]["useful"]["mean"])
    for row in part["rows"]:
        facts = row["guidance"]
        color = INK if facts is None else AT_COLORS[facts["at"]]
        marker = "*" if facts is None else STOP_MARKERS.get(facts["stop_level"], "s")
        edge = ALARM if row is best else INK if facts and facts["scale_by_variance"] else "none"
        look = {"c": color, "marker": marker, "alpha": 0.75, "edgecolors": edge, "lw": 1.5}
        whole.scatter(*_spot(row["any"]), s=130 if facts is None else 45, **look)
    keys = [_key("*", INK, "no guidance")]
    keys += [_key("o", color, f"at {at}") for at, color in AT_COLORS.items()]
    for stop, marker in STOP_MARKERS.items():
        keys.append(_key(marker, MUTED, f"stops at level {stop}" if stop else "never stops"))
    whole.set_title("all plans (rim: gradient times variance; red: most useful)", fontsize=9)
    for row, color in ((part["rows"][0], INK), (best, ALARM)):
        for (way, numbers), marker in zip(_ways(row), "o^vD", strict=False):
            kept.scatter(*_spot(numbers), s=60, c=color, marker=marker, label=way, alpha=0.8)
    kept.set_title(f"one of {part['protocol']['plans_per_task']} plans kept", fontsize=9)
    shapes = [_key(m, MUTED, w) for (w, _), m in zip(_ways(best), "o^vD", strict=False)]
    name = "no guidance" if best["guidance"] is None else guidance_name(best["guidance"])
    shapes += [_key("s", INK, "no guidance"), _key("s", ALARM, name)]
    for ax, handles in ((whole, keys), (kept, shapes)):
        ax.legend(handles=handles, frameon=False, fontsize=8, loc="lower right")
        ax.set(xlabel="reward A + B (minus distances, cells)", ylabel="share feasible")
        ax.set_ylim(-0.03, 1.0)
        ax.spines[["top", "right"]].set_visible(False)
    whole.set_xlim(right=0.0)
    return figure


def _ways(row: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """("all plans", their numbers), then the same for each way to keep one plan a task."""
    kept = [(way, numbers) for way, numbers in row.items() if way not in ("guidance", "any")]
    return [("all plans", row["any"]), *kept]


def _spot(numbers: Mapping[str, Any]) -> tuple[float, float]:
    return numbers["reward"]["mean"], numbers["feasible"]["mean"]


def _key(marker: str, color: str, label: str) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=color, label=label)
