"""Table 5.1 from its computed parts: Markdown tables, bars, learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forethought.figures import FLOOR, INK, MUTED
from forethought.studies.published import CELLS, LAYOUTS, PUBLISHED, THESIS
from forethought.studies.rows import difference_text, line

Row = Mapping[str, Any]
Parts = Mapping[str, Any]

TASKS = ("maze2d", "multi2d")
TITLES = {"maze2d": "Maze2D (one goal)", "multi2d": "Multi2D (random goals)"}
SIZES = {"umaze": "U-Maze", "medium": "Medium", "large": "Large"}
# by the names of the parts
LEARNED = {
    "diffuser": ("Diffuser (ours)", "#3d6fb4"),
    "mppi": ("MPPI, true dynamics, sparse reward", "#8a4fb0"),
    "mppi-distance": ("MPPI, true dynamics, distance reward", "#c39bd8"),
    "iql": ("IQL (ours)", "#e8743b"),
    "cql": ("CQL (d3rlpy)", "#f2b04d"),
    "awac": ("AWAC (d3rlpy)", "#dd4f70"),
    "rebrac": ("ReBRAC (d3rlpy)", "#4ba38c"),
    "sac-n": ("SAC-N (d3rlpy)", "#7c8f3a"),
}


def rows_by_name(parts: Parts) -> dict[str, dict[str, Row]]:
    """Name of a row -> cell -> row, in the table's order, for what has been computed."""
    table: dict[str, dict[str, Row]] = {}
    for key, (label, _) in LEARNED.items():
        found = {cell: parts[f"{key}-{cell}"] for cell in CELLS if f"{key}-{cell}" in parts}
        if found:
            table[label] = found
    for cell in CELLS:
        for row in parts.get(f"references-{cell}", ()):
            table.setdefault(row["method"], {})[cell] = row
    return table


# ------------------------------------------------------------------------------------- tables


def markdown(parts: Parts) -> str:
    """Scores, start-matched differences, protocol, learning curves, and what is not comparable."""
    lines = []
    for task in TASKS:
        lines += [f"### {TITLES[task]}", "", *_score_table(parts, task), ""]
    sections = (
        ("Diffuser minus the row, episode by episode", _differences(parts)),
        ("How each row was made", _protocols(parts)),
        ("Have the learners finished?", _curves(parts)),
        ("IQL's grid on U-Maze", _grid(parts)),
        ("The thesis's own Diffuser settings, timed and not trained", _timing(parts)),
    )
    for title, content in sections:
        if content:
            lines += [f"### {title}", "", *content, ""]
    return "\n".join(lines)


def _score_table(parts: Parts, task: str) -> Iterator[str]:
    yield "Normalized score (100 = D4RL's reference expert): mean over episodes [95 % interval]; "
    yield "published rows ± as printed, on other starts and data seeds, so they compare roughly."
    yield ""
    yield "| | " + " | ".join(SIZES.values()) + " | mean |"
    yield "|---|---|---|---|---|"
    cells = [f"{task}-{layout}" for layout in LAYOUTS]
    for name, rows in rows_by_name(parts).items():
        if any(cell in rows for cell in cells):
            texts = [_score_text(rows[cell]) if cell in rows else "–" for cell in cells]
            means = [rows[cell]["score"]["mean"] for cell in cells if cell in rows]
            yield line(name, *texts, _mean_text(means))
    for row in PUBLISHED:
        scores = [row.scores.get(cell) for cell in cells]
        if any(scores):
            means = [score[0] for score in scores if score]
            name = f"*{row.name}, published ({row.source})*"
            yield line(name, *map(_published_text, scores), _mean_text(means))


def _score_text(row: Row) -> str:
    interval = row["score"]["interval"]
    ends = "" if interval is None else " [{:.1f}, {:.1f}]".format(*interval)
    return f"{row['score']['mean']:.1f}{ends}"


def _published_text(score: tuple[float, float | None] | None) -> str:
    if score is None:
        return "–"
    return f"{score[0]:.1f}" if score[1] is None else f"{score[0]:.1f} ± {score[1]:.1f}"


def _mean_text(means: list[float]) -> str:
    return f"{np.mean(means):.1f}" if len(means) == len(LAYOUTS) else "–"


def _differences(parts: Parts) -> list[str]:
    """Paired with Diffuser on the starts both have; the first n of one seed are the same starts."""
    lines = []
    for name, rows in rows_by_name(parts).items():
        texts = []
        for cell in CELLS:
            ours, row = parts.get(f"diffuser-{cell}"), rows.get(cell)
            texts.append("–" if ours is None or row is None else difference_text(ours, row))
        if name != LEARNED["diffuser"][0] and set(texts) != {"–"}:
            lines.append(line(name, *texts))
    if not lines:
        return []
    header = line("", *(f"{cell.split('-')[0]} {SIZES[cell.split('-')[1]]}" for cell in CELLS))
    return [header, "|---" * (len(CELLS) + 1) + "|", *lines]


