"""Amortization (the thesis's outlook): a policy distilled from the planner, which plans where lost.

For each maze a small ensemble is distilled from the shipped Diffuser and its control
(``distillation.py``); one more is given the goal as well and acts in Multi2D-Large. Shown: its
score alone beside the planner's on the same starts; whether the novelty it feels says where it is
wrong, in held-out planner episodes and where the ball is put down at random, at a random velocity;
and the score against the share of steps that were planned, as the threshold on the novelty goes
from never to always. How fast it acts is measured in parts of their own (``rate-...``), which want
an idle machine.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from forethought.agents.amortized import Amortized, AmortizedConfig
from forethought.checkpoint import WEIGHTS, load_config, load_model
from forethought.config import ControlConfig, Experiment, TrainConfig, to_json
from forethought.distillation import (
    AmortizedPolicy,
    DistillationConfig,
    distill,
    fresh_actions,
    play_episodes,
    situations,
)
from forethought.envs.maze import MazeEnv
from forethought.envs.maze_layout import CENTER_SHIFT
from forethought.evaluation import make_policy
from forethought.planners.reactive import ReactiveConfig
from forethought.policy import PlanningPolicy
from forethought.registry import studies
from forethought.rollout import evaluate
from forethought.studies.amortized_show import plot, write_markdown
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import PARALLEL, checkpoint_of, row_of


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A teacher, where it acts, and the student's size and lessons."""

    layout: str
    multi: bool = False
    model: AmortizedConfig = AmortizedConfig()
    steps: int = 6_000
    lessons: DistillationConfig = DistillationConfig()


TASKS = {
    "umaze": _Task(layout="umaze"),
    "medium": _Task(layout="medium"),
    "large": _Task(layout="large"),
    "multi-large": _Task(
        layout="large",
        multi=True,
        model=AmortizedConfig(width=160, goal_dims=(0, 1)),
        steps=9_000,
        lessons=DistillationConfig(episodes=240, round_episodes=120),
    ),
}
EPISODES = 100
QUANTILES = (0.0, 0.5, 0.8, 0.95, 0.99, 1.0)
"""thresholds: never novel (1) to always (0), as quantiles of the novelty in held-out episodes"""
BINS = 10
PROBE_SEED = 2_000_000  # of the episodes that the calibration is checked on
PROBE_EPISODES = 20
DISPLACED, DISPLACED_SPEED = 300, 5.0  # random situations, units/s per axis at most
RATE_CALLS = 2_000


@studies.register("amortized")
def amortized() -> Study:
    """A policy distilled from the planner: speed, calibration, score against planned steps."""
    parts = [
        Part(name=f"{kind}-{name}", minutes=minutes, compute=partial(compute, name=name))
        for name in TASKS
        for kind, minutes, compute in (
            ("distill", 10.0 if TASKS[name].multi else 5.0, _distill),
            ("calibration", 0.5, _calibration),
            ("scores", 3.0, _scores),
            ("rate", 0.1, _rate),
        )
    ]
    return Study(
        title="Amortization: acting by what planning taught, planning where that is novel",
        parts=tuple(parts),
        plot=plot,
        markdown=write_markdown,
    )


@dataclass(frozen=True)
class _Pair:
    """The planner's policy, the student, and where they act."""

    policy: PlanningPolicy
    student: Amortized
    env: str


def _folder(settings: StudySettings, name: str) -> Path:
    prefix = "multi2d" if TASKS[name].multi else "maze"
    return settings.pretrained / "amortized" / f"{prefix}-{TASKS[name].layout}"


def _teacher(settings: StudySettings, name: str) -> tuple[PlanningPolicy, Experiment, str]:
    """The planner's policy as shipped, its experiment, and the environment."""
    path = checkpoint_of(settings, TASKS[name].layout)
    taught: Experiment = load_config(path)["experiment"]
    policy = make_policy(load_model(path), taught.require_planner(), taught.control)
    assert isinstance(policy, PlanningPolicy), "the teacher plans"
    env = taught.env.replace("maze2d-", "multi2d-") if TASKS[name].multi else taught.env
    return policy, taught, env


def _load(settings: StudySettings, name: str) -> _Pair:
    policy, _, env = _teacher(settings, name)
    student = load_model(_folder(settings, name))
    assert isinstance(student, Amortized), "this study's own model"
    return _Pair(policy, student, env)


def _distill(settings: StudySettings, *, name: str) -> dict[str, Any]:
    """Distill into ``pretrained/amortized`` unless it is there."""
    task, folder = TASKS[name], _folder(settings, name)
    policy, taught, env = _teacher(settings, name)
    if not (folder / WEIGHTS).exists():
        experiment = Experiment(
            name=f"amortized/{folder.name}",
            dataset=f"episodes of {taught.name}",
            env=env,
            model=task.model,
            train=TrainConfig(
                steps=task.steps,
                batch_size=256,
                learning_rate=2e-3,
                ema_decay=0.995,
                save_every=10**9,
            ),
            planner=ReactiveConfig(),
            control=ControlConfig(),
        )
        distill(
            experiment,
            policy,
            folder,
            scratch=settings.runs / "amortized" / name,
            config=task.lessons,
            say=settings.console.print,
        )
    model = load_model(folder)
    assert isinstance(model, Amortized), "just made"
    return {
        "checkpoint": folder.as_posix(),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "threshold": float(model.threshold),
        "distillation": vars(task.lessons),
        "control": to_json(taught.control),
        "steps": task.steps,
        "training": json.loads((folder / "training.json").read_text(encoding="utf-8")),
    }


