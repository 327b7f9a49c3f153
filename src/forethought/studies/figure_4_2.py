"""Figure 4.2: one 100-step prediction of the transformer and of the ensemble beside the truth.

The first starting point of Figure 4.3 and its models. Bodies are drawn as sticks from the predicted
observations (``envs/skeleton.py``), with the paths of the head and of the feet; how far a body has
come is the sum of its predicted speeds. A second figure shows the joint angles of all samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from forethought.envs.skeleton import Skeleton
from forethought.figures import INK, MUTED
from forethought.models.dynamics import Dynamics
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_4_3 import prediction_model
from forethought.studies.gamma_truth import load_policy
from forethought.studies.marginals import ensemble_marginals, token_marginals
from forethought.studies.prediction_setup import (
    CORE_SECONDS,
    CROP,
    STEPS,
    TASKS,
    Start,
    bins_of,
    digest,
    pose_starts,
)

SAMPLES = 5  # kept of each
EVERY = 10  # steps between bodies drawn
COLUMNS = 4  # of panels of angles
ROWS = {
    "truth": ("the policy, simulated", INK),
    "transformer": ("transformer", "#2f6690"),
    "ensemble": ("ensemble (PETS)", "#e8743b"),
}


@studies.register("figure-4-2")
def figure_4_2() -> Study:
    """Bodies along one true and two predicted trajectories."""
    parts = []
    for task in TASKS:
        parts.append(Part(name=f"{task}-truth", minutes=0.5, compute=partial(truth, task=task)))
        for key in ("transformer", "ensemble"):
            minutes = 0.5 + CORE_SECONDS / 60
            parts.append(
                Part(
                    name=f"{task}-{key}",
                    minutes=minutes,
                    compute=partial(prediction, task=task, key=key),
                )
            )
    return Study(
        title="Figure 4.2: predictions of 100 steps, drawn as bodies",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def truth(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """The policy itself from the first starting point."""
    starts = pose_starts(settings, task)
    return _content(task, starts, starts[0].truths[:SAMPLES])


def prediction(settings: StudySettings, *, task: str, key: str) -> dict[str, Any]:
    """A model's samples from the same point; models are trained unless they are there."""
    model, training = prediction_model(settings, task, key)
    starts = pose_starts(settings, task)
    start, generator = starts[0], torch.Generator().manual_seed(settings.seed + 2)
    if isinstance(model, Dynamics):
        samples = ensemble_marginals(
            model,
            load_policy(settings, task).explore,
            start.observation,
            start.truths[:1],
            bins=bins_of(settings, task),
            n_samples=SAMPLES,
            generator=generator,
        ).samples
    else:
        samples = token_marginals(
            model,
            start.prefix(0.0, generator),
            n_samples=SAMPLES,
            n_steps=STEPS,
            crop=CROP[key],
            generator=generator,
        ).samples
    return {"training": training, **_content(task, starts, samples)}


def _content(task: str, starts: list[Start], samples: Tensor) -> dict[str, Any]:
    """Bodies of the first sample, angles and lowest points of all; samples (n, T, O)."""
    skeleton = Skeleton(f"forethought/{task}-v0")
    first = starts[0].observation.expand(len(samples), 1, -1)
    seen = torch.cat([first, samples], dim=1).double().numpy()
    lengths = (~np.isnan(seen[:, :, 0])).sum(axis=1)
    positions = [skeleton.positions(row[:n]) for row, n in zip(seen, lengths, strict=True)]
    bodies = [skeleton.sticks(each) for each in positions]
    feet = [i for i, name in enumerate(skeleton.names) if "foot" in name]
    shown = bodies[0]
    return {
        "truths": digest(starts),
        "bodies": _rounded(shown[::EVERY]),
        "head": _rounded(_top(shown)),
        "feet": [_rounded(shown[:, foot].mean(axis=1)) for foot in feet],
        "angles": [_rounded(each[:, 2:]) for each in positions],
        "ways": [round(float(each[-1, 0]), 3) for each in positions],
        "lowest": [round(float(each[..., 1].min()), 3) for each in bodies],
        "lasting": [int(n) - 1 for n in lengths],
    }


