"""Figure 5.3 from its result file: four pictures and the tables behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forethought.envs.maze_layout import LAYOUTS, Layout
from forethought.figures import ALARM, FLOOR, INK, MUTED, TIME, draw_ends, draw_maze

GOOD, BAD, SECOND = "#3d6fb4", "#c9a3a6", "#e8743b"
MAZES = ("umaze", "medium", "large")
Parts = Mapping[str, Any]


def plot(parts: Parts) -> dict[str, Figure]:
    """The pictures of the parts that are there."""
    figures = {}
    if any(f"long-horizon-{maze}" in parts for maze in MAZES):
        figures["a-long-horizon"] = figure_long_horizon(parts)
    for name, key, draw in (
        ("b-stitching", "stitching", figure_stitching),
        ("c-horizons", "horizons", figure_horizons),
        ("d-rewards", "rewards", figure_rewards),
    ):
        if key in parts:
            figures[name] = draw(parts[key])
    return figures


def figure_long_horizon(parts: Parts) -> Figure:
    """Executed paths from the farthest start of the largest maze computed, one panel a planner."""
    part = next(parts[f"long-horizon-{m}"] for m in reversed(MAZES) if f"long-horizon-{m}" in parts)
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
    share.axvline(part["horizon"], color=MUTED, ls=":", lw=1)
    share.text(part["horizon"], 1.04, " rows of a plan", fontsize=8, color=MUTED)
    share.set(xscale="log", ylim=(-0.03, 1.12), xlabel="receptive field (rows)")
    share.set_xticks(x, [str(value) for value in x])
    share.minorticks_off()
    share.set_ylabel("share of plans feasible")
    share.spines[["top", "right"]].set_visible(False)
    share.legend(frameon=False, fontsize=8)
    return figure


def _draw_stitched(ax: Axes, row: Mapping[str, Any], horizon: int) -> None:
    example = row["examples"][0]
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
        ax.set_title(title, fontsize=9, color=INK)
    return figure


def write_markdown(parts: Parts) -> str:
    """Tables of the parts that are there; intervals are 95 %."""
    sections = [_long_horizon(parts)] if any(p.startswith("long-horizon") for p in parts) else []
    for key, write in (("stitching", _stitching), ("horizons", _horizons), ("rewards", _rewards)):
        if key in parts:
            sections.append(write(parts[key]))
    return "\n\n".join(sections)


def _long_horizon(parts: Parts) -> str:
    lines = ["### (a) Long horizons: Maze2D, the same starts in a row's maze", ""]
    header = ("maze", "planner", "score", "arrives and stays", "plans every", "samples a plan")
    rows = []
    for maze in MAZES:
        part = parts.get(f"long-horizon-{maze}", {"rows": {}})
        for name, row in part["rows"].items():
            protocol = row["protocol"]
            rows.append(
                (
                    maze,
                    name,
                    _number(row["score"], 1),
                    f"{row['success_rate']:.0%} of {row['n']}",
                    f"{protocol['replan_every']} steps",
                    str(protocol["candidates"]),
                )
            )
    note = (
        "\nShooting plans on the true dynamics 96 steps ahead and executes the planned actions; "
        "Diffuser has data only. sparse: the task's reward; distance: minus the straight distance."
    )
    return "\n".join(lines) + _table(header, rows) + "\n" + note


def _stitching(part: Mapping[str, Any]) -> str:
    tolerances = list(part["rows"][0]["turning"]["by_tolerance"])
    at = f"{part['tolerance']:g}"
    others = [tolerance for tolerance in tolerances if tolerance != at]
    header = (
        "receptive field",
        "feasible, turn needed",
        "by training seed",
        "feasible, no turn",
        *(f"turn needed, within {tolerance}" for tolerance in others),
        "median farthest row",
    )
    ordered = sorted(part["rows"], key=lambda row: row["receptive_field"])
    rows = [
        (
            f"{row['receptive_field']} of {part['horizon']} rows",
            _number(row["turning"], 2),
            " / ".join(f"{share:.2f}" for share in row["turning"]["by_seed"]),
            _number(row["straight"], 2),
            *(f"{row['turning']['by_tolerance'][tolerance]:.2f}" for tolerance in others),
            f"{row['turning']['median_deviation']:.2f}",
        )
        for row in ordered
    ]
    note = (
        f"\n\nFeasible: no row farther than {at} units, the data's own spread, from its place on "
        "the one way that the data's directions and speed leave; fixed before training. "
        f"{part['protocol']['tasks']} tasks, {part['protocol']['plans_per_task']} plans each, "
        f"{len(part['protocol']['training_seeds'])} training seeds of "
        f"{part['protocol']['training_steps']} steps; intervals over tasks."
    )
    title = "### (b) Stitching: trained on straight lines only"
    return f"{title}\n\n{_table(header, rows)}{note}"


def _horizons(part: Mapping[str, Any]) -> str:
    distances = sorted({cell["distance"] for cell in part["cells"]})
    shares = {(cell["distance"], cell["rows"]): cell for cell in part["cells"]}
    horizons = sorted({cell["rows"] for cell in part["cells"]})
    header = ("rows", *(f"{distance} cells" for distance in distances))
    rows = [(str(h), *(_number(shares[d, h], 2) for d in distances)) for h in horizons]
    title = f"### (c) One model, trained at {part['trained_rows']} rows, plans of several horizons"
    return f"{title}: share feasible\n\n" + _table(header, rows)


def _rewards(part: Mapping[str, Any]) -> str:
    header = ("reward added", "reward A", "reward B", "passes A and B", "feasible")
    keys = ("reward_a", "reward_b", "visits_both", "feasible")
    rows = [(name, *(_number(row[key], 2) for key in keys)) for name, row in part["rows"].items()]
    title = "### (d) Rewards unseen in training (minus the path's distance from a place), and a sum"
    return f"{title}\n\n" + _table(header, rows)


def _number(value: Mapping[str, Any], digits: int) -> str:
    if value["interval"] is None:
        return f"{value['mean']:.{digits}f}"
    low, high = value["interval"]
    return f"{value['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
