"""Models that differ in one piece from the Medium recipe, trained for equal processor time.

Equal time, not equal steps: a step of a longer window or of another network costs more. What a step
of each costs is measured first, in turns, so that a busy machine is busy for all of them alike; the
number of steps, which the learning-rate schedule must know, is the time divided by that.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forethought.checkpoint import WEIGHTS, load_model, write_json
from forethought.commands import open_data
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.models.diffuser import DiffuserConfig
from forethought.registry import recipes
from forethought.studies.base import StudySettings
from forethought.studies.timed_rows import planned_row
from forethought.training import time_steps, train_experiment

RECIPE = "diffuser/maze-medium"
ROUNDS, TIMED_STEPS = 3, 3  # of the measurement of what a step costs


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model that differs from the recipe's in these settings."""

    label: str
    model: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = {
    "full": Variant(label="full system: U-Net, 48 rows, stride 8"),
    "dit": Variant(
        label="transformer of equal size",
        model={"backbone": "dit", "dim": 128, "depth": 6},
    ),
    "growing": Variant(
        label="32 rows, 4 to 20 steps apart",
        model={"horizon": 32, "stride": 4, "growth": 0.135},
    ),
    "no-fourier": Variant(label="no Fourier features", model={"octaves": 0}),
    "noise": Variant(label="noise predicted, not the clean plan", model={"prediction": "noise"}),
    "stride-4": Variant(label="96 rows, stride 4", model={"horizon": 96, "stride": 4}),
    "stride-16": Variant(label="24 rows, stride 16", model={"horizon": 24, "stride": 16}),
    "dit-small": Variant(
        label="transformer of a third of the size",
        model={"backbone": "dit", "dim": 96, "depth": 3},
    ),
}


def variant_of(key: str) -> Experiment:
    """The recipe with the variant's settings."""
    recipe = recipes[RECIPE]()
    assert isinstance(recipe.model, DiffuserConfig), "this recipe's model"
    return replace(recipe, model=replace(recipe.model, **VARIANTS[key].model))


def trained_row(
    settings: StudySettings, key: str, *, core_seconds: float, n: int, seed: int = 1
) -> dict[str, Any]:
    """Train a variant for about ``core_seconds``, unless its weights are there, and score it.

    seed: of the training;  n: episodes, with the seed of the settings
    """
    folder = settings.runs / f"ablation-{key}"
    experiment = variant_of(key)
    if not (folder / "training.json").exists():
        data = settings.data / experiment.dataset
        dataset = open_data(experiment, str(data) if data.is_dir() else None, settings.console)
        costs = _step_costs(dataset, settings.runs / "ablation-steps.json")
        train = replace(experiment.train, steps=max(1, int(core_seconds / costs[key])), seed=seed)
        began = time.process_time()
        is_begun = (folder / WEIGHTS).exists()
        train_experiment(replace(experiment, train=train), dataset, folder, resume=is_begun)
        facts = {"core_seconds": round(time.process_time() - began, 1), "step_seconds": costs[key]}
        write_json(folder / "cost.json", {**facts, "resumed": is_begun})
    row = planned_row(
        load_model(folder),
        experiment.env,
        experiment.require_planner(),
        experiment.control,
        n=n,
        seed=settings.seed,
    )
    training = {**_read(folder / "training.json"), **_read(folder / "cost.json"), "seed": seed}
    return {"group": "model", "label": VARIANTS[key].label, "training": training, **row}


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def _step_costs(dataset: EpisodeDataset, file: Path) -> dict[str, float]:
    """Core-seconds of a training step of every variant, measured once and kept in ``file``."""
    if file.is_file():
        return json.loads(file.read_text())
    seconds: dict[str, list[float]] = {key: [] for key in VARIANTS}
    for _ in range(ROUNDS):
        for key, found in seconds.items():
            experiment = variant_of(key)
            found.append(
                time_steps(experiment, dataset, n_steps=TIMED_STEPS, clock=time.process_time)
            )
    costs = {key: round(statistics.median(found), 4) for key, found in seconds.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, costs)
    return costs
