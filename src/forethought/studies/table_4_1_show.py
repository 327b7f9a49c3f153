"""Table 4.1 from its computed parts: scores, matched differences, costs, a sweep, bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forethought.figures import INK, MUTED
from forethought.studies.published_locomotion import PUBLISHED, SETS
from forethought.studies.rows import difference_text, line, titled
from forethought.studies.table_5_1_show import trend

Row = Mapping[str, Any]
Parts = Mapping[str, Any]

# part -> label, color; in the table's order
ROWS = {
    "data": ("the data itself (behavior policies)", "#9aa0a6"),
    "bc": ("behavior cloning (ours)", "#dd4f70"),
    "iql": ("IQL (ours)", "#e8743b"),
    "tt-uniform": ("Trajectory Transformer, factored, uniform (ours)", "#8fb3dd"),
    "tt": ("Trajectory Transformer, factored, quantile (ours)", "#3d6fb4"),
    "tt-flat": ("Trajectory Transformer, flat, quantile (ours)", "#8a4fb0"),
}
MAIN, RIVALS = "tt", ("bc", "iql")


def title_of(name: str) -> str:
    """ "hopper-medium-replay" as "Medium-Replay"."""
    return "-".join(word.capitalize() for word in name.split("-")[1:])


def markdown(parts: Parts) -> str:
    """Scores with intervals, differences, what each row cost, the sweep, and the data."""
    sections = (
        ("Scores", list(_scores(parts))),
        ("The quantile planner minus the row, episode by episode", _differences(parts)),
        ("How each row was made", protocol_lines(_all_rows(parts))),
        ("Have the learners finished?", _curves(parts)),
        ("What the search is worth", _sweeps(parts)),
        ("The data", _data(parts)),
    )
    return titled(sections)


def _all_rows(parts: Parts) -> list[tuple[str, str, Row]]:
    """(label, data set, row) of what acts, in the table's order."""
    keys = [(key, name) for key in ROWS for name in SETS if key != "data"]
    return [
        (ROWS[key][0], title_of(name), parts[f"{key}-{name}"])
        for key, name in keys
        if f"{key}-{name}" in parts
    ]


def _scores(parts: Parts) -> Iterator[str]:
    yield "Normalized score (100 = D4RL's reference expert): mean over episodes [95 % interval]. "
    yield "*Published rows*: ± standard error as printed, on D4RL's own data, which differ from "
    yield "ours (Gymnasium's -v5 tasks, our policies, medium-replay a mixture of snapshots), so "
    yield "they compare roughly."
    yield ""
    yield line("", *map(title_of, SETS), "mean")
    yield "|---" * (len(SETS) + 2) + "|"
    for key, (label, _) in ROWS.items():
        rows = [parts.get(f"{key}-{name}") for name in SETS]
        if any(rows):
            texts = ["–" if row is None else score_text(row) for row in rows]
            yield line(label, *texts, _mean_text([row["score"]["mean"] for row in rows if row]))
    for published in PUBLISHED:
        scores = [published.scores[name] for name in SETS]
        texts = [f"{v:.1f}" if error is None else f"{v:.1f} ± {error:.1f}" for v, error in scores]
        name = f"*{published.name}, published ({published.source})*"
        yield line(name, *texts, _mean_text([score for score, _ in scores]))


def score_text(row: Row) -> str:
    """Mean and interval; the number of episodes where there are few."""
    interval = row["score"]["interval"]
    text = f"{row['score']['mean']:.1f}"
    text += "" if interval is None else " [{:.1f}, {:.1f}]".format(*interval)
    return text if row["n"] >= 10 else f"{text} ({row['n']} episodes)"


def _mean_text(means: Sequence[float]) -> str:
    return f"{np.mean(means):.1f}" if len(means) == len(SETS) else "–"


def _differences(parts: Parts) -> list[str]:
    lines = []
    for key in ROWS:
        pairs = [(parts.get(f"{MAIN}-{name}"), parts.get(f"{key}-{name}")) for name in SETS]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if key in (MAIN, "data") or not known:
            continue
        texts = ["–" if a is None or b is None else difference_text(a, b) for a, b in pairs]
        lines.append(line(ROWS[key][0], *texts))
    if not lines:
        return []
    return [line("", *map(title_of, SETS)), "|---" * (len(SETS) + 1) + "|", *lines]


def protocol_lines(rows: Sequence[tuple[str, str, Row]]) -> list[str]:
    """Search settings, plan time, training and cost of rows (label, where, row)."""
    if not rows:
        return []
    head = ["| row | on | episodes | acts by | trained | evaluated |", "|---|---|---|---|---|---|"]
    body = [
        line(label, where, str(row["n"]), search_text(row), _training_text(row), _cost_text(row))
        for label, where, row in rows
    ]
    tail = [
        "",
        "One training run a row; the intervals are over episodes, not training seeds. Plans: "
        "median wall time for each environment when all are planned for in one batch (side by "
        "side), and core time of a plan for one (alone).",
    ]
    return [*head, *body, *tail]


