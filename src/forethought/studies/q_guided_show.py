"""Study ``q-guided`` from its computed parts: success, differences, sweeps, paths, values."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forethought.envs.maze_layout import Layout
from forethought.figures import INK, draw_ends, draw_maze, draw_paths
from forethought.scores import mean_and_interval
from forethought.studies.rows import are_matched, titled
from forethought.studies.table_4_1_show import line, protocol_lines
from forethought.studies.table_5_1_show import trend

Row = Mapping[str, Any]
Parts = Mapping[str, Any]

# key -> label, color; in the table's order
ROWS = {
    "reference": ("waypoint controller (knows the maze)", "#9aa0a6"),
    "bc": ("behavior cloning", "#dd4f70"),
    "return": ("Trajectory Transformer, led by its own reward-to-go", "#8fb3dd"),
    "iql": ("IQL alone", "#e8743b"),
    "v": ("Trajectory Transformer + V of IQL", "#8a4fb0"),
    "q": ("Trajectory Transformer + Q of IQL", "#3d6fb4"),
}
LAYOUTS = ("medium", "large")
SEEDED = ("iql", "v", "q")
DRAWN = ("bc", "return", "iql", "q")
PUBLISHED = (
    "Thesis Table 4.2, AntMaze (v0), mean of five data sets: BC 10.9, IQL 63.2, Decision "
    "Transformer 11.8, Trajectory Transformer + Q 84.0. Another body, other mazes and data: the "
    "order compares, the numbers do not."
)


def rows_of(parts: Parts, key: str, layout: str) -> list[tuple[str, Row]]:
    """A method's rows in a maze: (part, row), one for each training seed of IQL that is there."""
    name = f"{key}-{layout}"
    if key not in SEEDED:
        return [(name, parts[name])] if name in parts else []
    return [(part, parts[part]) for part in sorted(parts) if part.startswith(f"{name}-seed")]


def markdown(parts: Parts) -> str:
    """Success with intervals, differences, the sweep, how rows were made, and the data."""
    sections = (
        ("Success", list(_success(parts))),
        ("Q-guided planning minus IQL alone, start by start", _differences(parts)),
        ("What the search is worth", _sweeps(parts)),
        ("How each row was made", protocol_lines(_all_rows(parts))),
        ("Have the learners finished?", _curves(parts)),
        ("The data", _data(parts)),
    )
    return titled(sections)


def _all_rows(parts: Parts) -> list[tuple[str, str, Row]]:
    return [
        (ROWS[key][0], name, row)
        for layout in LAYOUTS
        for key in ROWS
        for name, row in rows_of(parts, key, layout)
    ]


def _success(parts: Parts) -> Iterator[str]:
    rows = _all_rows(parts)
    if not rows:
        return
    yield "Share of episodes that reach the goal in time [95 % Wilson interval], over the same "
    yield "starts. One line a training seed of IQL, whose values lead the planner of that line."
    yield ""
    yield line("", "maze", "seed of IQL", "reached, %", "episodes", "median steps of those")
    yield "|---" * 6 + "|"
    for label, name, row in rows:
        layout, _, seed = name.partition("-")[2].partition("-seed")
        cells = layout.capitalize(), seed or "–", success_text(row), str(row["n"])
        yield line(label, *cells, _steps_text(row))
    yield ""
    yield PUBLISHED


def success_text(row: Row) -> str:
    """Percent that reach the goal, with the interval."""
    low, high = (100 * end for end in row["success"]["interval"])
    return f"{100 * row['success']['mean']:.0f} [{low:.0f}, {high:.0f}]"


def _steps_text(row: Row) -> str:
    steps = [arrival for arrival in row["arrivals"] if arrival is not None]
    return f"{np.median(steps):.0f}" if steps else "–"


def _differences(parts: Parts) -> list[str]:
    lines = []
    for key, layout in product(("q", "v"), LAYOUTS):
        for name, ours in rows_of(parts, key, layout):
            theirs = parts.get(name.replace(f"{key}-", "iql-", 1))
            if theirs is None:
                continue
            if not are_matched(ours, theirs) or ours["n"] != theirs["n"]:
                lines.append(f"- {name}: not the same starts as IQL's row")
                continue
            gaps = 100 * (np.array(ours["returns"]) - np.array(theirs["returns"]))
            mean, low, high = mean_and_interval(gaps.tolist())
            lines.append(
                f"- {name}: {mean:+.1f} points [{low:.1f}, {high:.1f}]; steps where both arrive: "
                f"{_step_gap(ours, theirs)}"
            )
    return lines


def _step_gap(ours: Row, theirs: Row) -> str:
    pairs = zip(ours["arrivals"], theirs["arrivals"], strict=True)
    gaps = [float(a - b) for a, b in pairs if a is not None and b is not None]
    if len(gaps) < 2:
        return "–"
    mean, low, high = mean_and_interval(gaps)
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]"


def setting_text(row: Row) -> str:
    """Beam, horizon, expansions and cut-offs of a search, and what leads it."""
    planner = row["protocol"]["planner"]
    search = planner["reward"]
    cuts = [
        f"{name} {cut_text(search[name])}" for name in ("actions", "observations") if name in search
    ]
    return (
        f"beam {planner['beam']}, horizon {planner['horizon']}, {search['expand']} expansions, "
        f"{', '.join(cuts)}"
    )


def cut_text(cut: Mapping[str, Any]) -> str:
    """A cut-off in words."""
    words = [f"the likeliest {cut['top']}"] if cut["top"] else []
    words += [f"without the least likely {100 * cut['cdf']:.0f} %"] if cut["cdf"] else []
    return " and ".join(words) or "all tokens"


