"""Pictures and tables of the study ``gamma-limits``, from its result file alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forethought.figures import INK
from forethought.scores import mean_and_interval

LABELS = {
    "flow": ("spline flow, likelihood", "#2f6690"),
    "flow-regression": ("spline flow, Algorithm 3", "#8fb8de"),
    "gan": ("GAN, least squares", "#7a4fa0"),
    "td2": ("TD2-CFM", "#e8743b"),
    "td2-all": ("TD2-CFM, all discounts", "#f2b263"),
    "single-step": ("single step, rolled out", "#5a9367"),
}
LIMITS, ASKED = (0.99, 0.995), 0.5  # discounts that are judged, and the ratio asked for
OURS, THEIRS = ("td2", "td2-all"), ("flow", "flow-regression", "gan")
BY_DIMENSION = 0.99
RESAMPLES = 2_000
LEAST = 0.005  # an unbiased estimate of a floor can be 0, which has no logarithm
FLOOR: dict[str, Any] = {"color": INK, "lw": 1.3, "label": f"two simulations, at least {LEAST:g}"}
LEGEND: dict[str, Any] = {"loc": "outside lower center", "frameon": False}

Parts = Mapping[str, Any]
Row = Mapping[str, Any]


def tasks_of(parts: Parts) -> list[str]:
    """Tasks whose simulation is there, by dimension."""
    names = [name.removesuffix("-truth") for name in parts if name.endswith("-truth")]
    return sorted(names, key=lambda name: parts[f"{name}-truth"]["dim"])


def rows_of(parts: Parts, task: str, kind: str) -> list[dict[str, Any]]:
    """A kind's rows by discount, each with what its training cost."""
    own = [p for name, p in parts.items() if name.startswith(f"{task}-") and p.get("kind") == kind]
    rows = [{**row, "training": part["training"]} for part in own for row in part["rows"]]
    return sorted(rows, key=lambda row: row["discount"])


def true_row(parts: Parts, task: str, discount: float) -> Row:
    """Floor and reference values at a discount."""
    rows = parts[f"{task}-truth"]["rows"]
    return next(row for row in rows if row["discount"] == discount)


def energies(row: Row) -> Sequence[float]:
    """Energy distance of every question."""
    return row["distance"]["energies"]


