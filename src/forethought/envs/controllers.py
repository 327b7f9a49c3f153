"""Scripted experts for mazes: the controller that made D4RL's data, and shortest paths.

The waypoint controller is a = clip(10 (waypoint - position) - velocity, -1, 1) through the cells of
a shortest path, each within 0.1 of its waypoint before it turns to the next.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), Maze2D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import hypot

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from forethought.envs.maze import MAX_ACTION, SPEED_LIMIT, TIME_STEP
from forethought.envs.maze_layout import CENTER_SHIFT, Layout

POSITION_GAIN = 10.0
VELOCITY_GAIN = -1.0
ARRIVAL_DISTANCE = 0.1


class WaypointController:
    """D4RL's controller for one maze; plain floats, so that a million steps take seconds.

    generator: draws the jitter U(-0.2, 0) of each waypoint, from a cell's integer coordinates
        toward its center, and the action noise; without one the waypoints are the cells' centers.
    action_noise: standard deviation, added before the clipping (D4RL's noisy data has 0.5).

    `arrived` says whether the last observation was within 0.1 of the goal.
    """

    def __init__(
        self, layout: Layout, *, generator: Generator | None = None, action_noise: float = 0.0
    ) -> None:
        if action_noise < 0 or (action_noise and generator is None):
            raise ValueError(f"action_noise is {action_noise}; it must be >= 0, with a generator")
        self.arrived = False
        self._layout, self._generator = layout, generator
        self._noise = _draw_normals(generator, action_noise) if generator and action_noise else None
        self._waypoints: list[list[float]] = []
        self._current = 0

    def set_goal(self, position: Sequence[float], goal: Sequence[float]) -> None:
        """Plan from a position to a goal, both (row, col); the last waypoint is the goal itself."""
        path = self._layout.shortest_path(
            self._layout.cell_of(position), self._layout.cell_of(goal)
        )
        jitter = np.full((len(path), 2), CENTER_SHIFT)
        if self._generator is not None:
            jitter = self._generator.uniform(CENTER_SHIFT, 0.0, jitter.shape)
        self._waypoints = [*(np.array(path) + jitter)[1:-1].tolist(), [goal[0], goal[1]]]
        self._current, self.arrived = 0, False

    def act(self, row: float, col: float, v_row: float, v_col: float) -> tuple[float, float]:
        """The action for one observation; turns to the next waypoint once it is near this one."""
        goal_row, goal_col = self._waypoints[-1]
        self.arrived = hypot(goal_row - row, goal_col - col) < ARRIVAL_DISTANCE
        next_row, next_col = self._waypoints[-1 if self.arrived else self._current]
        d_row, d_col = next_row - row, next_col - col
        if hypot(d_row, d_col) < ARRIVAL_DISTANCE and self._current < len(self._waypoints) - 1:
            self._current += 1
        push_row = POSITION_GAIN * d_row + VELOCITY_GAIN * v_row
        push_col = POSITION_GAIN * d_col + VELOCITY_GAIN * v_col
        if self._noise is not None:  # D4RL clips the action before the noise and after it
            noise_row, noise_col = next(self._noise)
            push_row, push_col = _clip(push_row) + noise_row, _clip(push_col) + noise_col
        return _clip(push_row), _clip(push_col)


def _clip(value: float) -> float:
    return MAX_ACTION if value > MAX_ACTION else -MAX_ACTION if value < -MAX_ACTION else value


def _draw_normals(generator: Generator, scale: float) -> Iterator[list[float]]:
    while True:  # in blocks: a call for each step would cost as much as the simulator
        yield from generator.normal(0.0, scale, (1024, 2)).tolist()


class ShortestPathPolicy:
    """The data's behavior as a policy: waypoint controllers that know the layout.

    jitter: draw the waypoints around the cells' centers, as the data did.
    """

    def __init__(self, layout: Layout, *, jitter: bool = False) -> None:
        self._layout, self._jitter = layout, jitter
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Forget all goals; from now on rows are 0 to n_envs - 1. seeds: of each row's jitter."""
        seeds = range(n_envs) if seeds is None else seeds
        self._goals: list[list[float] | None] = [None] * n_envs
        self._controllers = [
            WaypointController(
                self._layout, generator=np.random.default_rng(seed) if self._jitter else None
            )
            for seed in seeds
        ]

    def __call__(
        self,
        observation: Tensor,
        goal: Tensor | None = None,
        rows: Sequence[int] | NDArray | Tensor | None = None,
    ) -> Tensor:
        """Actions (n, 2) for observations (n, 4) of environments `rows`; goal: (n, 2 or more).

        Without a goal it is the layout's evaluation target. A new goal means a new path.
        """
        target = torch.tensor(self._layout.target, dtype=torch.float64).expand(len(observation), 2)
        goals = (target if goal is None else goal[..., :2]).tolist()
        actions = []
        for index, row in enumerate(range(len(observation)) if rows is None else map(int, rows)):
            state = observation[index].tolist()
            if self._goals[row] != goals[index]:
                self._goals[row] = goals[index]
                self._controllers[row].set_goal(state[:2], goals[index])
            actions.append(self._controllers[row].act(*state))
        return torch.tensor(actions).to(observation)


def shortest_path_plan(
    layout: Layout, observation: Sequence[float] | NDArray, goal: Sequence[float], speed: float
) -> NDArray[np.float32]:
    """Timed waypoints (horizon, 4), one an environment step, at constant speed in units/s.

    Row 0 is the observation's position, the last row the goal (row, col) at rest; between them are
    the centers of the grid's shortest path.
    """
    if not 0 < speed <= SPEED_LIMIT:
        raise ValueError(f"speed is {speed}; it must be in (0, {SPEED_LIMIT:.3f}] units/s")
    path = layout.shortest_path(layout.cell_of(observation[:2]), layout.cell_of(goal))
    corners = np.array([observation[:2], *map(layout.center_of, path[1:-1]), goal], np.float64)
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    moving = lengths > 0
    corners, lengths = corners[np.append(True, moving)], lengths[moving]
    distances = np.append(0.0, np.cumsum(lengths))
    times = np.arange(int(np.ceil(distances[-1] / (speed * TIME_STEP))) + 1)
    along = np.minimum(times * speed * TIME_STEP, distances[-1])
    plan = np.zeros((len(times), 4), np.float32)
    for axis in range(2):
        plan[:, axis] = np.interp(along, distances, corners[:, axis])
    segments = np.searchsorted(distances, along[:-1], side="right") - 1
    plan[:-1, 2:] = (speed * np.diff(corners, axis=0) / lengths[:, None])[segments]
    return plan
