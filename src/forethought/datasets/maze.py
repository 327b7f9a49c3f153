"""Maze2D data: one long undirected record of a waypoint controller, as in D4RL.

The ball is never reset; whenever it arrives, the controller takes a new random cell as its goal.
Rewards are for the maze's evaluation target, so the same record serves single-task learners and
planners.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forethought.data.episodes import EpisodeDataset
from forethought.envs.maze import STEP_LIMITS, MazeEnv
from forethought.envs.maze_data import collect
from forethought.registry import datasets

Progress = Callable[[int], None]


def build_maze(
    layout: str, seed: int, n_steps: int = 1_000_000, on_progress: Progress | None = None
) -> EpisodeDataset:
    """One episode of ``n_steps`` steps in the maze ``layout`` (a name or a layout string)."""
    if n_steps < 1:
        raise ValueError(f"{n_steps} steps asked for; a data set needs at least one")
    env = MazeEnv(layout)
    generator = np.random.default_rng(seed)
    limit = STEP_LIMITS.get(layout, max(STEP_LIMITS.values()))
    record = collect(env, n_steps, generator, goal_steps=limit, on_progress=on_progress)
    return EpisodeDataset(
        record.observations,
        np.pad(record.actions, ((0, 1), (0, 0))),
        np.pad(record.rewards, (0, 1)),
        np.array([0, n_steps + 1], dtype=np.int64),
        np.array([False]),
        goal_changes=record.goal_changes,
        metadata={"builder": f"maze-{layout}", "seed": seed, "controller": "waypoint"},
    )


@datasets.register("maze-umaze")
def build_umaze(
    seed: int = 0, n_steps: int = 1_000_000, on_progress: Progress | None = None
) -> EpisodeDataset:
    """Maze2D U-Maze (5 x 5), D4RL's waypoint controller."""
    return build_maze("umaze", seed, n_steps, on_progress)


@datasets.register("maze-medium")
def build_medium(
    seed: int = 0, n_steps: int = 1_000_000, on_progress: Progress | None = None
) -> EpisodeDataset:
    """Maze2D Medium (8 x 8), D4RL's waypoint controller."""
    return build_maze("medium", seed, n_steps, on_progress)


@datasets.register("maze-large")
def build_large(
    seed: int = 0, n_steps: int = 1_000_000, on_progress: Progress | None = None
) -> EpisodeDataset:
    """Maze2D Large (9 x 12), D4RL's waypoint controller."""
    return build_maze("large", seed, n_steps, on_progress)
