"""Figure 5.3c: the Maze2D-Large Diffuser at other horizons than it was trained at.

A plan is feasible if no point of it, nor of the straight pieces between its rows, lies in a wall,
and if from row to row it is nowhere faster than the ball can be (5.226 units/s per axis), with a
tenth of tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from forethought.checkpoint import load_model
from forethought.envs.maze import SPEED_LIMIT, TIME_STEP
from forethought.envs.maze_layout import LAYOUTS, Cell
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import Diffuser
from forethought.scores import mean_and_interval
from forethought.studies.base import StudySettings
from forethought.types import Guide, Pin, Trajectory

MAZE = LAYOUTS["large"]
DISTANCES = (2, 6, 10, 14, 18)  # cells from start to goal, along the shortest path
HORIZONS = (12, 16, 20, 24, 28, 32, 40, 48, 64, 80)  # rows; the model was trained with 48
MOVING = 0.75  # of a plan's rows; at the others the goal is held, as in training
SPEED_TOLERANCE = 1.1


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
    model, n_pairs = load_large(settings), settings.episodes or n_pairs
    generator = np.random.default_rng(settings.seed)
    pairs_at = _pairs_by_distance()
    cells, examples = [], []
    for distance in DISTANCES:
        chosen = generator.choice(len(pairs_at[distance]), n_pairs)
        pairs = [pairs_at[distance][index] for index in chosen]
        for rows in HORIZONS:
            sampler = SamplerConfig(steps=8)
            plans = sample_plans(model, pairs, rows, sampler, samples, settings.seed)
            paths = plans.observations[..., :2]
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
            "checkpoint": checkpoint_path(settings),
            "pairs": n_pairs,
            "plans_per_pair": samples,
            "network_calls": 8,
            "sampler": "ddim",
            "goal_held_from": f"{MOVING} of the rows",
            "interval": "over pairs of start and goal",
        },
    }


def sample_plans(
    model: Diffuser,
    pairs: list[tuple[Cell, Cell]],
    rows: int,
    sampler: SamplerConfig,
    samples: int,
    seed: int,
    guide: Guide | None = None,
) -> Trajectory:
    """(pairs, samples, rows, dim) plans, at rest at both ends."""
    start, goal = (torch.tensor([[*pair[side], 0.0, 0.0] for pair in pairs]) for side in (0, 1))
    stride = model.config.stride
    return model.sample(
        [Pin(0, start), Pin(int(MOVING * (rows - 1)) * stride, goal, hold=True)],
        times=torch.arange(rows) * stride,
        n_candidates=samples,
        guide=guide,
        sampler=sampler,
        generator=torch.Generator().manual_seed(seed),
    )


def _pairs_by_distance() -> dict[int, list[tuple[Cell, Cell]]]:
    pairs: dict[int, list[tuple[Cell, Cell]]] = {}
    for start in MAZE.free_cells():
        for goal in MAZE.free_cells():
            pairs.setdefault(cells_between(start, goal), []).append((start, goal))
    return pairs


def cells_between(start: Cell, goal: Cell) -> int:
    """Steps of the shortest path over cells."""
    return len(MAZE.shortest_path(start, goal)) - 1


def load_large(settings: StudySettings) -> Diffuser:
    """The shipped Diffuser of Maze2D-Large."""
    model = load_model(settings.pretrained / "diffuser" / "maze-large")
    assert isinstance(model, Diffuser), "the shipped checkpoint is a Diffuser"
    return model.eval()


def checkpoint_path(settings: StudySettings) -> str:
    """Where that Diffuser is kept."""
    return (settings.pretrained / "diffuser" / "maze-large").as_posix()
