"""Figures 5.3c and 5.3d: the Maze2D-Large Diffuser at other horizons, and under new rewards.

A plan is feasible if no point of it, nor of the straight pieces between its rows, lies in a wall,
and if from row to row it is nowhere faster than the ball can be (5.226 units/s per axis), with a
tenth of tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from forethought.checkpoint import load_model
from forethought.envs.maze import SPEED_LIMIT, TIME_STEP
from forethought.envs.maze_layout import CENTER_SHIFT, LAYOUTS, Cell
from forethought.guides import weighted_sum
from forethought.models.base import GuidanceConfig, SamplerConfig
from forethought.models.diffuser import Diffuser
from forethought.scores import mean_and_interval
from forethought.studies.base import StudySettings
from forethought.types import Guide, Pin, Trajectory

MAZE = LAYOUTS["large"]
DISTANCES = (2, 6, 10, 14, 18)  # cells from start to goal, along the shortest path
HORIZONS = (12, 16, 20, 24, 28, 32, 40, 48, 64, 80)  # rows; the model was trained with 48
MOVING = 0.75  # of a plan's rows; at the others the goal is held, as in training
SPEED_TOLERANCE = 1.1
GUIDED_ROWS = 36
CLOSE = 0.5  # a place is visited if the path comes this near, in units of cells
GUIDED = SamplerConfig(
    kind="ddpm",
    steps=0,  # every level
    guidance=GuidanceConfig(at="clean", scale=0.1, scale_by_variance=False),
)


def interpolate(paths: Tensor, pieces: int = 6) -> Tensor:
    """Points on the straight pieces between rows (..., rows, 2): (..., (rows - 1) * pieces, 2)."""
    weight = torch.arange(pieces)[:, None] / pieces
    return torch.lerp(paths[..., :-1, None, :], paths[..., 1:, None, :], weight).flatten(-3, -2)


def are_feasible(paths: Tensor, seconds: float) -> Tensor:
    """Whether paths (..., rows, 2), ``seconds`` from row to row, keep to the maze and the speed
    limit: (...) bool."""
    free = torch.from_numpy(MAZE.is_free(interpolate(paths).numpy())).all(dim=-1)
    speed = paths.diff(dim=-2).abs().amax(dim=(-1, -2)) / seconds
    return free & (speed <= SPEED_TOLERANCE * SPEED_LIMIT)


def compute_horizons(
    settings: StudySettings, *, n_pairs: int = 16, samples: int = 4
) -> dict[str, Any]:
    """One model, plans of many horizons, between points at many distances: share feasible."""
    model, n_pairs = _load(settings), settings.episodes or n_pairs
    generator = np.random.default_rng(settings.seed)
    pairs_at = _pairs_by_distance()
    cells, examples = [], []
    for distance in DISTANCES:
        chosen = generator.choice(len(pairs_at[distance]), n_pairs)
        pairs = [pairs_at[distance][index] for index in chosen]
        for rows in HORIZONS:
            paths = sample_paths(model, pairs, rows, SamplerConfig(steps=8), samples, settings.seed)
            feasible = are_feasible(paths, model.config.stride * TIME_STEP)
            mean, low, high = mean_and_interval(feasible.float().mean(dim=1).tolist())
            interval = [max(low, 0.0), min(high, 1.0)]
            cells.append({"distance": distance, "rows": rows, "mean": mean, "interval": interval})
            if distance == 10:
                best = int(feasible.float().mean(dim=1).argmax())
                examples.append(
                    {
                        "rows": rows,
                        "start": list(pairs[0][0]),
                        "goal": list(pairs[0][1]),
                        "paths": paths[0].numpy().round(2).tolist(),
                        "feasible": feasible[0].tolist(),
                        "best_pair": best,
                    }
                )
    return {
        "cells": cells,
        "examples": examples,
        "trained_rows": model.config.horizon,
        "stride": model.config.stride,
        "protocol": {
            "checkpoint": _checkpoint(settings),
            "pairs": n_pairs,
            "plans_per_pair": samples,
            "network_calls": 8,
            "sampler": "ddim",
            "goal_held_from": f"{MOVING} of the rows",
            "interval": "over pairs of start and goal",
        },
    }


def sample_paths(
    model: Diffuser,
    pairs: list[tuple[Cell, Cell]],
    rows: int,
    sampler: SamplerConfig,
    samples: int,
    seed: int,
    guide: Guide | None = None,
) -> Tensor:
    """(pairs, samples, rows, 2) planned positions, at rest at both ends."""
    start, goal = (torch.tensor([[*pair[side], 0.0, 0.0] for pair in pairs]) for side in (0, 1))
    stride = model.config.stride
    plans = model.sample(
        [Pin(0, start), Pin(int(MOVING * (rows - 1)) * stride, goal, hold=True)],
        times=torch.arange(rows) * stride,
        n_candidates=samples,
        guide=guide,
        sampler=sampler,
        generator=torch.Generator().manual_seed(seed),
    )
    return plans.observations[..., :2]


def pass_by(places: Tensor) -> Guide:
    """Minus the distance of each plan's nearest row to its place (batch, 2), softly minimal."""

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        offset = trajectory.observations[..., :2] - places[:, None]
        distance = (offset.square().sum(dim=-1) + 1e-6).sqrt()
        return 0.1 * torch.logsumexp(-distance / 0.1, dim=-1)

    return guide


