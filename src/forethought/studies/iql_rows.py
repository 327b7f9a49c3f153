"""The IQL rows of Table 5.1: a grid on U-Maze, then one run a maze, each with its curve.

A run is trained in segments, and the checkpoint after each is scored on starts that no table uses;
killed at any time, it goes on where it was. The thesis's grid (Section C.1) is temperature 3 or 10
and expectile 0.65 to 0.95.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from forethought.agents.iql import IQLConfig
from forethought.checkpoint import current_commit, hardware, load_model, write_json
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.evaluation import make_policy
from forethought.registry import datasets, recipes
from forethought.rollout import Evaluation, evaluate
from forethought.studies.base import StudySettings
from forethought.studies.rows import read_row, row_file, row_of, write_row
from forethought.training import train_experiment

GRID = tuple((t, e) for t in (3.0, 10.0) for e in (0.65, 0.8, 0.95))  # temperature, expectile
GRID_CELL = "maze2d-umaze"
GRID_MARKS = (5_000, 10_000, 15_000)  # updates after which a run is scored
CURVE_EPISODES, CURVE_SEED = 100, 1_000  # not the tables' starts


def open_dataset(settings: StudySettings, name: str) -> EpisodeDataset:
    """The registered data set ``name``, built into the data folder if it is not there."""
    folder = settings.data / name
    if not folder.is_dir():
        datasets[name](seed=0).save(folder)
    return EpisodeDataset.open(folder)


def train_with_curve(
    experiment: Experiment, dataset: EpisodeDataset, out: Path, marks: Sequence[int]
) -> list[dict[str, Any]]:
    """Train to the last of ``marks``, scoring at each; what ``out`` holds already is kept.

    Returns one record a mark: updates, score with interval, success rate.
    """
    if experiment.train.schedule != "constant":
        raise ValueError(
            "a run that is trained in segments needs train.schedule 'constant'; "
            f"got {experiment.train.schedule!r}"
        )
    file = out / "curve.json"
    curve = json.loads(file.read_text()) if file.is_file() else []
    for mark in marks:
        if mark in [point["updates"] for point in curve]:
            continue
        train = replace(experiment.train, steps=mark)
        train_experiment(replace(experiment, train=train), dataset, out, resume=True)
        result = score(experiment, out, CURVE_EPISODES, CURVE_SEED)
        curve.append({"updates": mark, "score": result.score, "success_rate": result.success_rate})
        write_json(file, curve)
    return [point for point in curve if point["updates"] <= marks[-1]]


def score(experiment: Experiment, out: Path, episodes: int, seed: int) -> Evaluation:
    """The checkpoint in ``out`` on the experiment's environment."""
    policy = make_policy(load_model(out), experiment.require_planner(), experiment.control)
    return evaluate(policy, experiment.env, episodes, seed, n_parallel=50)


def iql_grid(settings: StudySettings, folder: Path) -> dict[str, Any]:
    """Every setting of the grid on U-Maze, and which did best over its last two marks."""
    file = row_file(folder, "iql", "grid")
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    dataset, runs = open_dataset(settings, "maze-umaze"), []
    for temperature, expectile in GRID:
        experiment = _experiment(GRID_CELL, temperature, expectile)
        out = _run_folder(settings, GRID_CELL, temperature, expectile)
        curve = train_with_curve(experiment, dataset, out, GRID_MARKS)
        runs.append({"temperature": temperature, "expectile": expectile, "curve": curve})
    best = max(runs, key=lambda run: sum(p["score"]["mean"] for p in run["curve"][-2:]))
    result = {
        "kind": "grid",
        "env": _experiment(GRID_CELL, *GRID[0]).env,
        "curve_episodes": CURVE_EPISODES,
        "curve_seed": CURVE_SEED,
        "runs": runs,
        "best": {name: best[name] for name in ("temperature", "expectile")},
    }
    write_row(file, result)
    return result


def iql_row(settings: StudySettings, folder: Path, cell: str) -> dict[str, Any]:
    """IQL in one cell at the grid's best setting; trained now if no file holds the row."""
    file, how = row_file(folder, "iql", cell), f"forethought study table-5-1 --only iql-{cell}"
    if file.is_file():
        return read_row(file, how=how)
    best = iql_grid(settings, folder)["best"]
    experiment = _experiment(cell, **best)
    dataset = open_dataset(settings, experiment.dataset)
    out, last = _run_folder(settings, cell, **best), experiment.train.steps
    marks = sorted({*GRID_MARKS, *range(20_000, last, 10_000), last})
    curve = train_with_curve(experiment, dataset, out, marks)
    result = score(experiment, out, settings.episodes or 400, settings.seed)
    result.protocol.update(
        {
            "recipe": experiment.name,
            **best,
            "controller": "the model's own actions",
            "train_updates": last,
            "train_seconds": json.loads((out / "training.json").read_text())["train_seconds"],
            "batch_size": experiment.train.batch_size,
            "train_seeds": 1,
            "dataset": {"name": experiment.dataset, "fingerprint": dataset.fingerprint},
            "command": how,
            "commit": current_commit(),
            "made": date.today().isoformat(),
            "hardware": hardware(),
        }
    )
    write_row(file, row_of("IQL", result, curve=curve))
    return read_row(file, how=how)


def _experiment(cell: str, temperature: float, expectile: float) -> Experiment:
    task, layout = cell.split("-")
    experiment: Experiment = recipes[f"iql/{'maze' if task == 'maze2d' else 'multi'}-{layout}"]()
    assert isinstance(experiment.model, IQLConfig), "iql recipes hold IQL"
    model = replace(experiment.model, temperature=temperature, expectile=expectile)
    return replace(experiment, model=model)


def _run_folder(settings: StudySettings, cell: str, temperature: float, expectile: float) -> Path:
    return settings.runs / "iql" / f"{cell}-temperature{temperature:g}-expectile{expectile:g}"
