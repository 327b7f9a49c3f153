"""Maze2D's offline data: one unbroken walk of the waypoint controller between random cells.

As D4RL: a new random goal cell on arrival or after the step limit, a position that is never reset,
and rewards for the evaluation target whatever goal was pursued. Differs from D4RL, whose state
variable is one step stale after each arrival: here every row is what the simulator reached, and
`rewards[t]` follows `actions[t]` instead of describing `observations[t]`.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), Maze2D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from forethought.envs.controllers import WaypointController
from forethought.envs.maze import GOAL_RADIUS, MazeEnv

PROGRESS_STEPS = 10_000  # between two calls of `on_progress`


class MazeWalk(NamedTuple):
    """One walk of T steps; goals that change at t are pursued from `observations[t]` on."""

    observations: NDArray[np.float32]  # (T + 1, 4): row, col, v_row, v_col
    actions: NDArray[np.float32]  # (T, 2)
    rewards: NDArray[np.float32]  # (T,): 1 where observations[t + 1] is within 0.5 of the target
    goal_changes: NDArray[np.int64]  # steps at which a new goal was taken; the first goal not among


def collect(
    env: gymnasium.Env,
    n_steps: int,
    generator: np.random.Generator,
    action_noise: float = 0.0,
    *,
    goal_steps: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> MazeWalk:
    """Walk for n_steps through a maze environment, starting by D4RL's rule.

    action_noise: standard deviation (D4RL's noisy data has 0.5).
    goal_steps: steps after which a goal is given up; by default the environment's step limit.
    on_progress: called with the number of steps done, every 10,000 and at the end.
    """
    maze = env.unwrapped
    if not isinstance(maze, MazeEnv):
        raise ValueError(f"collect walks mazes (MazeEnv); the environment given is {env}")
    goal_steps = goal_steps or (env.spec.max_episode_steps if env.spec else None)
    if goal_steps is None:
        raise ValueError("this environment has no step limit; say goal_steps, for example 600")
    controller = WaypointController(maze.layout, generator=generator, action_noise=action_noise)
    cells = maze.layout.free_cells()
    observations = np.empty((n_steps + 1, 4), np.float32)
    actions = np.empty((n_steps, 2), np.float32)
    goal_changes: list[int] = []
    observation, _ = maze.reset(seed=int(generator.integers(2**31)))
    observations[0] = observation
    goal_start = 0
    controller.set_goal(observation[:2].tolist(), cells[generator.integers(len(cells))])
    for step in range(n_steps):
        action = actions[step]
        action[0], action[1] = controller.act(*observation.tolist())
        observation = maze.step(action)[0]
        observations[step + 1] = observation
        done = step + 1
        if controller.arrived or done - goal_start >= goal_steps:
            controller.set_goal(observation[:2].tolist(), cells[generator.integers(len(cells))])
            goal_changes.append(done)
            goal_start = done
        if on_progress is not None and (done % PROGRESS_STEPS == 0 or done == n_steps):
            on_progress(done)
    distances = np.linalg.norm(observations[1:, :2] - np.array(maze.layout.target), axis=1)
    rewards = (distances <= GOAL_RADIUS).astype(np.float32)
    changes = np.array([change for change in goal_changes if change < n_steps], dtype=np.int64)
    return MazeWalk(observations, actions, rewards, changes)