def search_text(row: Row) -> str:
    """Beam, horizon, expansions and context of a planner, or that there is none."""
    planner = row["protocol"].get("planner") or {}
    if planner.get("kind") != "beam":
        return row["protocol"].get("controller", "–")
    text = f"{planner['search']} search, beam {planner['beam']}, horizon {planner['horizon']}"
    if planner["search"] == "reward":
        text += f", {planner['reward']['expand']} expansions"
    text += f", context {planner['context']}, a plan every step"
    if planner.get("expected_action"):
        text += ", the first action as expected"
    for key, how in (("plan_ms", "side by side"), ("alone_ms", "alone")):
        times = row["protocol"].get(key, {})
        milliseconds = times.get("median", times.get("core"))
        text += f", {milliseconds:.0f} ms {how}" if milliseconds else ""
    return text


def _training_text(row: Row) -> str:
    facts = row.get("training")
    if not facts:
        return "–"
    text = f"{facts['updates']:,} updates of {facts['batch_size']}"
    if "tokens" in facts:
        rate = facts["tokens_per_core_second"]
        text += f", {facts['tokens'] / 1e6:.0f}M tokens ({rate:,} a core-second)"
    return f"{text}, about {facts['core_minutes']:.0f} core-minutes"


def _cost_text(row: Row) -> str:
    text = f"{row['protocol']['wall_seconds']:.0f} s"
    seconds = row["protocol"].get("core_seconds")
    return text if seconds is None else f"{text}, {seconds:.0f} core-seconds"


def _curves(parts: Parts) -> list[str]:
    found = [(label, where, row) for label, where, row in _all_rows(parts) if row.get("curve")]
    if not found:
        return []
    head = ["| row | on | scores on the way | second half |", "|---|---|---|---|"]
    body = []
    for label, where, row in found:
        points = [f"{p['score']['mean']:.0f} at {p['updates']:,}" for p in row["curve"]]
        body.append(line(label, where, ", ".join(points), trend(row["curve"])))
    return [
        *head,
        *body,
        "",
        "Over 100 starts that the table does not use. The table has the last.",
    ]


def _sweeps(parts: Parts) -> list[str]:
    lines = []
    for key, rows in parts.items():
        if not key.startswith("sweep-") or not rows:
            continue
        where = title_of(key.removeprefix("sweep-"))
        lines += [f"{where}, on starts that the table does not use.", ""]
        lines += ["| search | score | network calls a plan |", "|---|---|---|"]
        for row in rows:
            calls = f"{row['protocol']['network_calls']:.0f}"
            lines.append(line(search_text(row), score_text(row), calls))
    return lines


def _data(parts: Parts) -> list[str]:
    found = [(name, parts[f"data-{name}"]) for name in SETS if f"data-{name}" in parts]
    if not found:
        return []
    head = [
        "| data | steps | episodes | score | end in a fall | policies (return) |",
        "|---" * 6 + "|",
    ]
    body = []
    for name, row in found:
        sources = [
            f"{s['policy'].split('/')[-1].removesuffix('.safetensors')} ({s['return']:.0f})"
            for s in row["protocol"].get("sources") or ()
        ]
        texts = (f"{row['steps']:,}", str(row["n"]), score_text(row), f"{row['falls']:.0%}")
        body.append(line(title_of(name), *texts, ", ".join(sources)))
    return [*head, *body]


# -------------------------------------------------------------------------------------- figure


def plot(parts: Parts) -> dict[str, Figure]:
    """Bars of all rows by data set, published Transformers as marks."""
    if not any(f"{key}-{name}" in parts for key in ROWS for name in SETS):
        return {}
    figure = Figure(figsize=(9, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    present = [key for key in ROWS if any(f"{key}-{name}" in parts for name in SETS)]
    for group, name in enumerate(SETS):
        for place, key in enumerate(present):
            if f"{key}-{name}" in parts:
                draw_bar(axes, group, place, len(present), parts[f"{key}-{name}"], ROWS[key])
    _draw_published(axes)
    finish_bars(figure, axes, [title_of(name) for name in SETS])
    return {"scores": figure}


def draw_bar(
    axes: Axes, group: int, place: int, count: int, row: Row, style: tuple[str, str]
) -> None:
    """One bar of ``count`` in a group, with its interval."""
    width = 0.75 / max(count, 4)
    x = group + (place - (count - 1) / 2) * width
    mean, interval = row["score"]["mean"], row["score"]["interval"]
    low, high = (mean, mean) if interval is None else interval
    error = {"yerr": [[mean - low], [high - mean]], "ecolor": INK, "capsize": 2}
    label, color = style
    axes.bar(x, mean, 0.9 * width, color=color, label=label, error_kw={"lw": 1}, **error)


def _draw_published(axes: Axes) -> None:
    for row in PUBLISHED:
        is_ours = row.name.startswith("Trajectory")
        mark: dict[str, Any] = {"marker": "*" if is_ours else "o", "ls": "", "ms": 8}
        mark |= {"color": INK if is_ours else MUTED, "mfc": INK if is_ours else "none", "zorder": 4}
        mark["ms"] = 8 if is_ours else 4
        label = "published: " + ("Trajectory Transformer" if is_ours else "others")
        values = [row.scores[name][0] for name in SETS]
        axes.plot(np.arange(len(SETS)) + 0.43, values, label=label, **mark)


def finish_bars(figure: Figure, axes: Axes, groups: Sequence[str]) -> None:
    """Axis labels, a line at 100, one legend below."""
    axes.axhline(0, color=INK, lw=0.8)
    axes.axhline(100, color=MUTED, lw=0.8, ls=":", zorder=0)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("normalized score")
    axes.spines[["top", "right"]].set_visible(False)
    drawn, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, drawn, strict=True))
    figure.legend(
        list(unique.values()),
        list(unique),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
