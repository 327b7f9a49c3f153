"""Maps, predictions and numbers of Figure 3.4, from its parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from forethought.envs.grid import Grid
from forethought.envs.pendulum import MAX_VELOCITY
from forethought.figures import INK, MUTED
from forethought.scores import rank_correlation
from forethought.studies.figure_3_3 import draw_panel

Array = NDArray[np.float64]

DISCOUNT, SHORTER = 0.99, 0.95
GRID = Grid(
    low=(-np.pi, -MAX_VELOCITY),
    high=(np.pi, MAX_VELOCITY),
    counts=(161, 161),
    periodic=(True, False),
)
ANGLES = np.linspace(-np.pi, np.pi, 25)[:-1] + np.pi / 24
VELOCITIES = np.linspace(-7.5, 7.5, 21)
NINE = [(angle, velocity) for velocity in (4.0, 0.0, -4.0) for angle in (-2.1, 0.0, 2.1)]
REWARD_NAMES = {"task": "the task's reward", "left": "how far left the tip is"}
WAYS = {
    "one-pass": "one pass of a model for 0.99",
    "small-batches": "the same, batches of 256",
    "wider": "those, a wider network",
    "all-discounts": "one pass of a model for all",
    "rollouts": "14 steps of that one at 0.95",
}


def scores(parts: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each way and reward: rank correlation and errors against the grid, and the rank
    correlation with rollouts."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for way in WAYS:
        if way in parts and "reference" in parts:
            found[way] = {}
            for key in REWARD_NAMES:
                guess = np.array(parts[way]["maps"][key])
                found[way][key] = _compared(guess, parts["reference"][key]["policy"])
                if part := parts.get("simulated"):
                    other = _compared(guess, part[key]["values"])
                    found[way][key] |= {
                        "rank_simulated": other["rank"],
                        "mean_simulated": other["mean"],
                    }
    return found


def _compared(guess: Array, true: ArrayLike) -> dict[str, float]:
    error = guess - np.asarray(true)
    return {
        "rank": rank_correlation(guess, true),
        "mean": float(np.abs(error).mean()),
        "largest": float(np.abs(error).max()),
        "bias": float(error.mean()),
        "range": float(np.ptp(true)),
    }


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Predictions from nine starts, and maps."""
    figures = {}
    if part := parts.get("nine"):
        figures["nine"] = _draw_nine(part)
    if "reference" in parts and "one-pass" in parts:
        figures["maps"] = _draw_maps(parts)
    return figures


def _draw_nine(part: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(12, 6.2), dpi=130, layout="constrained")
    halves: Any = figure.subfigures(1, 2)
    for half, key in zip(halves, ("model", "simulation"), strict=True):
        axes = half.subplots(3, 3, sharex=True, sharey=True).ravel()
        for axis, points, start in zip(axes, part[key], part["starts"], strict=True):
            draw_panel(axis, "pendulum", points, start, "", "")
        half.suptitle(
            f"{'one pass of the model' if key == 'model' else key}, discount {DISCOUNT}",
            fontsize=11,
            color=INK,
        )
        half.supxlabel("angle (0 = upright)", fontsize=9, color=MUTED)
        half.supylabel("velocity", fontsize=9, color=MUTED)
    return figure


def _draw_maps(parts: Mapping[str, Any]) -> Figure:
    ways = [way for way in WAYS if way in parts]
    figure = Figure(figsize=(3.4 * (len(ways) + 1), 6.2), dpi=130, layout="constrained")
    axes = figure.subplots(len(REWARD_NAMES), len(ways) + 1, sharex=True, sharey=True)
    measured = scores(parts)
    for row, (key, name) in zip(axes, REWARD_NAMES.items(), strict=True):
        true = np.array(parts["reference"][key]["policy"])
        maps = [(WAYS[way], parts[way]["maps"][key]) for way in ways] + [("grid", true)]
        image: Any = None
        for axis, (title, values) in zip(row, maps, strict=True):
            shape = (len(ANGLES), len(VELOCITIES))
            image = axis.imshow(
                np.array(values).reshape(shape).T,
                origin="lower",
                aspect="auto",
                extent=(-np.pi, np.pi, VELOCITIES[0] - 0.375, VELOCITIES[-1] + 0.375),
                vmin=true.min(),
                vmax=true.max(),
                cmap="viridis",
            )
            axis.plot(*np.array(NINE).T, "o", ms=5, mfc="none", mec="white", mew=1.1)
            axis.set_title(title if title != "grid" else "Bellman iteration", fontsize=10)
        for axis, way in zip(row, ways, strict=False):
            note = f"rank correlation {measured[way][key]['rank']:.3f}"
            axis.text(0.03, 0.04, note, transform=axis.transAxes, fontsize=8, color="white")
        row[0].set_ylabel(f"{name}\nvelocity")
        figure.colorbar(image, ax=row[-1], shrink=0.9)
    for axis in axes[-1]:
        axis.set_xlabel("angle (0 = upright)")
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Rank correlations and errors of the maps."""
    found = scores(parts)
    if not found:
        return ""
    lines = [
        f"Values of {len(ANGLES) * len(VELOCITIES)} states at discount {DISCOUNT} against Bellman "
        f"iteration of the same policy on a grid of {GRID.counts[0]} x {GRID.counts[1]}, and "
        "against rollouts from each:",
        "",
        "| reward | values from | rank correlation, grid | rollouts | mean error, grid | "
        "rollouts | largest | bias | range |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, name in REWARD_NAMES.items():
        for way, rows in found.items():
            row, label = rows[key], WAYS[way]
            rank, mean = row.get("rank_simulated"), row.get("mean_simulated")
            lines.append(
                f"| {name} | {label} | {row['rank']:.3f} | {'–' if rank is None else f'{rank:.3f}'}"
                f" | {row['mean']:.2f} | {'–' if mean is None else f'{mean:.2f}'} | "
                f"{row['largest']:.2f} | {row['bias']:+.2f} | {row['range']:.1f} |"
            )
    lines += ["", _check(parts["reference"]), *_check_map(parts)]
    return "\n".join(lines)


def _check_map(parts: Mapping[str, Any]) -> list[str]:
    if "simulated" not in parts:
        return []
    ranks = [
        rank_correlation(parts["reference"][key]["policy"], parts["simulated"][key]["values"])
        for key in REWARD_NAMES
    ]
    return [
        "",
        f"Over the whole map, grid and {parts['simulated']['rollouts']} rollouts a state have rank "
        f"correlations of {' and '.join(f'{rank:.3f}' for rank in ranks)}.",
    ]


def _check(part: Mapping[str, Any]) -> str:
    gaps = []
    for key in REWARD_NAMES:
        row = part[key]
        gap = np.abs(np.array(row["nine"]) - np.array(row["nine_rollouts"]))
        gaps.append(f"{gap.max():.2f} (largest standard error {max(row['nine_standard_errors'])})")
    return (
        f"The grid itself against {part['rollouts']} rollouts from each of the nine starts, "
        f"largest gap: {' and '.join(gaps)}."
    )
