"""Imitation (thesis Section 4.4): likelihood beam search on expert data, in Hopper and Walker2d.

Algorithm 4 plans the likeliest trajectory at every step and its first action is taken: in Hopper
as its bins say, in Walker2d, whose gait is less stable, as expected (``planner.expected_action``);
Walker2d with its bins is a row of its own. They are set beside the behavior policy that made the
data, drawing its actions as it did there, and beside behavior cloning, on the same 15 starts. The
thesis reports normalized returns of 104 and 109 on D4RL's expert data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.config import Experiment
from forethought.registry import recipes, studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.locomotion_rows import (
    EPISODES,
    behavior_row,
    data_row,
    learned_row,
    score_row,
    trained,
    training_facts,
)
from forethought.studies.published_locomotion import IMITATION
from forethought.studies.rows import difference_text, line
from forethought.studies.table_4_1_show import (
    draw_bar,
    finish_bars,
    protocol_lines,
    score_text,
)

Parts = Mapping[str, Any]

TASKS = {"hopper": "Hopper", "walker2d": "Walker2d"}
ROWS = {
    "behavior": ("behavior policy (draws its actions)", "#9aa0a6"),
    "bc": ("behavior cloning (ours)", "#dd4f70"),
    "tt": ("Trajectory Transformer, likelihood beam search (ours)", "#3d6fb4"),
    "tt-bins": ("the same, first action as its bins say (ours)", "#9db7da"),
}
BINS_OF = "walker2d"  # whose recipe takes the expected action; history as the model's windows
RECIPES = {"bc": "bc/{}-expert", "tt": "transformer/{}-expert"}
MINUTES = {"bc-hopper": 3.0, "bc-walker2d": 3.0, "tt-hopper": 12.0, "tt-walker2d": 35.0}
"""on one core: training, curve, 15 episodes"""


@studies.register("imitation")
def imitation() -> Study:
    """Parts: the data, the behavior policy on matched starts, behavior cloning, beam search."""
    parts = []
    for task in TASKS:
        data, acting = partial(data_row, name=f"{task}-expert"), partial(behavior_row, task=task)
        parts.append(Part(name=f"data-{task}", minutes=6.0, compute=data))
        parts.append(Part(name=f"behavior-{task}", minutes=0.5, compute=acting))
        for key, recipe in RECIPES.items():
            compute = partial(learned_row, recipe=recipe.format(task), label=ROWS[key][0])
            name = f"{key}-{task}"
            parts.append(Part(name=name, minutes=MINUTES[name], compute=compute))
    parts.append(Part(name=f"tt-bins-{BINS_OF}", minutes=1.0, compute=bins_row))
    return Study(
        title="Imitation by likelihood beam search (Algorithm 4) on expert data",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def bins_row(settings: StudySettings) -> dict[str, Any]:
    """Walker2d's recipe without the expected action, from the whole history it learned with."""
    experiment: Experiment = recipes[RECIPES["tt"].format(BINS_OF)]()
    folder, _ = trained(settings, experiment)
    planner: Any = replace(experiment.require_planner(), context=5, expected_action=False)
    n, seed = settings.episodes or EPISODES, settings.seed
    row = score_row(folder, experiment, planner, ROWS["tt-bins"][0], episodes=n, seed=seed)
    return {**row, "training": training_facts(settings, experiment, folder)}


def markdown(parts: Parts) -> str:
    """Scores beside the behavior policy's, the share of its return, and how rows were made."""
    lines = [
        "Normalized score (100 = D4RL's reference expert): mean over episodes [95 % interval].",
        "Rows act from the same starts; the data's own mean is over other starts.",
        "",
        line("", *TASKS.values()),
        "|---" * (len(TASKS) + 1) + "|",
    ]
    data = [parts.get(f"data-{task}") for task in TASKS]
    if any(data):
        texts = [f"{score_text(d)}, {d['n']} episodes" if d else "–" for d in data]
        lines.append(line("the data itself", *texts))
    for key, (label, _) in ROWS.items():
        rows = [parts.get(f"{key}-{task}") for task in TASKS]
        if any(rows):
            lines.append(line(label, *(score_text(row) if row else "–" for row in rows)))
    published = (f"{IMITATION[task]:.0f}" for task in TASKS)
    lines.append(line("*Trajectory Transformer, published (thesis Section 4.4)*", *published))
    lines += ["", *_comparisons(parts)]
    found = [
        (label, name, parts[f"{key}-{task}"])
        for key, (label, _) in ROWS.items()
        for task, name in TASKS.items()
        if f"{key}-{task}" in parts
    ]
    made = protocol_lines(found)
    return "\n".join([*lines, *(["", "### How each row was made", "", *made] if made else [])])


def _comparisons(parts: Parts) -> list[str]:
    lines = []
    for task, name in TASKS.items():
        behavior = parts.get(f"behavior-{task}")
        for key in (*RECIPES, "tt-bins"):
            row = parts.get(f"{key}-{task}")
            if row is None or behavior is None:
                continue
            share = 100 * np.mean(row["returns"]) / np.mean(behavior["returns"])
            lines.append(
                f"- {name}, {ROWS[key][0]}: {share:.0f} % of the behavior policy's mean return; "
                f"score minus the behavior policy's, start by start: "
                f"{difference_text(row, behavior)}."
            )
    return lines


def plot(parts: Parts) -> dict[str, Figure]:
    """Bars of all rows by task."""
    present = [key for key in ROWS if any(f"{key}-{task}" in parts for task in TASKS)]
    if not present:
        return {}
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for group, task in enumerate(TASKS):
        for place, key in enumerate(present):
            if f"{key}-{task}" in parts:
                draw_bar(axes, group, place, len(present), parts[f"{key}-{task}"], ROWS[key])
        mark: dict[str, Any] = {"color": "#22262a", "ls": "", "marker": "*", "ms": 8, "zorder": 4}
        axes.plot(group + 0.43, IMITATION[task], label="published (thesis)", **mark)
    finish_bars(figure, axes, list(TASKS.values()))
    return {"scores": figure}
