"""Tables and figures of the ablation, from its result file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from forethought.scores import paired_difference
from forethought.studies.timed_rows import score_text

CELLS = {
    "large": "Maze2D Large",
    "medium": "Maze2D Medium",
    "umaze": "Maze2D U-Maze",
    "multi-large": "Multi2D Large",
}
CADENCES = {"5": "every-5", "15": "full", "45": "every-45"}  # steps between plans: part
COLORS = {
    "full": "#444444",
    "control": "#3d6fb4",
    "arrival": "#d9772b",
    "candidates": "#4b9a5f",
    "cadence": "#8a5fa8",
    "denoising": "#b84a4a",
    "model": "#3d6fb4",
}

Row = Mapping[str, Any]


def difference(row: Row, full: Row) -> tuple[float, float, float] | None:
    """Mean and 95 % interval of (row - full) over the starts both have; None if there are none."""
    first, second = ({e["seed"]: {**e, "goal": None} for e in r["episodes"]} for r in (row, full))
    common = [seed for seed in first if seed in second]
    if not common:
        return None
    return paired_difference([first[s] for s in common], [second[s] for s in common])


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Bars with intervals: pieces of planning in Large, cadences in every maze, trained models."""
    figures = {}
    for label, cell in (("planning", "large"), ("models", "trained")):
        rows = rows_of(parts, cell)
        if rows:
            where = CELLS.get(cell, CELLS["medium"])
            figures[label] = _bars(list(rows.values()), rows.get("full"), f"score, {where}")
    if any(_cadences(parts, cell) for cell in CELLS):
        figures["cadence"] = _cadence_figure(parts)
    return figures


def rows_of(parts: Mapping[str, Any], cell: str) -> dict[str, Row]:
    """The rows of a cell by the piece they change."""
    prefix = f"{cell}-"
    return {
        name.removeprefix(prefix): row
        for name, row in parts.items()
        if name[: len(prefix)] == prefix
    }


