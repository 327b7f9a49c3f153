"""Models of a study, trained for about a given processor time and kept in the scratch folder.

The learning-rate schedule must know the number of steps, so what a step costs is measured first and
the plan is written down; a training that was stopped goes on by the same plan.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from forethought.checkpoint import WEIGHTS, load_model, write_json
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.models.base import Model
from forethought.training import time_steps, train_experiment

TIMED_STEPS, ROUNDS = 8, 3


def with_steps(experiment: Experiment, steps: int) -> Experiment:
    """The experiment trained for ``steps`` updates."""
    return replace(experiment, train=replace(experiment.train, steps=steps))


def trained_for(
    experiment: Experiment,
    dataset: EpisodeDataset,
    folder: Path,
    core_seconds: float,
    planned: Callable[[Experiment, int], Experiment] = with_steps,
) -> tuple[Model, dict[str, Any]]:
    """The experiment's model, trained unless it is there, and what its training cost.

    planned: the experiment for a number of steps, where more than its training depends on it
    """
    if not (folder / "training.json").exists():
        steps = _plan(experiment, dataset, folder, core_seconds)
        began, resume = time.process_time(), (folder / WEIGHTS).exists()
        train_experiment(planned(experiment, steps), dataset, folder, resume=resume)
        spent = round(time.process_time() - began, 1)
        summary = json.loads((folder / "training.json").read_text())
        write_json(folder / "training.json", {**summary, "core_seconds": spent, "resumed": resume})
    return load_model(folder), json.loads((folder / "training.json").read_text())


def _plan(
    experiment: Experiment, dataset: EpisodeDataset, folder: Path, core_seconds: float
) -> int:
    """Steps that fit the time, measured once."""
    plan = folder / "plan.json"
    if not plan.exists():
        clock = time.process_time
        cost = min(
            time_steps(experiment, dataset, n_steps=TIMED_STEPS, clock=clock) for _ in range(ROUNDS)
        )
        folder.mkdir(parents=True, exist_ok=True)
        steps = max(10, round(core_seconds / cost))
        write_json(plan, {"steps": steps, "step_seconds": round(cost, 5)})
    return json.loads(plan.read_text())["steps"]
