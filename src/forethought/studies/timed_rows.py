"""A planner's score with its settings, its returns by episode and the time of its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from forethought.config import ControlConfig, PlannerConfig, to_json
from forethought.envs.maze import MazeEnv
from forethought.evaluation import make_policy
from forethought.models.base import Model
from forethought.policy import PlanningPolicy
from forethought.rollout import Evaluation, evaluate
from forethought.scores import mean_and_interval, paired_difference
from forethought.studies.base import StudySettings

PARALLEL = 50  # environments side by side; scores do not depend on it


def checkpoint_of(settings: StudySettings, layout: str) -> Path:
    """The shipped Diffuser of a maze."""
    return settings.pretrained / "diffuser" / f"maze-{layout}"


def planned_row(
    model: Model, env: str, planner: PlannerConfig, control: ControlConfig, *, n: int, seed: int
) -> dict[str, Any]:
    """Score ``n`` episodes of a planner in ``env``; rows with one seed and n are start-matched."""
    policy = make_policy(model, planner, control)
    assert isinstance(policy, PlanningPolicy), "made from a planner"
    imagined: list[Tensor | None] = []  # the first plan of every episode, wave by wave
    evaluation = evaluate(
        policy,
        env,
        n,
        seed,
        n_parallel=PARALLEL,
        on_episode=lambda _: imagined.extend(policy.first_references),
    )
    return {
        **row_of(evaluation),
        "planner": to_json(planner),
        "control": to_json(control),
        "plans": len(policy.plan_seconds),
        "plan_ms": milliseconds(policy.plan_seconds),
        "calls_a_plan": round(float(np.mean(policy.plan_calls)), 2),
        "threads": torch.get_num_threads(),
        "through_walls": through_walls(env, [path for path in imagined if path is not None]),
    }


def through_walls(env_id: str, paths: Sequence[Tensor]) -> float | None:
    """Share of imagined paths (steps, 2 or more) with a point in a wall; None outside mazes."""
    maze = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if not isinstance(maze, MazeEnv) or not paths:
        return None
    return float(np.mean([not maze.layout.is_free(path[:, :2].numpy()).all() for path in paths]))


def row_of(evaluation: Evaluation) -> dict[str, Any]:
    """What is kept of an evaluation: enough to compare it episode by episode."""
    return {
        "score": evaluation.score,
        "success_rate": evaluation.success_rate,
        "n": evaluation.n,
        "protocol": evaluation.protocol,
        "episodes": [
            {"seed": e["seed"], "score": round(e["score"], 3), "start": e["start"][:2]}
            for e in evaluation.episodes
        ],
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    times = 1e3 * np.asarray(seconds)
    values = {"median": np.median(times), "p99": np.percentile(times, 99), "max": times.max()}
    return {name: round(float(value), 2) for name, value in values.items()}


def lost(row: dict[str, Any], reference: dict[str, Any]) -> tuple[float, float, float]:
    """How much less than ``reference`` a row scores, in % of it: mean and 95 % interval.

    By episode on matched starts; the reference's mean is taken as exact.
    """
    records = [[{**e, "goal": None} for e in each["episodes"]] for each in (reference, row)]
    mean, low, high = paired_difference(*records)
    whole, _, _ = mean_and_interval([e["score"] for e in reference["episodes"]])
    return 100 * mean / whole, 100 * low / whole, 100 * high / whole


def score_text(row: Mapping[str, Any]) -> str:
    """Mean and interval for a table."""
    interval = row["score"]["interval"]
    text = f"{row['score']['mean']:.1f}"
    return text if interval is None else f"{text} [{interval[0]:.1f}, {interval[1]:.1f}]"
