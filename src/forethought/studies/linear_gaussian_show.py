"""Pictures and tables of the study ``linear-gaussian``, from its result file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from forethought.figures import INK, MUTED

LABELS = {
    "flow": ("flow, likelihood", "#2f6690"),
    "flow-long": ("flow, likelihood, 30,000 steps", "#16425b"),
    "flow-large": ("flow, likelihood, batches of 2,048", "#0b2033"),
    "flow-regression": ("flow, Algorithm 3", "#8fb8de"),
    "td2": ("TD2-CFM", "#e8743b"),
    "coupled": ("coupled TD-CFM", "#f2b263"),
    "td": ("TD-CFM", "#c9a227"),
    "gan": ("GAN, least squares", "#7a4fa0"),
    "gan-original": ("GAN, original", "#b99bd1"),
    "single-step": ("single step, rolled out", "#5a9367"),
    "exact": ("draws from the system", MUTED),
}
BARS = {0.5: (0.05, 0.05), 0.9: (0.05, 0.05), 0.99: (0.05, 0.10)}  # of mean and covariance
DRAWN = ("flow", "td2", "gan")
LEGEND: dict[str, Any] = {"loc": "outside lower center", "ncols": 5, "frameon": False}

Row = Mapping[str, Any]


def rows_of(parts: Mapping[str, Any]) -> list[Row]:
    """Every row there is, in the order of LABELS, then by dimension and discount."""
    rows: list[Row] = []
    for part in parts.values():
        rows += part if isinstance(part, list) else [part]
    order = list(LABELS)
    return sorted(rows, key=lambda r: (r["dim"], order.index(r["method"]), r["discount"]))


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Distances by discount and dimension; ellipses of two deviations in two dimensions."""
    rows = rows_of(parts)
    return {"distances": _figure_distances(rows), "moments": _figure_moments(rows)}


def _figure_distances(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _lines(left, [row for row in rows if row["dim"] == 2], "discount")
    fixed = [row for row in rows if row["discount"] == 0.9]
    _lines(right, [row for row in fixed if row["method"] in (*DRAWN, "single-step")], "dim")
    discounts = sorted({row["discount"] for row in rows})
    left.set_xscale("function", functions=(_horizon, lambda x: 1 - np.exp(-np.asarray(x))))
    left.set(xlabel="discount", ylabel="energy distance, standard deviations", yscale="log")
    left.set_xticks(discounts, [f"{discount:g}" for discount in discounts])
    left.set_title("(a) two dimensions", loc="left", fontsize=10)
    if rows:
        figure.legend(*left.get_legend_handles_labels(), **LEGEND)
    right.set(xlabel="dimensions of the state", xscale="log")
    dims = sorted({row["dim"] for row in fixed})
    right.set_xticks(dims, [str(dim) for dim in dims])
    right.minorticks_off()
    right.set_title("(b) discount 0.9", loc="left", fontsize=10)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _horizon(discount: ArrayLike) -> np.ndarray:
    return -np.log1p(-np.minimum(np.asarray(discount, dtype=float), 1 - 1e-9))


def _lines(ax: Axes, rows: list[Row], axis: str) -> None:
    """Energy distance along ``axis``, one line a method, and the largest of two simulations."""
    for method, (label, color) in LABELS.items():
        own = sorted((r for r in rows if r["method"] == method), key=lambda r: r[axis])
        if own:
            x, y = [r[axis] for r in own], [r["energy"]["mean"] for r in own]
            ax.plot(x, y, "o-", color=color, lw=1.6, ms=4, label=label)
    floors: dict[float, list[float]] = {}
    for row in rows:
        floors.setdefault(row[axis], []).append(row["energy_floor"]["worst"])
    if floors:
        x = sorted(floors)
        ax.plot(
            x, [np.mean(floors[k]) for k in x], ":", color=INK, lw=1.2, label="simulations apart"
        )


def _figure_moments(rows: list[Row]) -> Figure:
    """Columns are discounts: the ellipses of every pair, the closed form filled."""
    shown = [row for row in rows if row["dim"] == 2 and row["method"] in DRAWN]
    discounts = sorted({row["discount"] for row in shown})
    figure = Figure(figsize=(3.6 * max(1, len(discounts)), 3.9), dpi=150, layout="constrained")
    for index, discount in enumerate(discounts):
        ax = figure.add_subplot(1, len(discounts), index + 1)
        here = [row for row in shown if row["discount"] == discount]
        for pair in here[0]["moments"]:
            x, y = _ellipse(pair["exact_mean"], pair["exact_covariance"])
            ax.fill(x, y, color="#dfe4ea", lw=0)
        for row in here:
            label, color = LABELS[row["method"]]
            for number, pair in enumerate(row["moments"]):
                line = _ellipse(pair["mean"], pair["covariance"])
                ax.plot(*line, color=color, lw=1.0, label=None if number else label)
        ax.set_title(f"discount {discount:g}", loc="left", fontsize=10)
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)
        if not index:
            figure.legend(*ax.get_legend_handles_labels(), **LEGEND)
    return figure


def _ellipse(mean: ArrayLike, covariance: ArrayLike) -> np.ndarray:
    """(2, 100) points at two standard deviations."""
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return np.asarray(mean)[:, None] + 2 * np.linalg.cholesky(np.asarray(covariance)) @ circle


def markdown(parts: Mapping[str, Any]) -> str:
    """One table a dimension, and which bars are reached."""
    rows = rows_of(parts)
    text = []
    for dim in sorted({row["dim"] for row in rows}):
        own = [row for row in rows if row["dim"] == dim]
        text += [f"### {dim} dimensions", _table(own)]
    verdicts = [_verdict(row) for row in rows if row["dim"] == 2 and row["method"] in DRAWN]
    if verdicts:
        text += [
            "Asked for, in two dimensions: mean within 0.05 standard deviations and covariance "
            "within 5 % (10 % at discount 0.99), as means over pairs.",
            "\n".join(verdicts),
        ]
    return "\n\n".join(text)


def _table(rows: list[Row]) -> str:
    head = ["discount", "model", "mean error (worst)", "covariance error (worst)"]
    head += ["energy distance", "largest floor", "sliced W1", "floor", "steps", "train min"]
    lines = [head, ["---"] * len(head)]
    for row in sorted(rows, key=lambda row: row["discount"]):
        mean, covariance = row["mean_error"], row["covariance_error"]
        training = row.get("training") or {}
        seconds = training.get("train_seconds")
        lines.append(
            [
                f"{row['discount']:g}",
                LABELS[row["method"]][0],
                f"{mean['mean']:.3f} ({mean['worst']:.3f})",
                f"{covariance['mean']:.1%} ({covariance['worst']:.1%})",
                _with_interval(row["energy"]),
                f"{row['energy_floor']['worst']:.3f}",
                _with_interval(row["sliced"]),
                f"{row['sliced_floor']['mean']:.3f}",
                f"{training['steps']:,}" if training else "–",
                "–" if seconds is None else f"{seconds / 60:.1f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_interval(number: Mapping[str, Any]) -> str:
    low, high = number["interval"]
    return f"{number['mean']:.3f} [{low:.3f}, {high:.3f}]"


def _verdict(row: Row) -> str:
    at_mean, at_covariance = BARS[row["discount"]]
    found = (row["mean_error"]["mean"] <= at_mean, row["covariance_error"]["mean"] <= at_covariance)
    said = {(True, True): "reached", (False, False): "neither reached"}
    verdict = said.get(found, "mean only" if found[0] else "covariance only")
    return f"- {LABELS[row['method']][0]} at {row['discount']:g}: {verdict}"
