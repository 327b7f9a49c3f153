"""Figure 3.3: where a policy will be, for five discounts from one model, beside simulation.

Pendulum and Acrobot. One flow-matching model that is told the discount (TD2-CFM) is asked at five
discounts from 0 to 0.95; the thesis trains a spline flow for each. At 0.95 the three kinds of
models, each trained at that discount alone for the same processor time, are compared in numbers.
The GAN has four chances: two losses by two step sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from forethought.figures import INK, MUTED
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.gamma_truth import (
    distances,
    open_dataset,
    pose_questions,
    spread_of,
    trained_model,
)

TASKS = ("pendulum", "acrobot")
DISCOUNTS = (0.0, 0.5, 0.8, 0.9, 0.95)
COMPARED = 0.95
POINTS = 400  # drawn in a panel
ALL_SECONDS, EQUAL_SECONDS = {"pendulum": 900.0, "acrobot": 300.0}, 60.0
# the target network must follow within a model's horizon, or its errors outlive the training
FAST: dict[str, Any] = {"target_rate": 0.03}
MATCHING: dict[str, Any] = {**FAST, "target_ode_steps": 3}
FLOW: dict[str, Any] = {**FAST, "transforms": 3, "width": 64, "bins": 8, "sigma": 0.05}
TUNED: dict[str, Any] = {  # as found best on the linear system (docs/decisions.md)
    "model": {
        "objective": "likelihood",
        "affine_first": True,
        "transforms": 2,
        "width": 64,
        "bins": 8,
        "bound": 5.0,
        "sigma": 0.02,
        "target_rate": 0.01,
    },
    "train": {"batch_size": 512, "learning_rate": 2e-3},
}
GANS: dict[str, dict[str, Any]] = {
    f"gan-{objective}-{rate:g}": {
        "model": {**FAST, "objective": objective, "width": 128},
        "train": {"learning_rate": rate, "schedule": "cosine"},
    }
    for objective in ("original", "least-squares")
    for rate in (3e-4, 1e-3)
}
COMPARISON: dict[str, dict[str, Any]] = {
    "td2": {"model": MATCHING},
    "flow": {"model": FLOW},
    "flow-likelihood": {"model": {**FLOW, "objective": "likelihood"}},
    "flow-tuned": TUNED,
    **GANS,
}
NAMES = {
    "flow": "spline flow (Algorithm 3)",
    "flow-likelihood": "spline flow by likelihood",
    "flow-tuned": "the same, affine first, sigma 0.02",
    "td2": "flow matching (TD2-CFM)",
}


@studies.register("figure-3-3")
def figure_3_3() -> Study:
    """Predictions at five discounts, and three kinds of models at 0.95."""
    parts = []
    for task in TASKS:
        parts += [
            Part(name=f"{task}-truth", minutes=1.0, compute=partial(truth, task=task)),
            Part(
                name=f"{task}-all",
                minutes=ALL_SECONDS[task] / 60 + 0.5,
                compute=partial(predictions, task=task),
            ),
        ]
        parts += [
            Part(
                name=f"{task}-{key}",
                minutes=EQUAL_SECONDS / 60 + 0.5,
                compute=partial(comparison, task=task, key=key),
            )
            for key in COMPARISON
        ]
    return Study(
        title="Figure 3.3: gamma-model predictions, Pendulum and Acrobot",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def truth(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """Simulated occupancies at every discount: points to draw, and the noise floor."""
    questions = pose_questions(settings, task)
    spread = spread_of(open_dataset(settings, f"{task}-policy"))
    rows = []
    for discount in DISCOUNTS:
        first, second = (questions.occupancy(discount, settings.seed + k) for k in (1, 2))
        rows.append(
            {
                "discount": discount,
                "floor": distances(first, second, spread),
                "points": shown_points(task, first[0]),
            }
        )
    return {
        "rows": rows,
        "questions": len(questions.states),
        "draws": first.shape[1],
        "start": shown_points(task, questions.observation[:1])[0],
        "unit": "standard deviations of the data in each observation dimension",
        "spread": spread.numpy().round(4).tolist(),
    }


def predictions(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """The discount-conditioned model at every discount."""
    model, training = trained_model(
        settings,
        f"gamma/{task}-td2-all",
        key=f"{task}-td2-all",
        core_seconds=ALL_SECONDS[task],
        model=MATCHING,
    )
    return {"training": training, "rows": judged(settings, task, model, DISCOUNTS)}


def comparison(settings: StudySettings, *, task: str, key: str) -> dict[str, Any]:
    """One model of one discount, trained for the common time."""
    recipe = f"gamma/{task}-{key.split('-')[0]}"
    model, training = trained_model(
        settings, recipe, key=f"{task}-{key}", core_seconds=EQUAL_SECONDS, **COMPARISON[key]
    )
    return {"training": training, "rows": judged(settings, task, model, (COMPARED,))}


def judged(
    settings: StudySettings, task: str, model: Any, discounts: tuple[float, ...]
) -> list[dict[str, Any]]:
    """A model's distances to simulation and its points, one row a discount."""
    questions = pose_questions(settings, task)
    spread = spread_of(open_dataset(settings, f"{task}-policy"))
    rows = []
    for discount in discounts:
        found = questions.predict(model, discount, settings.seed)
        true = questions.occupancy(discount, settings.seed + 1)
        rows.append(
            {
                "discount": discount,
                "distance": distances(found, true, spread),
                "points": shown_points(task, found[0]),
            }
        )
    return rows


