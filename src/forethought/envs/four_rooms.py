"""Four rooms in continuous space: reach a point anywhere, through doors (thesis Figure 4.6).

The square [-1, 1]^2 is divided by a wall on each axis, with a door in the middle of each of the
four half walls. A step moves by up to ``STEP`` in each coordinate, x before y; a wall in the way
stops the coordinate. Starts and goals are uniform outside walls; an episode
ends, with reward 1, within ``GOAL_RADIUS`` of the goal. After the discrete rooms of Sutton, Precup
and Singh (1999).

``controller_actions`` is the agent that makes the data: straight to the goal, or to the next door
on the shortest way there.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

STEP, GOAL_RADIUS, STEP_LIMIT = 0.06, 0.08, 100
DOOR, DOOR_HALF_WIDTH = 0.5, 0.1  # center of a door along its half wall
HALF_THICKNESS = 0.03  # of walls: more than a bin of a position, so that tokens tell the sides
BEYOND = 0.08  # how far behind a door the controller aims


def advance(positions: Array, actions: Array) -> Array:
    """Positions (n, 2) one step after (n, 2) under actions (n, 2) in [-1, 1]: x first, then y."""
    reached = positions.copy()
    move = STEP * np.clip(actions, -1.0, 1.0)
    for axis in (0, 1):
        aim = np.clip(reached[:, axis] + move[:, axis], -1.0, 1.0)
        stopped = _is_stopped(reached, aim, axis)
        reached[:, axis] = np.where(stopped, reached[:, axis], aim)
    return reached


def _is_stopped(start: Array, aim: Array, axis: int) -> NDArray[np.bool_]:
    """(n,) whether a wall is in the way from start (n, 2) to the coordinate ``aim`` (n,)."""
    here, other = start[:, axis], start[:, 1 - axis]
    meets = (np.minimum(here, aim) < HALF_THICKNESS) & (np.maximum(here, aim) > -HALF_THICKNESS)
    in_doorway = np.abs(other) < HALF_THICKNESS  # of the wall along this axis
    return (meets & ~_at_door(other)) | (in_doorway & ~_at_door(aim))


def _at_door(coordinate: Array) -> NDArray[np.bool_]:
    """Whether a wall has a door at this place along it."""
    return np.abs(np.abs(coordinate) - DOOR) <= DOOR_HALF_WIDTH


def in_wall(positions: Array) -> NDArray[np.bool_]:
    """(n,) whether positions (n, 2) are inside a wall."""
    inside = np.abs(positions) < HALF_THICKNESS
    return np.any(inside & ~_at_door(positions[:, ::-1]), axis=1)


def controller_actions(positions: Array, goals: Array) -> Array:
    """Actions (n, 2) towards goals (n, 2) on the shortest way through doors."""
    sides, goal_sides = _sides(positions), _sides(goals)
    differs = sides != goal_sides
    target = goals.copy()
    first = _first_axis(positions, goals, sides, goal_sides)
    # a straight way may lead through a door by itself; no door is aimed at then
    free = _is_free(positions, goals)
    for axis in (0, 1):
        through = differs[:, axis] & (first == axis) & ~free
        door = np.empty_like(goals)
        door[:, axis] = BEYOND * goal_sides[:, axis]
        door[:, 1 - axis] = DOOR * sides[:, 1 - axis]
        target = np.where(through[:, None], door, target)
        # in line with the door first, so that the wall beside it is not hit
        beside = np.abs(np.abs(positions[:, 1 - axis]) - DOOR) > 0.6 * DOOR_HALF_WIDTH
        near = np.abs(positions[:, axis]) < BEYOND
        target[:, axis] = np.where(through & beside & near, positions[:, axis], target[:, axis])
    ahead = target - positions
    longest = np.maximum(np.abs(ahead).max(axis=1, keepdims=True), STEP)
    return ahead / longest


def _is_free(positions: Array, goals: Array) -> NDArray[np.bool_]:
    """(n,) whether the straight line to the goal meets no wall."""
    shares = np.linspace(0, 1, 41)[:, None, None]
    line = positions + shares * (goals - positions)  # (41, n, 2)
    return ~np.any(in_wall(line.reshape(-1, 2)).reshape(line.shape[:2]), axis=0)


def _sides(points: Array) -> Array:
    return np.where(points >= 0, 1.0, -1.0)


def _first_axis(
    positions: Array, goals: Array, sides: Array, goal_sides: Array
) -> NDArray[np.int_]:
    """(n,) the axis whose wall is crossed first; of two ways round, that of the shorter path."""
    lengths = []
    for axis in (0, 1):
        one, two = np.empty_like(goals), np.empty_like(goals)
        one[:, axis], one[:, 1 - axis] = 0.0, DOOR * sides[:, 1 - axis]
        two[:, 1 - axis], two[:, axis] = 0.0, DOOR * goal_sides[:, axis]
        legs = (one - positions, two - one, goals - two)
        lengths.append(sum(np.linalg.norm(leg, axis=1) for leg in legs))
    shorter = np.argmin(np.stack(lengths, axis=1), axis=1)
    differs = sides != goal_sides
    only_first, only_second = differs[:, 0] & ~differs[:, 1], differs[:, 1] & ~differs[:, 0]
    return np.where(only_first, 0, np.where(only_second, 1, shorter))


class FourRoomsEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Observations (x, y), actions (2,) in [-1, 1]; the goal is ``goal_observation``."""

    metadata = {"render_modes": []}

    def __init__(self, *, reference_returns: tuple[float, float] | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.reference_returns = reference_returns
        self._position = self._goal = np.zeros((1, 2))

    @property
    def goal_observation(self) -> NDArray[np.float32]:
        """The goal (x, y)."""
        return self._goal[0].astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a start and a goal outside its reach, or take them from options "start", "goal"."""
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"start", "goal"})
        if unknown:
            raise ValueError(f"unknown reset options {unknown}; known are 'start' and 'goal'")
        self._position, self._goal = draw_pairs(1, self.np_random)
        if "start" in options:
            self._position = _point("start", options["start"])
        if "goal" in options:
            self._goal = _point("goal", options["goal"])
        return self._position[0].astype(np.float32), {"success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._position = advance(self._position, np.asarray(action, dtype=np.float64)[None])
        reached = bool(has_arrived(self._position, self._goal)[0])
        return (
            self._position[0].astype(np.float32),
            float(reached),
            reached,
            False,
            {"success": reached},
        )


def has_arrived(positions: Array, goals: Array) -> NDArray[np.bool_]:
    """(n,) whether positions (n, 2) are within GOAL_RADIUS of goals (n, 2)."""
    return np.linalg.norm(positions - goals, axis=1) <= GOAL_RADIUS


def draw_pairs(n: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Starts and goals (n, 2), uniform outside walls but for pairs that have already arrived."""
    starts, goals = generator.uniform(-1, 1, (n, 2)), generator.uniform(-1, 1, (n, 2))
    while (bad := in_wall(starts) | in_wall(goals) | has_arrived(starts, goals)).any():
        count = int(bad.sum())
        starts[bad] = generator.uniform(-1, 1, (count, 2))
        goals[bad] = generator.uniform(-1, 1, (count, 2))
    return starts, goals


def _point(name: str, value: ArrayLike) -> Array:
    point = np.asarray(value, dtype=np.float64)
    if point.shape != (2,) or not np.all(np.abs(point) <= 1):
        raise ValueError(f"{name} is {value}; expected (x, y) within [-1, 1]")
    if in_wall(point[None])[0]:
        raise ValueError(f"{name} {value} is inside a wall; walls are at x = 0 and y = 0")
    return point[None]
