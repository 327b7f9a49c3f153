"""Figure A.1: predictions of gamma-models trained as GANs, at five discounts.

Pendulum and Acrobot, as Figure 3.3, which see for the questions and distances. One GAN a task is
told the discount, with the loss and step size that did best there at 0.95.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_3 import DISCOUNTS, GANS, TASKS, draw_row, judged, truth
from forethought.studies.gamma_truth import trained_model

SECONDS = 90.0
SETTING = "gan-least-squares-0.001"  # see Figure 3.3


@studies.register("figure-A-1")
def figure_a_1() -> Study:
    """GAN predictions."""
    parts = []
    for task in TASKS:
        parts += [
            Part(name=f"{task}-truth", minutes=1.0, compute=partial(truth, task=task)),
            Part(
                name=f"{task}-gan",
                minutes=SECONDS / 60 + 0.5,
                compute=partial(predictions, task=task),
            ),
        ]
    return Study(
        title="Figure A.1: predictions of GAN gamma-models, Pendulum and Acrobot",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def predictions(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """A GAN that is told the discount, at every discount."""
    chosen = GANS[SETTING]
    model, training = trained_model(
        settings,
        f"gamma/{task}-gan",
        key=f"{task}-gan-all",
        core_seconds=SECONDS,
        model={**chosen["model"], "most_discount": DISCOUNTS[-1]},
        train=chosen["train"],
    )
    return {"training": training, "rows": judged(settings, task, model, DISCOUNTS)}


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """One figure a task."""
    return {
        task: draw_row(task, parts[f"{task}-truth"], parts.get(f"{task}-gan"), "GAN")
        for task in TASKS
        if f"{task}-truth" in parts
    }


def markdown(parts: Mapping[str, Any]) -> str:
    """Distances by discount."""
    lines: list[str] = []
    for task in TASKS:
        true, model = parts.get(f"{task}-truth"), parts.get(f"{task}-gan")
        if true is None or model is None:
            continue
        lines += [
            f"{task.capitalize()}, {SETTING}, {model['training']['steps']:,} steps:",
            "",
            "| discount | energy | floor | sliced W1 | floor |",
            "|---|---|---|---|---|",
        ]
        for row, found in zip(true["rows"], model["rows"], strict=True):
            distance, floor = found["distance"], row["floor"]
            lines.append(
                f"| {row['discount']:g} | {distance['energy']:.3f} | {floor['energy']:.3f} | "
                f"{distance['sliced']:.3f} | {floor['sliced']:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)