def shown_points(task: str, observations: Tensor) -> list[list[float]]:
    """(n, 2) of the first observations: angle and velocity, or both angles; upright is 0 for
    Pendulum, hanging for Acrobot."""
    kept = observations[:POINTS]
    first = torch.atan2(kept[:, 1], kept[:, 0])
    second = kept[:, 2] if task == "pendulum" else torch.atan2(kept[:, 3], kept[:, 2])
    return torch.stack([first, second], dim=-1).numpy().round(3).tolist()


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """One row of panels a task: five discounts, simulation, and the models of one discount."""
    figures = {}
    for task in TASKS:
        if f"{task}-truth" not in parts:
            continue
        figures[task] = draw_row(task, parts[f"{task}-truth"], parts.get(f"{task}-all"), "TD2-CFM")
        if any(f"{task}-{key}" in parts for key in COMPARISON):
            figures[f"{task}-kinds"] = _draw_kinds(task, parts)
    return figures


def draw_row(
    task: str, true: Mapping[str, Any], model: Mapping[str, Any] | None, label: str
) -> Figure:
    """Predictions at every discount above simulation at the same."""
    figure = Figure(figsize=(12.5, 5.2), dpi=130, layout="constrained")
    axes = figure.subplots(2, len(true["rows"]), sharex=True, sharey=True)
    for column, row in enumerate(true["rows"]):
        found = model["rows"][column] if model else None
        energy = f"energy distance {found['distance']['energies'][0]:.3f}" if found else ""
        title = f"discount {row['discount']:g}"
        draw_panel(axes[0, column], task, found and found["points"], true["start"], title, energy)
        floor = f"floor {row['floor']['energies'][0]:.3f}"
        draw_panel(axes[1, column], task, row["points"], true["start"], "", floor)
    axes[0, 0].set_ylabel(f"{label}\n{_axes_of(task)[1]}")
    axes[1, 0].set_ylabel(f"simulation\n{_axes_of(task)[1]}")
    figure.supxlabel(_axes_of(task)[0], fontsize=10)
    return figure


def _draw_kinds(task: str, parts: Mapping[str, Any]) -> Figure:
    true = parts[f"{task}-truth"]
    keys = [key for key in ("td2", "flow", best_gan(parts, task)) if f"{task}-{key}" in parts]
    figure = Figure(figsize=(3.0 * (len(keys) + 1), 3.2), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(keys) + 1, sharex=True, sharey=True, squeeze=False)[0]
    for axis, key in zip(axes, keys, strict=False):
        row = parts[f"{task}-{key}"]["rows"][0]
        energy = f"energy distance {row['distance']['energies'][0]:.3f}"
        draw_panel(axis, task, row["points"], true["start"], NAMES.get(key, f"{key}"), energy)
    row = true["rows"][-1]
    floor = f"floor {row['floor']['energies'][0]:.3f}"
    draw_panel(axes[-1], task, row["points"], true["start"], "simulation", floor)
    figure.supxlabel(_axes_of(task)[0], fontsize=10)
    axes[0].set_ylabel(_axes_of(task)[1])
    return figure