def _protocols(parts: Parts) -> list[str]:
    lines = []
    for name, rows in rows_by_name(parts).items():
        for cell, row in rows.items():
            success = f"{row['success_rate']:.1%}"
            lines.append(line(name, cell, str(row["n"]), success, note_of(row["protocol"])))
    if not lines:
        return []
    head = ["| row | cell | episodes | arrive and stay | how |", "|---|---|---|---|---|"]
    tail = ["", "One training run a cell; the intervals are over episodes, not training seeds."]
    return [*head, *lines, *tail]


def note_of(protocol: Row) -> str:
    """Cadence, candidates, network calls, controller and training, as far as they apply."""
    planner_settings = protocol.get("planner")
    facts = [
        (protocol.get("replan_every"), "plans again every {} steps"),
        (protocol.get("candidates"), "{} candidate(s)"),
        (protocol.get("samples"), "{} samples"),
        (protocol.get("network_calls") if planner_settings else None, "{} network calls a plan"),
        (protocol.get("plan_ms", {}).get("median"), "{} ms a plan"),
        (protocol.get("controller"), "{}"),
        (protocol.get("library"), "{}"),
        (protocol.get("train_updates") or protocol.get("train_steps"), "{:,} updates"),
        (protocol.get("batch_size"), "batch {}"),
        (protocol.get("train_seconds"), "{:,.0f} s of training"),
        (protocol.get("temperature"), "temperature {:g}"),
        (protocol.get("expectile"), "expectile {:g}"),
        (protocol.get("departures"), "not as published: {}"),
        (protocol.get("wall_seconds"), "{:.0f} s to evaluate"),
    ]
    return "; ".join(text.format(value) for value, text in facts if value)


def trend(curve: list[Row]) -> str:
    """Whether the score still moves over the second half of training, beyond its intervals."""
    half = min(curve, key=lambda point: abs(point["updates"] - curve[-1]["updates"] / 2))
    widths = [np.ptp(_ends(point)) / 2 for point in (half, curve[-1])]
    change = curve[-1]["score"]["mean"] - half["score"]["mean"]
    noise = float(np.hypot(*widths))
    word = "flat" if abs(change) <= noise else "rising" if change > 0 else "falling"
    return f"{word} ({change:+.1f} ± {noise:.1f})"


def _curves(parts: Parts) -> list[str]:
    lines = []
    for name, rows in rows_by_name(parts).items():
        for cell, row in rows.items():
            if len(row.get("curve", ())) < 2:
                continue
            curve = row["curve"]
            best = max(curve, key=lambda point: point["score"]["mean"])
            texts = [f"{p['score']['mean']:.1f} at {p['updates']:,}" for p in (curve[-1], best)]
            lines.append(line(name, cell, *texts, trend(curve)))
    if not lines:
        return []
    head = ["| row | cell | last | best snapshot | second half |", "|---|---|---|---|---|"]
    note = [
        "",
        "Snapshots are scored over 100 starts that the tables do not use. The tables show the last "
        "one, never the best.",
    ]
    return [*head, *lines, *note]


def _grid(parts: Parts) -> list[str]:
    grid = parts.get("iql-grid")
    if grid is None:
        return []
    updates = [point["updates"] for point in grid["runs"][0]["curve"]]
    head = ["temperature", "expectile", *(f"{n:,} updates" for n in updates)]
    lines = [line(*head), "|---" * len(head) + "|"]
    for run in grid["runs"]:
        is_best = all(run[name] == value for name, value in grid["best"].items())
        texts = [_score_text(point) for point in run["curve"]]
        name = f"{run['temperature']:g}" + (" (chosen)" if is_best else "")
        lines.append(line(name, f"{run['expectile']:g}", *texts))
    return lines


def _timing(parts: Parts) -> list[str]:
    lines = []
    for layout in LAYOUTS:
        if f"thesis-{layout}" in parts:
            part = parts[f"thesis-{layout}"]
            step = f"{part['step_core_seconds']:.2f} s"
            train = f"{part['train_core_days']:.1f} days for {part['train_steps']:,} steps"
            plan = f"{part['plan_core_seconds']:.1f} s, {part['network_calls']} network calls"
            lines.append(line(f"`{part['recipe']}`", step, train, plan))
    if not lines:
        return []
    head = ["| recipe | a training step | training | a plan |", "|---|---|---|---|"]
    return [*head, *lines, "", "Core-seconds: seconds of one busy core."]