def value_errors(row: Row, reward: str) -> Sequence[float]:
    """Absolute error of every question's value."""
    return np.abs(row["values"][reward]["errors"]).tolist()


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of the means over the same questions, with a 95 % interval over resampled questions."""
    pairs = np.array([ours, theirs], dtype=np.float64)
    rows = np.random.default_rng(0).integers(pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):  # a model without error: infinite
        above, below = pairs[:, rows].mean(axis=-1)
        # "lower", for between infinities nothing can be interpolated
        low, high = np.quantile(above / below, [0.025, 0.975], method="lower")
        return float(pairs[0].mean() / pairs[1].mean()), float(low), float(high)


def plot(parts: Parts) -> dict[str, Figure]:
    """Distances and value errors by discount, and distances by dimension."""
    tasks = tasks_of(parts)
    if not tasks:
        return {}
    return {
        "distances": _figure_distances(parts, tasks),
        "values": _figure_values(parts, tasks),
        "dimensions": _figure_dimensions(parts, tasks),
    }


def _figure_distances(parts: Parts, tasks: list[str]) -> Figure:
    figure = Figure(figsize=(max(6.0, 3.9 * len(tasks) + 1), 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        true = parts[f"{task}-truth"]
        _draw_kinds(axis, parts, task, lambda row: mean_and_interval(energies(row)))
        floors = [max(LEAST, row["floor"]["energy"]) for row in true["rows"]]
        horizons = [_horizon(row["discount"]) for row in true["rows"]]
        axis.plot(horizons, floors, ":", **FLOOR)
        _title(axis, task, true)
    axes[0].set(ylabel="energy distance, standard deviations", yscale="log")
    _finish(figure, axes)
    return figure


def _figure_values(parts: Parts, tasks: list[str]) -> Figure:
    names = ("task", "unseen")
    figure = Figure(figsize=(max(6.0, 3.9 * len(tasks) + 1), 7.2), dpi=150, layout="constrained")
    axes = figure.subplots(len(names), len(tasks), squeeze=False, sharex="col")
    for line, name in zip(axes, names, strict=True):
        for axis, task in zip(line, tasks, strict=True):
            true = parts[f"{task}-truth"]
            # as a share of the horizon, an error of the mean reward: values grow with the horizon
            _draw_kinds(axis, parts, task, lambda row, of=name: _per_step(row, of))
            noise = [
                (1 - row["discount"]) * float(np.mean(row["values"][name]["standard_errors"]))
                for row in true["rows"]
            ]
            horizons = [_horizon(row["discount"]) for row in true["rows"]]
            axis.plot(horizons, noise, ":", color=INK, lw=1.3, label="simulation's standard error")
            axis.set_yscale("log")
            _title(axis, task, true, f"{true['rewards'][name]}")
        line[0].set_ylabel("value error x (1 - discount)")
    _finish(figure, axes.ravel().tolist(), below=len(names) * len(tasks) - len(tasks))
    return figure


def _per_step(row: Row, name: str) -> tuple[float, float, float]:
    mean, low, high = mean_and_interval(value_errors(row, name))
    share = 1 - row["discount"]
    return mean * share, low * share, high * share


def _figure_dimensions(parts: Parts, tasks: list[str]) -> Figure:
    figure = Figure(figsize=(6.2, 4.6), dpi=150, layout="constrained")
    axis = figure.subplots()
    dims = [parts[f"{task}-truth"]["dim"] for task in tasks]
    for kind, (label, color) in LABELS.items():
        points = []
        for task, dim in zip(tasks, dims, strict=True):
            rows = [r for r in rows_of(parts, task, kind) if r["discount"] == BY_DIMENSION]
            points += [(dim, *mean_and_interval(energies(row))) for row in rows]
        _line(axis, points, label, color)
    floors = [true_row(parts, task, BY_DIMENSION)["floor"]["energy"] for task in tasks]
    axis.plot(dims, np.maximum(LEAST, floors), ":", marker=".", **FLOOR)
    labels = [f"{dim}\n{task}" for task, dim in zip(tasks, dims, strict=True)]
    axis.set_xticks(dims, labels)
    axis.set(yscale="log", xlabel="dimensions of the observation")
    axis.set_ylabel("energy distance, standard deviations")
    axis.set_title(f"discount {BY_DIMENSION:g}", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), ncols=2, **LEGEND)
    return figure


def _draw_kinds(
    axis: Axes, parts: Parts, task: str, number: Callable[[Row], tuple[float, float, float]]
) -> None:
    """A line over discounts for each kind, with intervals."""
    for kind, (label, color) in LABELS.items():
        rows = rows_of(parts, task, kind)
        points = [(_horizon(row["discount"]), *number(row)) for row in rows]
        _line(axis, points, label, color)


def _line(axis: Axes, points: list[tuple[float, ...]], label: str, color: str) -> None:
    if not points:
        return
    x, mean, low, high = np.array(points).T
    # an interval that reaches below 0 has no place on a logarithmic axis
    reach = [np.minimum(mean - low, 0.9 * mean), high - mean]
    axis.errorbar(x, mean, yerr=reach, fmt="o-", color=color, lw=1.6, ms=4, elinewidth=0.8)
    axis.plot([], [], "o-", color=color, lw=1.6, ms=4, label=label)


def _title(axis: Axes, task: str, true: Row, more: str = "") -> None:
    ending = f": {more}" if more else f", {true['dim']} dimensions"
    axis.set_title(f"{task}{ending}", loc="left", fontsize=10)
    discounts = [row["discount"] for row in true["rows"]]
    axis.set_xscale("log")
    ticks = [f"{discount:g}" for discount in discounts]
    axis.set_xticks([_horizon(discount) for discount in discounts], ticks)
    axis.minorticks_off()


def _finish(figure: Figure, axes: Sequence[Axes], below: int = 0) -> None:
    for index, axis in enumerate(axes):
        axis.spines[["top", "right"]].set_visible(False)
        if index >= below:
            axis.set_xlabel("discount")
    known: dict[str, Any] = {}
    for axis in axes:  # a kind may be missing in some panels
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    columns = max(2, int(figure.get_figwidth() / 2.6))
    figure.legend(list(known.values()), list(known), ncols=columns, **LEGEND)


def _horizon(discount: float) -> float:
    return 1 / (1 - discount)


def markdown(parts: Parts) -> str:
    """For each task what every kind is off, the ratios that were asked for, and what came of it."""
    text: list[str] = []
    for task in tasks_of(parts):
        text += [_heading(parts, task), _table(parts, task)]
        if verdicts := _ratios(parts, task):
            text.append(verdicts)
    return "\n\n".join(text)


def _heading(parts: Parts, task: str) -> str:
    true = parts[f"{task}-truth"]
    policy = true["policy"]
    steps = policy.get("env_steps")
    trained = f" after {steps:,} environment steps" if steps else ""
    score = f", return {policy['return']:.0f}" if policy.get("return") is not None else ""
    rewards = "; ".join(f"{name}: {label}" for name, label in true["rewards"].items())
    return (
        f"### {task}, {true['dim']} dimensions\n\n"
        f"A policy{trained}{score}. Means over {true['questions']} questions with 95 % intervals "
        f"over them (one training seed); {true['draws']} samples against {true['draws']} simulated "
        f"draws, in {true['unit']}. Rewards of the state reached: {rewards}. Value errors are "
        "absolute; in parentheses as a share of the values' standard deviation over questions."
    )


def _table(parts: Parts, task: str) -> str:
    head = ["discount", "model", "energy distance", "sliced W1", "value error, task"]
    head += ["value error, unseen", "steps", "core-seconds"]
    lines = [head, ["---"] * len(head)]
    for true in parts[f"{task}-truth"]["rows"]:
        lines.append(_floor_line(true))
        for kind, (label, _) in LABELS.items():
            for row in rows_of(parts, task, kind):
                if row["discount"] == true["discount"]:
                    lines.append(_line_of(row, true, label))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _floor_line(true: Row) -> list[str]:
    """What simulation itself is off: its two halves, and the standard errors of its values."""
    floor, cells = true["floor"], []
    for values in true["values"].values():
        error = float(np.mean(values["standard_errors"]))
        cells.append(f"± {_number(error)} ({_share(error, values['spread'])})")
    start = [f"{true['discount']:g}", "simulation", f"{floor['energy']:.3f}"]
    return [*start, f"{floor['sliced']:.3f}", *cells, "–", "–"]


def _line_of(row: Row, true: Row, label: str) -> list[str]:
    mean, low, high = mean_and_interval(energies(row))
    cells = [f"{row['discount']:g}", label, f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    cells.append(f"{row['distance']['sliced']:.3f}")
    for name, values in true["values"].items():
        error, low, high = mean_and_interval(value_errors(row, name))
        interval = f"[{_number(low)}, {_number(high)}]"
        cells.append(f"{_number(error)} {interval} ({_share(error, values['spread'])})")
    training = row["training"]
    return [*cells, f"{training['steps']:,}", f"{training['core_seconds']:.0f}"]


def _ratios(parts: Parts, task: str) -> str:
    """Ours over theirs at the discounts that count, and whether the ratio asked for is reached."""
    head = ["discount", "ratio", "energy distance", "value error, task", "value error, unseen"]
    lines = [head, ["---"] * len(head)]
    for discount in LIMITS:
        rows = {
            kind: row
            for kind in (*OURS, *THEIRS)
            for row in rows_of(parts, task, kind)
            if row["discount"] == discount
        }
        for ours in OURS:
            for theirs in THEIRS:
                if ours in rows and theirs in rows:
                    name = f"{LABELS[ours][0]} / {LABELS[theirs][0]}"
                    lines.append([f"{discount:g}", name, *_cells(rows[ours], rows[theirs])])
    if len(lines) == 2:
        return ""
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"Ratios of means, intervals over resampled questions; asked for is at most {ASKED:g}, "
        f"bold where it is reached:\n\n{table}"
    )


def _cells(ours: Row, theirs: Row) -> list[str]:
    found = [ratio(energies(ours), energies(theirs))]
    found += [ratio(value_errors(ours, k), value_errors(theirs, k)) for k in ("task", "unseen")]
    cells = []
    for value, low, high in found:
        shown = f"**{value:.2f}**" if value <= ASKED else f"{value:.2f}"
        cells.append(f"{shown} [{low:.2f}, {high:.2f}]")
    return cells


def _number(value: float) -> str:
    """Two decimals below 10, one below 100, none beyond."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def _share(error: float, spread: float) -> str:
    return f"{error / spread:.2f}" if spread > 0 else "–"