def draw_panel(  # noqa: PLR0913  an axis, what to draw on it, what to write on it
    axis: Any, task: str, points: Any, start: Any, title: str, note: str
) -> None:
    """Points, the start as a circle, the same limits everywhere."""
    if points:
        x, y = np.array(points).T
        axis.plot(x, y, ".", ms=2.2, color="#2f6690", alpha=0.45, mec="none")
    axis.plot(*start, "o", ms=8, mfc="none", mec="#e8743b", mew=1.8)
    limit = 8.5 if task == "pendulum" else np.pi + 0.2
    axis.set(xlim=(-np.pi - 0.2, np.pi + 0.2), ylim=(-limit, limit))
    axis.set_title(title, fontsize=10, color=INK)
    axis.text(0.02, 0.02, note, transform=axis.transAxes, fontsize=7.5, color=MUTED)
    axis.spines[["top", "right"]].set_visible(False)


def _axes_of(task: str) -> tuple[str, str]:
    if task == "pendulum":
        return "angle (0 = upright)", "velocity"
    return "angle of the first link (0 = hanging)", "angle of the second"


def best_gan(parts: Mapping[str, Any], task: str) -> str:
    """The key of the GAN with the least energy distance, or "" if there is none yet."""
    found = [key for key in GANS if f"{task}-{key}" in parts]
    return min(found, key=lambda key: _energy(parts, task, key)) if found else ""


def _energy(parts: Mapping[str, Any], task: str, key: str) -> float:
    return parts[f"{task}-{key}"]["rows"][0]["distance"]["energy"]


def markdown(parts: Mapping[str, Any]) -> str:
    """Distances by discount, and by kind of model at 0.95."""
    lines: list[str] = []
    for task in TASKS:
        true, model = parts.get(f"{task}-truth"), parts.get(f"{task}-all")
        if true is None:
            continue
        lines += [
            f"{task.capitalize()}: mean over {true['questions']} starts of distances between "
            f"{true['draws']} samples and {true['draws']} simulated draws; floor = two simulations "
            f"(unit: {true['unit']}).",
            "",
            "| discount | energy, one model | floor | sliced W1, one model | floor |",
            "|---|---|---|---|---|",
        ]
        for index, row in enumerate(true["rows"]):
            found = model["rows"][index]["distance"] if model else {}
            floor = row["floor"]
            lines.append(
                f"| {row['discount']:g} | {_cell(found.get('energy'))} | {floor['energy']:.3f} | "
                f"{_cell(found.get('sliced'))} | {floor['sliced']:.3f} |"
            )
        lines += ["", *_kinds(parts, task, true["rows"][-1]["floor"])]
    return "\n".join(lines)


def _kinds(parts: Mapping[str, Any], task: str, floor: Mapping[str, Any]) -> list[str]:
    keys = [key for key in COMPARISON if f"{task}-{key}" in parts]
    if not keys:
        return []
    lines = [
        f"At discount {COMPARED:g}, one discount a model, equal processor time:",
        "",
        "| model | steps | core-seconds | energy | sliced W1 |",
        "|---|---|---|---|---|",
    ]
    for key in sorted(keys, key=lambda key: _energy(parts, task, key)):
        part = parts[f"{task}-{key}"]
        training, found = part["training"], part["rows"][0]["distance"]
        lines.append(
            f"| {NAMES.get(key, key)} | {training['steps']:,} | "
            f"{training.get('core_seconds', float('nan')):.0f} | {found['energy']:.3f} | "
            f"{found['sliced']:.3f} |"
        )
    lines += [f"| floor | | | {floor['energy']:.3f} | {floor['sliced']:.3f} |", ""]
    return lines


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