# ------------------------------------------------------------------------------------- figures


def plot(parts: Parts) -> dict[str, Figure]:
    """Bars of all rows, and the learners' curves."""
    figures = {}
    if any(f"{key}-{cell}" in parts for key in LEARNED for cell in CELLS):
        figures["scores"] = figure_bars(parts)
    if any(part.get("curve") for part in parts.values() if isinstance(part, Mapping)):
        figures["curves"] = figure_curves(parts)
    return figures


def figure_bars(parts: Parts) -> Figure:
    """Grouped bars: one panel a task, one group a maze; published rows as marks."""
    figure = Figure(figsize=(10, 6.4), dpi=150, layout="constrained")
    panels = figure.subplots(2, 1)
    for ax, task in zip(panels, TASKS, strict=True):
        _draw_bars(ax, parts, task)
    _add_legend(figure)
    return figure


def _add_legend(figure: Figure) -> None:
    """One legend for all panels: learners in the table's order, then published marks."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        drawn, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    order = [label for label, _ in LEARNED.values()]
    names = sorted(handles, key=lambda name: order.index(name) if name in order else len(order))
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside right upper",
        frameon=False,
        fontsize=8,
    )


def _draw_bars(ax: Axes, parts: Parts, task: str) -> None:
    present = [
        key for key in LEARNED if any(f"{key}-{task}-{layout}" in parts for layout in LAYOUTS)
    ]
    width = 0.8 / max(len(present), 4)  # few rows: no broader bars
    for group, layout in enumerate(LAYOUTS):
        cell = f"{task}-{layout}"
        for place, key in enumerate(present):
            if f"{key}-{cell}" not in parts:
                continue
            label, color = LEARNED[key]
            x, score = group + (place - (len(present) - 1) / 2) * width, parts[f"{key}-{cell}"]
            mean, (low, high) = score["score"]["mean"], _ends(score)
            error = {"yerr": [[mean - low], [high - mean]], "ecolor": INK, "capsize": 2}
            ax.bar(x, mean, 0.92 * width, color=color, label=label, error_kw={"lw": 1}, **error)
        for row in PUBLISHED:
            if cell not in row.scores:
                continue
            mark: dict[str, Any] = {"color": MUTED, "ls": "", "ms": 4, "mfc": FLOOR}
            mark |= {"marker": "D" if row.plans else "o", "zorder": 4}
            if row.source == THESIS and row.name == "Diffuser":
                mark |= {"marker": "*", "ms": 9, "color": INK}
            ax.plot(group + 0.45, row.scores[cell][0], label=_mark_label(row), **mark)
    ax.axhline(0, color=INK, lw=0.8)
    ax.axhline(100, color=MUTED, lw=0.8, ls=":", zorder=0)
    ax.set_xticks(range(len(LAYOUTS)), [SIZES[layout] for layout in LAYOUTS])
    ax.set_xlim(-0.5, len(LAYOUTS) - 0.4)
    ax.set_ylabel("normalized score")
    ax.set_title(TITLES[task], loc="left", fontsize=10, color=INK)
    ax.spines[["top", "right"]].set_visible(False)


def _mark_label(row: Any) -> str:
    if row.source == THESIS and row.name == "Diffuser":
        return "published: Diffuser (thesis)"
    return "published: planners" if row.plans else "published: model-free"


def _ends(row: Row) -> tuple[float, float]:
    mean, interval = row["score"]["mean"], row["score"]["interval"]
    return (mean, mean) if interval is None else tuple(interval)


def figure_curves(parts: Parts) -> Figure:
    """Score of each learner's snapshots against its updates, one panel a cell."""
    figure = Figure(figsize=(10, 5.4), dpi=150, layout="constrained")
    for ax, cell in zip(figure.subplots(2, 3).flat, CELLS, strict=True):
        for key, (label, color) in LEARNED.items():
            curve = parts.get(f"{key}-{cell}", {}).get("curve")
            if not curve:
                continue
            updates = [point["updates"] / 1000 for point in curve]
            ends = np.array([_ends(point) for point in curve])
            ax.plot(updates, [p["score"]["mean"] for p in curve], color=color, label=label, lw=1.5)
            ax.fill_between(updates, *ends.T, color=color, alpha=0.2, lw=0)
        if f"diffuser-{cell}" in parts:
            mean = parts[f"diffuser-{cell}"]["score"]["mean"]
            label, color = LEARNED["diffuser"]
            ax.axhline(mean, color=color, lw=1.2, ls="--", label=label)
        task, layout = cell.split("-")
        ax.set_title(f"{TITLES[task].split(' ')[0]} {SIZES[layout]}", fontsize=9, color=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(xlabel="thousand updates", ylabel="score")
    _add_legend(figure)
    return figure
