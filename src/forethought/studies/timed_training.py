"""Models of a study, trained for about a given processor time and kept in the scratch folder.

The learning-rate schedule must know the number of steps, so what a step costs is measured first and
the plan is written down; a training that was stopped goes on by the same plan.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from forethought.checkpoint import WEIGHTS, load_model, write_json
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.models.base import Model
from forethought.training import time_steps, train_experiment

TIMED_STEPS, ROUNDS = 5, 3


def trained_for(
    experiment: Experiment, dataset: EpisodeDataset, folder: Path, core_seconds: float
) -> tuple[Model, dict[str, Any]]:
    """The experiment's model, trained unless it is there, and what its training cost."""
    if not (folder / "training.json").exists():
        _train(experiment, dataset, folder, core_seconds)
    return load_model(folder), json.loads((folder / "training.json").read_text())


def _train(
    experiment: Experiment, dataset: EpisodeDataset, folder: Path, core_seconds: float
) -> None:
    plan = folder / "plan.json"
    if not plan.exists():
        costs = [
            time_steps(experiment, dataset, n_steps=TIMED_STEPS, clock=time.process_time)
            for _ in range(ROUNDS)
        ]
        steps = max(10, round(core_seconds / min(costs)))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(plan, {"steps": steps, "step_seconds": round(min(costs), 5)})
    steps = json.loads(plan.read_text())["steps"]
    trained = replace(experiment, train=replace(experiment.train, steps=steps))
    began, resume = time.process_time(), (folder / WEIGHTS).exists()
    train_experiment(trained, dataset, folder, resume=resume)
    spent = round(time.process_time() - began, 1)
    summary = json.loads((folder / "training.json").read_text())
    write_json(folder / "training.json", {**summary, "core_seconds": spent, "resumed": resume})