def _bars(rows: Sequence[Row], full: Row | None, label: str) -> Figure:
    order = list(COLORS)
    rows = sorted(rows, key=lambda row: order.index(row["group"]))  # stable within a group
    figure = Figure(figsize=(7.5, 1.1 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    place, places = 0.0, []
    for index, row in enumerate(rows):
        new_group = index and row["group"] != rows[index - 1]["group"]
        place += 1.5 if new_group else 1.0
        places.append(place)
        mean, interval = row["score"]["mean"], row["score"]["interval"]
        axes.barh(place, mean, height=0.75, color=COLORS[row["group"]], alpha=0.75)
        if interval is not None:
            axes.plot(interval, [place, place], color="black", linewidth=1.4, zorder=4)
        found = None if full is None else difference(row, full)
        if found is not None:  # the full system on the starts of this row
            there = [mean - found[0]] * 2
            axes.plot(there, [place - 0.5, place + 0.5], "--", color="#444444", linewidth=1)
        if found is not None and row is not full:
            axes.annotate(
                "{:+.1f} [{:+.1f}, {:+.1f}]".format(*found),
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7.5,
            )
    axes.set_yticks(places, labels=[row["label"] for row in rows], fontsize=8.5)
    axes.invert_yaxis()
    axes.set(xlabel=f"{label} (dashed: the full system on the same starts)", xlim=(0, None))
    axes.set_title("difference by start [95 %]", loc="right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _cadences(parts: Mapping[str, Any], cell: str) -> dict[str, Row]:
    rows = rows_of(parts, cell)
    return {steps: rows[name] for steps, name in CADENCES.items() if name in rows}


def _cadence_figure(parts: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    cells = [cell for cell in ("umaze", "medium", "large") if _cadences(parts, cell)]
    for index, cell in enumerate(cells):
        for steps, row in _cadences(parts, cell).items():
            offset = list(CADENCES).index(steps)
            place, color = index + 0.26 * (offset - 1), ("#8fb3e0", "#3d6fb4", "#1d3f70")[offset]
            label = f"a plan every {steps} steps" if index == 0 else None
            axes.bar(place, row["score"]["mean"], width=0.24, color=color, label=label)
            if row["score"]["interval"] is not None:
                axes.plot([place, place], row["score"]["interval"], color="black", linewidth=1.4)
    axes.set_xticks(range(len(cells)), labels=[CELLS[cell] for cell in cells])
    axes.set(ylabel="score", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    return figure


# ------------------------------------------------------------------------------------ tables

_HEAD = "n | score [95 %] | against the full system [95 %] | arrive and stay"
_PROTOCOL = "plans every | candidates | network calls a plan | controller | plans an episode"


def markdown(parts: Mapping[str, Any]) -> str:
    """One table for each maze, one for the cadences, one for the trained models."""
    lines = [
        "Each row changes one piece of the full system: the shipped checkpoint of its maze as "
        "`forethought evaluate` uses it. Starts are the first n of seed 0 in every row, and a "
        "difference is over the starts that both rows have."
    ]
    table = [
        f"| {CELLS[cell]} | {steps} | {row['planner']['candidates']} | {_calls(row)} | "
        f"{row['control']['controller']} | {score_text(row)} | {row['success_rate']:.1%} | "
        f"{row['n']} |"
        for cell in ("umaze", "medium", "large")
        for steps, row in _cadences(parts, cell).items()
    ]
    if table:
        head = "maze | plans every | candidates | network calls a plan | controller | score [95 %]"
        lines += ["", "## The same checkpoint at three cadences", ""]
        lines += _table(f"{head} | arrive and stay | n", table)
    for cell, title in CELLS.items():
        rows = rows_of(parts, cell)
        if rows:
            full = rows.get("full")
            lines += ["", f"## {title}", ""]
            table = [f"| {_start(row, full)} | {_protocol(row)} |" for row in rows.values()]
            lines += _table(f"piece | {_HEAD} | {_PROTOCOL}", table)
    rows = rows_of(parts, "trained")
    if rows:
        lines += ["", *_trained_lines(rows)]
    return "\n".join(lines)


def _table(head: str, rows: list[str]) -> list[str]:
    return [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *rows]


def _start(row: Row, full: Row | None) -> str:
    """Label, number of starts, score, difference and success of a row."""
    text = "–"
    if full is not None and row is not full:
        found = difference(row, full)
        text = "other starts" if found is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*found)
    rate = f"{row['success_rate']:.1%}"
    return f"{row['label']} | {row['n']} | {score_text(row)} | {text} | {rate}"


def _protocol(row: Row) -> str:
    every = row["control"]["replan_every"]
    return (
        f"{f'{every} steps' if every else 'episode'} | {row['planner']['candidates']} | "
        f"{_calls(row)} | {row['control']['controller']} | {row['plans'] / row['n']:.1f}"
    )


def _calls(row: Row) -> int:
    planner = row["planner"]
    steps, share = planner["sampler"]["steps"], planner["warm_start"]
    return max(1, round(share * steps)) if share else steps


def _trained_lines(rows: Mapping[str, Row]) -> list[str]:
    any_row = next(iter(rows.values()))
    seconds = [row["training"].get("core_seconds") for row in rows.values()]
    known = [value for value in seconds if value is not None]
    spent = f" (measured: {min(known):.0f} to {max(known):.0f} s of one core)" if known else ""
    table = [
        f"| {_start(row, rows.get('full'))} | {row['training']['parameters']:,} | "
        f"{row['training']['steps']:,} | {row['training'].get('core_seconds', '–')} |"
        for row in rows.values()
    ]
    return [
        f"## Models trained anew for the same planned processor time{spent}",
        "",
        f"Maze2D Medium, training seed {any_row['training']['seed']}, planned with as shipped.",
        "",
        *_table(f"model | {_HEAD} | parameters | training steps | core-seconds", table),
    ]