def _sweeps(parts: Parts) -> list[str]:
    found = [(name, rows) for name, rows in parts.items() if name.startswith("sweep-") and rows]
    if not found:
        return []
    lines = [
        "Q of IQL's first training seed; starts that no other row uses. Plan times are for one "
        "environment: median wall time when all are planned for in one batch, and core time alone.",
        "",
        line("search", "reached, %", "median steps", "ms side by side", "ms alone"),
        "|---" * 5 + "|",
    ]
    for _, rows in found:
        for row in rows:
            protocol = row["protocol"]
            times = f"{protocol['plan_ms']['median']:.1f}", f"{protocol['alone_ms']['core']:.0f}"
            lines.append(line(setting_text(row), success_text(row), _steps_text(row), *times))
    return lines


def _curves(parts: Parts) -> list[str]:
    lines = []
    for label, name, row in _all_rows(parts):
        if row.get("curve"):
            points = [f"{p['score']['mean']:.0f} at {p['updates']:,}" for p in row["curve"]]
            lines.append(f"- {label} ({name}): {', '.join(points)}; {trend(row['curve'])}")
    return lines


def _data(parts: Parts) -> list[str]:
    return [
        f"- `{data['name']}` (fingerprint {data['fingerprint']}): {data['episodes']:,} episodes, "
        f"{data['steps']:,} steps, median length {data['median_length']:.0f}, longest "
        f"{data['longest']}; {data['rewarded']} end at the goal with reward 1. The way takes "
        f"{data['moves_of_the_way']} moves; no episode spans more than "
        f"{data['most_moves_nearer']} of them. Episodes that visit start and goal: "
        f"{data['from_start_to_goal']}; their union leads there: "
        f"{'yes' if data['joined'] else 'no'}."
        for data in (parts[f"data-{name}"] for name in LAYOUTS if f"data-{name}" in parts)
    ]


# ------------------------------------------------------------------------------------- figures


def plot(parts: Parts) -> dict[str, Figure]:
    """Bars of success by maze; for each maze the critic's values and executed paths."""
    figures = {}
    if _all_rows(parts):
        figures["success"] = _figure_success(parts)
    for layout in LAYOUTS:
        found = [(key, rows_of(parts, key, layout)) for key in DRAWN]
        if f"value-{layout}" in parts:
            drawn = [(key, rows[0][1]) for key, rows in found if rows]
            figures[f"paths-{layout}"] = _figure_paths(parts[f"value-{layout}"], drawn)
    return figures


def _figure_success(parts: Parts) -> Figure:
    figure = Figure(figsize=(9.5, 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(LAYOUTS), sharey=True)
    names = [f"{key}-seed{seed}" if key in SEEDED else key for key in ROWS for seed in _seeds(key)]
    for axes, layout in zip(panels, LAYOUTS, strict=True):
        for key in ROWS:
            for name, row in rows_of(parts, key, layout):
                _bar(axes, names.index(name.replace(f"-{layout}", "", 1)), row, ROWS[key][1])
        axes.set_title(layout.capitalize(), fontsize=10)
        axes.set(xlim=(0, 102), xlabel="episodes that reach the goal, %")
        axes.spines[["top", "right"]].set_visible(False)
    labels = [_label(name) for name in names]
    panels[0].set_yticks(range(len(names)), labels, fontsize=8)
    panels[0].invert_yaxis()
    return figure


def _seeds(key: str) -> range:
    return range({"iql": 3, "q": 3}.get(key, 1))


def _label(name: str) -> str:
    key, _, seed = name.partition("-seed")
    return f"{ROWS[key][0]} (seed {seed})" if seed else ROWS[key][0]


def _bar(axes: Axes, place: int, row: Row, color: str) -> None:
    mean = 100 * row["success"]["mean"]
    low, high = (100 * end for end in row["success"]["interval"])
    error = [[max(mean - low, 0)], [max(high - mean, 0)]]
    axes.barh(place, mean, 0.7, color=color)
    axes.errorbar(mean, place, xerr=error, color=INK, lw=1, capsize=2)


def _figure_paths(value: Mapping[str, Any], drawn: Sequence[tuple[str, Row]]) -> Figure:
    layout = Layout.parse(value["layout"])
    height = 3.0 * layout.shape[0] / layout.shape[1] + 0.7
    figure = Figure(figsize=(3.0 * (len(drawn) + 1), height), dpi=150, layout="constrained")
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(1, len(drawn) + 1)))
    draw_maze(panels[0], layout)
    values = np.array(value["values"], dtype=float)
    rows, columns = (0.1 * np.arange(size + 1) - 0.7 for size in values.shape)
    mesh = panels[0].pcolormesh(columns, rows, values, cmap="viridis", zorder=1)
    figure.colorbar(mesh, ax=panels[0], shrink=0.75, label="value")
    panels[0].set_title("V of IQL, at rest", fontsize=9)
    for axes, (key, row) in zip(panels[1:], drawn, strict=True):
        draw_maze(axes, layout)
        draw_paths(axes, [np.array(path) for path in row["paths"]], width=1.2)
        draw_ends(axes, row["paths"][0][0], layout.target)
        label = textwrap.fill(ROWS[key][0], 34)
        axes.set_title(f"{label}\n{success_text(row)} % reach", fontsize=8)
    figure.supxlabel("ways: blue at first, orange at last", fontsize=8)
    return figure