def compute_rewards(
    settings: StudySettings, *, n_tasks: int = 24, samples: int = 4
) -> dict[str, Any]:
    """Plans with no reward, with "pass by A", "pass by B", and with their sum: what each earns."""
    model, n_tasks = _load(settings), settings.episodes or n_tasks
    tasks = _draw_tasks(n_tasks, np.random.default_rng(settings.seed))
    pairs = [(start, goal) for start, goal, _, _ in tasks]
    places = torch.tensor([[a, b] for _, _, a, b in tasks]) + CENTER_SHIFT  # (tasks, 2, 2)
    by = [pass_by(places[:, side].repeat_interleave(samples, dim=0)) for side in (0, 1)]
    guides = {
        "no reward": None,
        "A": by[0],
        "B": by[1],
        "A + B": weighted_sum((1.0, by[0]), (1.0, by[1])),
    }
    rows, paths_of = {}, {}
    for name, guide in guides.items():
        paths = sample_paths(model, pairs, GUIDED_ROWS, GUIDED, samples, settings.seed, guide)
        points = interpolate(paths)[:, :, None]  # (tasks, samples, 1, points, 2)
        nearest = (points - places[:, None, :, None]).norm(dim=-1).amin(dim=-1)
        visited = nearest <= CLOSE
        seconds = model.config.stride * TIME_STEP
        measures = {
            "reward_a": -nearest[..., 0],
            "reward_b": -nearest[..., 1],
            "visits_both": visited.all(dim=-1).float(),
            "feasible": are_feasible(paths, seconds).float(),
        }
        rows[name] = {key: _summary(value) for key, value in measures.items()}
        paths_of[name] = paths
    return {
        "rows": rows,
        "examples": _examples(tasks, places, paths_of),
        "protocol": {
            "checkpoint": _checkpoint(settings),
            "tasks": n_tasks,
            "plans_per_task": samples,
            "rows": GUIDED_ROWS,
            "network_calls": model.config.denoising_steps,
            "guidance": {"at": GUIDED.guidance.at, "scale": GUIDED.guidance.scale},
            "interval": "over tasks",
        },
    }


def _examples(
    tasks: list[tuple[Cell, Cell, Cell, Cell]], places: Tensor, paths_of: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """The task on which the sum does best, all plans of each kind."""
    points = interpolate(paths_of["A + B"])[:, :, None]
    nearest = (points - places[:, None, :, None]).norm(dim=-1).amin(dim=-1).sum(dim=(1, 2))
    best = int(nearest.argmin())
    return [
        {
            "start": list(tasks[best][0]),
            "goal": list(tasks[best][1]),
            "places": places[best].tolist(),
            "paths": {
                name: paths[best].numpy().round(2).tolist() for name, paths in paths_of.items()
            },
        }
    ]


def _summary(values: Tensor) -> dict[str, Any]:
    """Mean of values (tasks, samples) with an interval over tasks."""
    mean, low, high = mean_and_interval(values.mean(dim=1).tolist())
    return {"mean": mean, "interval": [low, high]}


def _pairs_by_distance() -> dict[int, list[tuple[Cell, Cell]]]:
    pairs: dict[int, list[tuple[Cell, Cell]]] = {}
    for start in MAZE.free_cells():
        for goal in MAZE.free_cells():
            pairs.setdefault(_distance(start, goal), []).append((start, goal))
    return pairs


def _distance(start: Cell, goal: Cell) -> int:
    return len(MAZE.shortest_path(start, goal)) - 1


def _draw_tasks(count: int, generator: Generator) -> list[tuple[Cell, Cell, Cell, Cell]]:
    """Starts, goals and two places off the shortest path that a detour of a few cells visits."""
    cells, tasks = MAZE.free_cells(), []
    while len(tasks) < count:
        start, goal, a, b = (cells[i] for i in generator.integers(len(cells), size=4))
        path = MAZE.shortest_path(start, goal)
        if not 8 <= len(path) - 1 <= 10 or a in path or b in path or _distance(a, b) < 3:
            continue
        if _distance(start, a) + _distance(a, b) + _distance(b, goal) <= 12:
            tasks.append((start, goal, a, b))
    return tasks


def _load(settings: StudySettings) -> Diffuser:
    model = load_model(settings.pretrained / "diffuser" / "maze-large")
    assert isinstance(model, Diffuser), "the shipped checkpoint is a Diffuser"
    return model.eval()


def _checkpoint(settings: StudySettings) -> str:
    return (settings.pretrained / "diffuser" / "maze-large").as_posix()