def _top(bodies: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 2): the end of the torso that is higher at first."""
    torso = bodies[:, 0]
    return torso[:, int(torso[0, :, 1].argmax())]


def _rounded(values: NDArray[np.float64]) -> list[Any]:
    return np.round(values, 3).tolist()


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Bodies and joint angles, a figure each for every task."""
    figures = {}
    for task in TASKS:
        found = {key: parts[f"{task}-{key}"] for key in ROWS if f"{task}-{key}" in parts}
        if found:
            figures[f"{task}-bodies"] = _draw_bodies(task, found)
            figures[f"{task}-angles"] = _draw_angles(task, found)
    return figures


def _draw_bodies(task: str, found: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(3.9 * len(found), 3.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (key, part) in zip(axes, found.items(), strict=True):
        label, color = ROWS[key]
        _draw_row(axis, part, color)
        axis.set_title(f"{task}: {label}", fontsize=10, color=INK, loc="left")
        axis.set(aspect="equal", xlabel=f"way (m), a body every {EVERY} steps")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("height (m)")
    lines = [Line2D([], [], color=INK, ls=style, lw=0.9) for style in ("-", "--")]
    figure.legend(lines, ["head", "feet"], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_row(axis: Axes, part: Mapping[str, Any], color: str) -> None:
    axis.axhline(0, color=MUTED, lw=0.8)
    axis.plot(*np.array(part["head"]).T, color=color, lw=1.0, alpha=0.6)
    for foot in part["feet"]:
        axis.plot(*np.array(foot).T, color=color, lw=0.8, ls="--", alpha=0.6)
    bodies = part["bodies"]
    for index, body in enumerate(bodies):
        shade = 0.35 + 0.65 * index / max(len(bodies) - 1, 1)
        axis.add_collection(
            LineCollection(body, colors=color, lw=3.2, alpha=shade, capstyle="round")
        )
    axis.autoscale_view()


def _draw_angles(task: str, found: Mapping[str, Any]) -> Figure:
    count = len(next(iter(found.values()))["angles"][0][0])
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(2.8 * COLUMNS, 2.4 * rows), dpi=130, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    axes = panels.flatten()[:count]
    for spare in panels.flatten()[count:]:
        spare.axis("off")
    for key, part in found.items():
        label, color = ROWS[key]
        for sample, angles in enumerate(part["angles"]):
            for axis, line in zip(axes, np.array(angles).T, strict=True):
                axis.plot(line, color=color, lw=0.9, alpha=0.7, label="" if sample else label)
    true = [row for row in (found.get("truth"),) if row]
    for index, axis in enumerate(axes):
        axis.set_title("torso" if not index else f"joint {index}", fontsize=9, color=INK)
        axis.set_xlabel("step", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        for part in true:  # predictions that leave the truth by far would hide it
            values = np.concatenate([np.array(each)[:, index] for each in part["angles"]])
            middle, reach = (values.max() + values.min()) / 2, max(np.ptp(values), 0.1)
            axis.set_ylim(middle - 1.5 * reach, middle + 1.5 * reach)
    for axis in panels[:, 0]:
        axis.set_ylabel(f"{task}: angle (rad)", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Ways and lowest points of the samples."""
    lines = [
        f"{SAMPLES} samples of {STEPS} steps from one starting point (a true one may end before, "
        "when it falls). Lowest point: of any stick's axis; below 0 it is under the floor.",
        "",
        "| task | trajectories of | steps | way (m) | lowest point (m) |",
        "|---|---|---|---|---|",
    ]
    for task in TASKS:
        for key, (label, _) in ROWS.items():
            part = parts.get(f"{task}-{key}")
            if part is not None:
                lines.append(
                    f"| {task} | {label} | {min(part['lasting'])} to {max(part['lasting'])} | "
                    f"{min(part['ways']):.2f} to {max(part['ways']):.2f} | "
                    f"{min(part['lowest']):.3f} |"
                )
    return "\n".join(lines)
