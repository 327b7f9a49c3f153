"""Rows on locomotion data: train a recipe if nobody has, act, and keep score, settings and cost.

A model is taken from ``pretrained/RECIPE`` if it is there, else from the study's scratch folder,
where it is trained now; a training that was stopped goes on where it was. All rows of one seed and
number of episodes have the same starts. Times are also given in core-seconds, seconds of one busy
core, which other programs on the machine change little.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forethought.checkpoint import CONFIG, WEIGHTS, load_config, load_model
from forethought.config import Experiment, PlannerConfig
from forethought.data.episodes import Episode
from forethought.datasets.locomotion import behavior_score
from forethought.evaluation import checkpoint_protocol, make_policy, plan_times, rounded
from forethought.models.token_model import TokenTrajectoryModel
from forethought.planners.reactive import ReactiveConfig
from forethought.policy import PlanningPolicy
from forethought.registry import recipes
from forethought.rollout import evaluate
from forethought.snapshots import ShippedPolicies, StochasticPolicy
from forethought.studies.base import StudySettings
from forethought.studies.iql_rows import open_dataset, train_with_curve
from forethought.studies.rows import row_of
from forethought.training import check_same_data, time_steps, train_experiment
from forethought.types import Trajectory

EPISODES = 15
TIMED_STEPS = 5
ALONE = 5  # plans timed for one environment
MARKS = 5  # points of a learner's curve


def data_row(settings: StudySettings, name: str) -> dict[str, Any]:
    """What the behavior policies earn in the data itself, built now if it is not there."""
    dataset = open_dataset(settings, name)
    episodes = list(dataset)
    score = behavior_score(episodes, dataset.metadata["env"])
    return {
        "kind": "row",
        "method": "the data",
        "env": dataset.metadata["env"],
        "score": {"mean": score["mean"], "interval": score["interval"]},
        "n": score["n"],
        "best_return": float(max(episode.rewards.sum() for episode in episodes)),
        "steps": dataset.n_steps,
        "falls": float(np.mean(dataset.terminated)),
        "protocol": {
            "controller": "every episode of the data; not the starts of the other rows",
            "dataset": {"name": name, "fingerprint": dataset.fingerprint},
            **{key: dataset.metadata.get(key) for key in ("seed", "behavior", "sources")},
        },
    }


def behavior_row(settings: StudySettings, task: str) -> dict[str, Any]:
    """The shipped expert, drawing its actions as in its data, on the starts of the other rows."""
    shipped = ShippedPolicies.open(settings.pretrained / "sac" / task)
    episodes = settings.episodes or EPISODES
    protocol = {"controller": "actions drawn from the policy", "policy": shipped.expert}
    result = evaluate(
        StochasticPolicy(shipped.load(shipped.expert)),
        shipped.env,
        episodes,
        settings.seed,
        n_parallel=episodes,
        protocol=protocol,
    )
    return row_of("behavior policy", result)


def learned_row(
    settings: StudySettings, recipe: str, label: str, *, episodes: int = EPISODES
) -> dict[str, Any]:
    """A recipe's score with its own planner, trained now if it has not been."""
    experiment: Experiment = recipes[recipe]()
    folder, curve = trained(settings, experiment)
    row = score_row(
        folder,
        experiment,
        experiment.require_planner(),
        label,
        episodes=settings.episodes or episodes,
        seed=settings.seed,
    )
    training = training_facts(settings, experiment, folder)
    return {**row, "training": training, **({"curve": curve} if curve else {})}


def sweep(
    settings: StudySettings, recipe: str, changes: list[dict[str, Any]], *, episodes: int
) -> list[dict[str, Any]]:
    """The recipe's planner with each of ``changes`` (of beam, horizon, expand), on starts that no
    table uses."""
    experiment: Experiment = recipes[recipe]()
    folder, _ = trained(settings, experiment)
    rows = []
    for change in changes:
        planner: Any = experiment.require_planner()
        expand = change.get("expand", planner.reward.expand)
        others = {key: value for key, value in change.items() if key != "expand"}
        planner = replace(planner, **others, reward=replace(planner.reward, expand=expand))
        n, seed = settings.episodes or episodes, settings.seed + 1_000
        row = score_row(folder, experiment, planner, "sweep", episodes=n, seed=seed)
        rows.append(row)
    return rows