def _calibration(settings: StudySettings, *, name: str) -> dict[str, Any]:
    """On planner episodes never trained on: error of the student by how novel it found the step;
    and the same where the ball was put down at random."""
    pair = _load(settings, name)
    episodes = play_episodes(pair.policy, pair.env, PROBE_EPISODES, PROBE_SEED)
    observations, goals = situations(episodes)
    taken = torch.from_numpy(np.concatenate([e.actions for e in episodes]))
    novel, error = _judge(pair.student, observations, goals, taken)
    bins = [
        {"novelty": float(novel[part].mean()), "error": float(error[part].mean()), "n": len(part)}
        for part in np.array_split(novel.argsort(), BINS)
    ]
    threshold = float(pair.student.threshold)
    displaced, aims = _displaced(pair, goals)
    answers = fresh_actions(pair.policy, displaced, aims).clamp(-1, 1)
    novel_there, error_there = _judge(pair.student, displaced, aims, answers)
    return {
        "steps": len(error),
        "bins": bins,
        "rank_correlation": _rank_correlation(novel, error),
        "threshold": threshold,
        **_split(novel, error, threshold),
        "displaced": {
            "steps": len(error_there),
            "rank_correlation": _rank_correlation(novel_there, error_there),
            "median_novelty": float(np.median(novel_there)),
            **_split(novel_there, error_there, threshold),
        },
        "quantiles": {str(q): float(np.quantile(novel, q)) for q in QUANTILES},
    }


def _judge(
    student: Amortized, observations: Tensor, goals: Tensor | None, taken: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Novelty and root mean squared error against the planner's actions: each (n,)."""
    actions, novelty = student.act_and_judge(observations, goals)
    return novelty.numpy(), (actions - taken).square().mean(dim=1).sqrt().numpy()


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    ranks = np.stack([values.argsort().argsort() for values in (first, second)])
    correlations: Any = np.corrcoef(ranks)
    return float(correlations[0, 1])


def _split(novel: np.ndarray, error: np.ndarray, threshold: float) -> dict[str, Any]:
    """How many situations are above the threshold, and the mean error on either side of it."""
    above = novel > threshold
    return {
        "share_above": float(above.mean()),
        "error_above": float(error[above].mean()) if above.any() else None,
        "error_below": float(error[~above].mean()) if not above.all() else None,
    }


def _displaced(pair: _Pair, goals: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(n, 4) situations in random free places at random velocities, and goals as in ``goals``."""
    maze = gymnasium.make(pair.env, disable_env_checker=True).unwrapped
    assert isinstance(maze, MazeEnv), "this study's environments are mazes"
    generator = np.random.default_rng(PROBE_SEED)
    cells = np.array(maze.layout.free_cells())
    places = cells[generator.integers(len(cells), size=DISPLACED)] + CENTER_SHIFT
    places = places + generator.uniform(-0.35, 0.35, places.shape)  # clear of the walls
    speeds = generator.uniform(-DISPLACED_SPEED, DISPLACED_SPEED, places.shape)
    situation = torch.from_numpy(np.concatenate([places, speeds], axis=1).astype(np.float32))
    if goals is None:
        return situation, None
    return situation, goals[torch.from_numpy(generator.integers(len(goals), size=DISPLACED))]


def _rate(settings: StudySettings, *, name: str) -> dict[str, Any]:
    """Decisions a second on one thread, one environment at a time, with the judgment."""
    student = load_model(_folder(settings, name))
    assert isinstance(student, Amortized), "this study's own model"
    observations = torch.rand(64, 1, student.spaces.observation_dim)
    goal = observations[0] if student.config.goal_dims else None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = np.empty(RATE_CALLS)
    for index in range(RATE_CALLS):
        observation = observations[index % len(observations)]
        began = time.perf_counter()
        student.act_and_judge(observation, goal)
        seconds[index] = time.perf_counter() - began
    torch.set_num_threads(threads)
    rates = {key: round(1 / np.quantile(seconds, q)) for key, q in (("median", 0.5), ("p1", 0.99))}
    return {**rates, "calls": RATE_CALLS, "load": round(os.getloadavg()[0], 2)}


def _scores(settings: StudySettings, *, name: str) -> list[dict[str, Any]]:
    """The planner, then mixtures from always planning where novel to never."""
    pair, n = _load(settings, name), settings.episodes or EPISODES
    protocol = {"controller": "the planner's own, where it plans"}
    rows = []
    result = evaluate(pair.policy, pair.env, n, settings.seed, n_parallel=PARALLEL)
    rows.append({"name": "planner", "planned": 1.0, **row_of(result)})
    episodes = play_episodes(pair.policy, pair.env, PROBE_EPISODES, PROBE_SEED)
    _, novelty = pair.student.act_and_judge(*situations(episodes))
    for quantile in QUANTILES:
        if quantile == 0:
            continue  # always novel is the planner above
        threshold = float("inf") if quantile == 1 else float(novelty.quantile(quantile))
        mixture = AmortizedPolicy(pair.student, pair.policy, threshold)
        result = evaluate(
            mixture, pair.env, n, settings.seed, n_parallel=PARALLEL, protocol=protocol
        )
        row = {"name": f"quantile {quantile:g}", "planned": mixture.planned / mixture.steps}
        row["threshold"] = None if quantile == 1 else threshold
        rows.append({**row, **row_of(result)})
    rows[-1]["name"] = "student alone"
    return rows
