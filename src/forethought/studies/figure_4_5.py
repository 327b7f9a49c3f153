"""Figure 4.5: what kinds of methods average over the data sets of Table 4.1.

The thesis averages nine data sets; the study ``table-4-1`` has Hopper's three, so its averages
stand in a panel of their own. The part here reads that study's result file; run it first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from forethought.figures import INK, MUTED
from forethought.registry import studies
from forethought.studies.base import Part, Study, load_study

TABLE = Path("results/table-4-1.json")
SETS = ("hopper-medium", "hopper-medium-replay", "hopper-medium-expert")
KINDS = {
    "imitation": ("behavior cloning", "#dd4f70"),
    "values": ("temporal differences", "#e8743b"),
    "planning": ("trajectory optimization", "#6a9a5b"),
    "sequences": ("sequence modeling", "#3d6fb4"),
}
ROWS = {  # of the study table-4-1
    "bc": ("BC", "imitation"),
    "iql": ("IQL", "values"),
    "tt": ("Trajectory\nTransformer", "sequences"),
}
THESIS = {  # Table 4.1, "Average"
    "BC": (47.7, "imitation"),
    "MBOP": (47.8, "planning"),
    "BRAC": (36.9, "values"),
    "CQL": (77.6, "values"),
    "Decision\nTransformer": (74.7, "sequences"),
    "Trajectory\nTransformer": (78.9, "sequences"),
}


@studies.register("figure-4-5")
def figure_4_5() -> Study:
    """Bars of averages, colored by kind of method."""
    return Study(
        title="Figure 4.5: offline locomotion, averages by method",
        parts=(Part(name="averages", minutes=0.1, compute=lambda settings: averages(TABLE)),),
        plot=plot,
        markdown=markdown,
    )


def averages(file: Path) -> dict[str, Any]:
    """Means over Hopper's data sets of the rows in ``file`` that have all of them.

    Intervals take the errors of the data sets' means as independent.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; compute it first with `forethought study table-4-1`"
        )
    parts = load_study(file, "table-4-1")["parts"]
    rows = {}
    for key in ROWS:
        found = [parts[f"{key}-{name}"] for name in SETS if f"{key}-{name}" in parts]
        if len(found) == len(SETS):
            rows[key] = _average(found)
    if not rows:
        raise ValueError(
            f"{file} has no method with rows on all of {', '.join(SETS)}; compute the rest with "
            "`forethought study table-4-1`"
        )
    return {"rows": rows, "sets": list(SETS)}


def _average(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    mean = sum(row["score"]["mean"] for row in rows) / len(rows)
    intervals = [row["score"]["interval"] for row in rows]
    half = None
    if all(interval is not None for interval in intervals):
        squares = [((high - low) / 2) ** 2 for low, high in intervals]
        half = round(math.sqrt(sum(squares)) / len(rows), 3)
    return {"mean": round(mean, 3), "half": half, "episodes": [row["n"] for row in rows]}


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Two panels: run here, and published."""
    part = parts.get("averages")
    if part is None:
        return {}
    figure = Figure(figsize=(9.0, 3.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, width_ratios=[len(ROWS), len(THESIS)])
    _draw(
        axes[0],
        {ROWS[key][0]: (row["mean"], ROWS[key][1]) for key, row in part["rows"].items()},
        [row["half"] or 0.0 for row in part["rows"].values()],
    )
    axes[0].set_title("run here: Hopper's three data sets", fontsize=10, color=INK)
    axes[0].set_ylabel("mean normalized score")
    _draw(axes[1], THESIS, None)
    axes[1].set_title("thesis: nine data sets of D4RL", fontsize=10, color=INK)
    handles = [Patch(color=color, label=label) for label, color in KINDS.values()]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(KINDS), frameon=False, fontsize=8
    )
    return {"averages": figure}


def _draw(axis: Axes, bars: Mapping[str, tuple[float, str]], errors: list[float] | None) -> None:
    names, heights = list(bars), [height for height, _ in bars.values()]
    colors = [KINDS[kind][1] for _, kind in bars.values()]
    style = {"lw": 1, "ecolor": INK, "capsize": 3}
    axis.bar(names, heights, color=colors, width=0.65, yerr=errors, error_kw=style)
    for place, height in enumerate(heights):
        axis.text(place, 1.5, f"{height:.0f}", ha="center", color="white", fontsize=9)
    axis.axhline(100, color=MUTED, lw=0.8, ls=":", zorder=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def markdown(parts: Mapping[str, Any]) -> str:
    """Both sets of averages."""
    part = parts.get("averages")
    if part is None:
        return ""
    lines = [
        f"Means over {', '.join(part['sets'])} (95 % interval, errors of the three taken as "
        "independent), and the averages over nine data sets that the thesis prints.",
        "",
        "| method | run here, three data sets | thesis, nine data sets |",
        "|---|---|---|",
    ]
    here = {ROWS[key][0]: row for key, row in part["rows"].items()}
    for name in dict.fromkeys([*here, *THESIS]):
        row = here.get(name)
        mine = "–" if row is None else f"{row['mean']:.1f}"
        if row is not None and row["half"] is not None:
            mine += f" ± {row['half']:.1f}"
        printed = f"{THESIS[name][0]:.1f}" if name in THESIS else "–"
        lines.append(f"| {name.replace(chr(10), ' ')} | {mine} | {printed} |")
    return "\n".join(lines)
