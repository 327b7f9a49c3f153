"""Figure 5.3 and Section 5.4: the four properties of diffusion planners, each with a number.

(a) long horizons, where shooting on the true dynamics fails; (b) stitching, against the receptive
field of Figure 5.2; (c) one model, plans of several horizons; (d) rewards that training never saw,
alone and added up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from forethought.checkpoint import load_config, load_model
from forethought.config import Experiment
from forethought.envs.maze_layout import LAYOUTS
from forethought.evaluation import make_policy, rounded
from forethought.policy import Policy
from forethought.registry import studies
from forethought.rollout import Evaluation, evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_5_3_plans import compute_horizons
from forethought.studies.figure_5_3_report import plot
from forethought.studies.figure_5_3_rewards import compute_guidance, compute_rewards
from forethought.studies.figure_5_3_stitching import compute_stitching
from forethought.studies.figure_5_3_tables import STITCHING, write_markdown
from forethought.studies.shooting_rows import (
    Method,
    RewardName,
    shooting_policy,
    shooting_protocol,
)

EPISODES = 50
SHOOTING: tuple[tuple[Method, RewardName], ...] = (
    ("mppi", "sparse"),
    ("mppi", "distance"),
    ("cem", "sparse"),
    ("cem", "distance"),
    ("random", "sparse"),
    ("random", "distance"),
)


def compute_shooting(settings: StudySettings, layout: str) -> dict[str, Any]:
    """The shooting planners on the true dynamics, from the same starts of Maze2D as Diffuser."""
    runs = {}
    for method, reward in SHOOTING:
        policy = shooting_policy(f"forethought/maze2d-{layout}-v0", method, reward=reward)
        protocol = shooting_protocol(method, reward)
        runs[f"{method}, {reward} reward"] = _run(settings, layout, policy, protocol)
    return _rows_and_hard_start(layout, runs)


def compute_diffuser(settings: StudySettings, layout: str) -> dict[str, Any]:
    """The shipped Diffuser with its shipped control on those starts."""
    run = _run(settings, layout, *_diffuser(settings, layout))
    return _rows_and_hard_start(layout, {"Diffuser": run})


def _rows_and_hard_start(layout: str, runs: dict[str, Evaluation]) -> dict[str, Any]:
    """Every run's row, and its path from the start that is farthest from the goal."""
    maze, episodes = LAYOUTS[layout], next(iter(runs.values())).episodes
    starts = [record["start"] for record in episodes]
    far = [len(maze.shortest_path(maze.cell_of(s[:2]), maze.target)) for s in starts]
    hard = int(np.argmax(far))
    return {
        "layout": "\n".join(maze.rows),
        "rows": {name: _row(result) for name, result in runs.items()},
        "hard_start": {
            "start": starts[hard],
            "goal": episodes[hard]["goal"],
            "cells": far[hard] - 1,
            "paths": {
                name: rounded(result.paths[hard].observations[::4, :2])
                for name, result in runs.items()
            },
        },
    }


def _diffuser(settings: StudySettings, layout: str) -> tuple[Policy, dict[str, Any]]:
    path = settings.pretrained / "diffuser" / f"maze-{layout}"
    experiment: Experiment = load_config(path)["experiment"]
    policy = make_policy(load_model(path), experiment.require_planner(), experiment.control)
    protocol = {
        "planner": {"kind": "diffusion", "checkpoint": path.as_posix()},
        "replan_every": experiment.control.replan_every,
        "candidates": 1,
        "controller": experiment.control.controller,
        "dynamics": "none: learned from data",
    }
    return policy, protocol


def _run(
    settings: StudySettings, layout: str, policy: Policy, protocol: dict[str, Any]
) -> Evaluation:
    result = evaluate(
        policy,
        f"forethought/maze2d-{layout}-v0",
        settings.episodes or EPISODES,
        settings.seed,
        n_parallel=64,
        protocol=protocol,
    )
    kind, reward = protocol["planner"]["kind"], protocol["planner"].get("reward", "")
    settings.console.print(
        f"    {layout} {kind} {reward}: {result.score['mean']:.1f}, "
        f"success {result.success_rate:.0%}, {result.protocol['wall_seconds']:.0f} s"
    )
    return result


def _row(result: Evaluation) -> dict[str, Any]:
    return {
        "score": result.score,
        "success_rate": result.success_rate,
        "n": result.n,
        "protocol": result.protocol,
        "scores": [round(record["score"], 2) for record in result.episodes],
    }


def _part(
    name: str,
    minutes: float,
    compute: Callable[[StudySettings, str], dict[str, Any]],
    layout: str,
) -> Part:
    def run(settings: StudySettings) -> dict[str, Any]:
        return compute(settings, layout)

    return Part(name=f"{name}-{layout}", minutes=minutes, compute=run)


@studies.register("figure-5-3")
def figure_5_3() -> Study:
    """Section 5.4's properties of diffusion planners, as numbers and pictures."""
    shooting = zip(("umaze", "medium", "large"), (2, 8, 10), strict=True)
    return Study(
        title="Figure 5.3: properties of diffusion planners (thesis Section 5.4)",
        parts=(
            *(_part("diffuser", 0.3, compute_diffuser, m) for m in ("umaze", "medium", "large")),
            *(_part("long-horizon", minutes, compute_shooting, m) for m, minutes in shooting),
            *(
                Part(name=n, minutes=3, compute=partial(compute_stitching, training_seed=seed))
                for seed, n in enumerate(STITCHING)
            ),
            Part(name="horizons", minutes=1, compute=compute_horizons),
            Part(name="guidance", minutes=6, compute=compute_guidance),
            Part(name="rewards", minutes=1, compute=compute_rewards),
        ),
        plot=plot,
        markdown=write_markdown,
    )
