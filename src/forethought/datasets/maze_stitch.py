"""Short walks between near cells of a maze: no episode of them leads from the start to the goal.

For the sparse task of ``envs/maze_reach.py``. Each episode is put down at rest in a random free
cell and walks, by D4RL's waypoint controller with noisy actions, to another cell two to four moves
away; it ends there, at the task's goal (reward 1, terminated), or after 60 steps. The way from the
task's start to its goal is 10 moves long in Medium and 18 in Large, so that a learner must join
several episodes, nearly all of which have no reward.

Source: the "stitch" data sets of Park et al., "OGBench" (2025, arXiv 2410.20092), whose episodes
reach at most four cells; D4RL's AntMaze for the rewards and the end of an episode.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.envs.controllers import WaypointController
from forethought.envs.maze import POSITION_NOISE
from forethought.envs.maze_layout import Cell, Layout
from forethought.envs.maze_reach import MazeReachEnv, cell_distances
from forethought.registry import datasets

MOVES = (2, 4)  # cells between the ends of a walk
STEPS = 60  # environment steps of the longest episode
ACTION_NOISE = 0.3  # standard deviation


def build_stitch(
    layout: str, seed: int, n_steps: int, on_progress: Callable[[int], None] | None = None
) -> EpisodeDataset:
    """Whole episodes of ``n_steps`` environment steps or a few more, in the maze ``layout``."""
    if n_steps < 1:
        raise ValueError(f"{n_steps} steps asked for; a data set needs at least one")
    env, generator = MazeReachEnv(layout), np.random.default_rng(seed)
    controller = WaypointController(env.layout, generator=generator, action_noise=ACTION_NOISE)
    near = {cell: _goals_of(env.layout, cell) for cell in env.layout.free_cells()}
    starts = [cell for cell, goals in near.items() if goals and cell != env.layout.target]
    if not starts:
        raise ValueError(f"no two cells of this layout are {MOVES[0]} to {MOVES[1]} moves apart")
    episodes, done = [], 0
    while done < n_steps:
        start = starts[generator.integers(len(starts))]
        goal = near[start][generator.integers(len(near[start]))]
        position = start + generator.uniform(-POSITION_NOISE, POSITION_NOISE, 2)
        episodes.append(_walk(env, controller, position, goal))
        done += len(episodes[-1])
        if on_progress is not None:
            on_progress(min(done, n_steps))
    return EpisodeDataset.from_episodes(
        episodes,
        env=f"forethought/reach-{layout}-v0",
        builder=f"maze-{layout}-stitch",
        seed=seed,
        controller="waypoint",
        action_noise=ACTION_NOISE,
        moves=list(MOVES),
    )


def _goals_of(layout: Layout, start: Cell) -> list[Cell]:
    moves = cell_distances(layout, start)
    return [cell for cell, count in moves.items() if MOVES[0] <= count <= MOVES[1]]


def _walk(
    env: MazeReachEnv, controller: WaypointController, start: np.ndarray, goal: Cell
) -> Episode:
    """One episode from a position (2,) at rest toward a cell."""
    observation, _ = env.reset(seed=0, options={"start": start})
    controller.set_goal(start.tolist(), goal)
    observations, actions, rewards, terminated = [observation], [], [], False
    while len(actions) < STEPS and not terminated:
        action = np.array(controller.act(*observation.tolist()), dtype=np.float32)
        if controller.arrived and actions:
            break
        observation, reward, terminated, _, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
    return Episode(
        np.stack(observations),
        np.stack(actions),
        np.array(rewards, dtype=np.float32),
        terminated,
    )


@datasets.register("maze-medium-stitch")
def build_medium_stitch(
    seed: int = 0, n_steps: int = 100_000, on_progress: Callable[[int], None] | None = None
) -> EpisodeDataset:
    """Short walks in Medium, none from the start of ``reach-medium`` to its goal."""
    return build_stitch("medium", seed, n_steps, on_progress)


@datasets.register("maze-large-stitch")
def build_large_stitch(
    seed: int = 0, n_steps: int = 100_000, on_progress: Callable[[int], None] | None = None
) -> EpisodeDataset:
    """Short walks in Large, none from the start of ``reach-large`` to its goal."""
    return build_stitch("large", seed, n_steps, on_progress)