def trained(
    settings: StudySettings, experiment: Experiment
) -> tuple[Path, list[dict[str, Any]] | None]:
    """Folder of the experiment's model, and its learning curve if it is scored on the way (those
    that act without planning, which costs little).

    Raises ValueError if the scratch folder holds a model of other data.
    """
    shipped = settings.pretrained / experiment.name
    if (shipped / WEIGHTS).is_file():
        return shipped, None
    dataset, out = open_dataset(settings, experiment.dataset), settings.runs / experiment.name
    if (out / CONFIG).is_file():
        check_same_data(dataset, out)
    if isinstance(experiment.planner, ReactiveConfig):
        steps = experiment.train.steps
        marks = sorted({max(1, steps * k // MARKS) for k in range(1, MARKS + 1)})
        return out, train_with_curve(experiment, dataset, out, marks)
    file = out / "training.json"
    if not file.is_file() or json.loads(file.read_text())["steps"] < experiment.train.steps:
        train_experiment(experiment, dataset, out, resume=True)
    return out, None


def score_row(
    folder: Path,
    experiment: Experiment,
    planner: PlannerConfig,
    label: str,
    *,
    episodes: int,
    seed: int,
    keep_paths: int = 0,
) -> dict[str, Any]:
    """The checkpoint in ``folder`` with ``planner`` in the experiment's environment.

    keep_paths: episodes whose first two observed dimensions are kept
    """
    policy = make_policy(load_model(folder), planner, experiment.control)
    protocol = checkpoint_protocol(folder, load_config(folder), planner, experiment.control)
    began = time.process_time()
    result = evaluate(
        policy, experiment.env, episodes, seed, n_parallel=episodes, protocol=protocol
    )
    result.protocol["core_seconds"] = round(time.process_time() - began, 1)
    if isinstance(policy, PlanningPolicy):
        result.protocol.update(plan_times(policy))
        result.protocol["network_calls"] = round(float(np.mean(policy.plan_calls)), 1)
        result.protocol["alone_ms"] = _plan_alone_ms(policy, result.paths[0])
    lengths = [record["steps"] for record in result.episodes]
    paths = {"paths": [rounded(e.observations[:, :2]) for e in result.paths[:keep_paths]]}
    return row_of(label, result, lengths=lengths, **(paths if keep_paths else {}))


def _plan_alone_ms(policy: PlanningPolicy, episode: Episode) -> dict[str, float]:
    """Median time of a plan for one environment, full history: by the wall and on a core."""
    past = min(policy.planner.context, len(episode) - 1)
    history = Trajectory(
        observations=torch.from_numpy(episode.observations[None, :past]),
        actions=torch.from_numpy(episode.actions[None, :past]),
        times=torch.arange(-past, 0),
        rewards=torch.from_numpy(episode.rewards[None, :past]),
    )
    observation = torch.from_numpy(episode.observations[None, past])
    times = []
    for seed in range(ALONE):
        began = time.perf_counter(), time.process_time()
        generator = [torch.Generator().manual_seed(seed)]
        policy.planner.plan(observation, history=history if past else None, generator=generator)
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    wall, core = 1e3 * np.median(np.array(times), axis=0)
    return {"wall": round(float(wall), 1), "core": round(float(core), 1)}


def training_facts(settings: StudySettings, experiment: Experiment, folder: Path) -> dict[str, Any]:
    """Updates, tokens or transitions seen, and core-minutes, from steps timed now."""
    file = folder / "training.json"
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    train = experiment.train
    dataset = open_dataset(settings, experiment.dataset)
    seconds = time_steps(experiment, dataset, n_steps=TIMED_STEPS, clock=time.process_time)
    model = load_model(folder)
    window = model.window if isinstance(model, TokenTrajectoryModel) else 1
    transitions = train.steps * train.batch_size * window
    result = {
        "recipe": experiment.name,
        "updates": train.steps,
        "batch_size": train.batch_size,
        "transitions": transitions,
        "parameters": sum(p.numel() for p in model.parameters()),
        "core_minutes": round(seconds * train.steps / 60, 1),
        "wall_seconds": facts.get("train_seconds"),
        "train_seeds": 1,
    }
    if isinstance(model, TokenTrajectoryModel):
        tokens = transitions * model.tokens.columns
        rate = round(tokens / train.steps / seconds)
        result |= {"tokens": tokens, "tokens_per_core_second": rate}
    return result
