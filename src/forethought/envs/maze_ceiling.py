"""The most a maze allows: the shortest way to the goal disc at the speed limit.

The velocity limit holds per axis, so the fastest way between two points of open floor takes
max(|d_row|, |d_col|) / limit: the length that counts is Chebyshev's. On a grid with moves to all
eight neighbors that length is exact, and breadth-first search from the goal disc gives it for all
starts at once. Acceleration from rest costs more, so no policy reaches this.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forethought.envs.maze import BALL_RADIUS, GOAL_RADIUS, SPEED_LIMIT, TIME_STEP
from forethought.envs.maze_layout import HOME, Layout

CELL_STEPS = 25  # grid points along a cell: the length is wrong by at most 1/25


def fewest_steps(layout: Layout, start: ArrayLike, goal: Sequence[float]) -> int:
    """Environment steps to come within 0.5 of the goal (row, col) from a start (row, col)."""
    field, origin, spacing = _distances(layout, (float(goal[0]), float(goal[1])))
    row, col = ((np.asarray(start, dtype=float)[:2] - origin) / spacing).round().astype(int)
    near = field[max(row - 2, 0) : row + 3, max(col - 2, 0) : col + 3]  # a start may touch a wall
    distance = near.min()
    if not np.isfinite(distance):
        raise ValueError(f"no way leads from {start} to {tuple(goal)} in this maze")
    return max(ceil(distance / (SPEED_LIMIT * TIME_STEP)), 1)


def _distances(
    layout: Layout, goal: tuple[float, float]
) -> tuple[NDArray[np.float64], float, float]:
    """Chebyshev distance from every grid point to the goal disc, the grid's origin and spacing."""
    spacing = 1 / CELL_STEPS
    origin = 0.5 - HOME + spacing / 2
    rows, columns = (origin + spacing * np.arange(CELL_STEPS * n) for n in layout.shape)
    blocked = np.zeros((len(rows), len(columns)), dtype=bool)
    for wall in np.argwhere(layout.walls) + 1 - HOME:  # a ball's center keeps its radius away
        hit_rows = np.abs(rows - wall[0]) < 0.5 + BALL_RADIUS
        blocked |= hit_rows[:, None] & (np.abs(columns - wall[1]) < 0.5 + BALL_RADIUS)
    offset = rows[:, None] - goal[0], columns[None] - goal[1]
    front = ~blocked & (np.hypot(*offset) <= GOAL_RADIUS)
    field = np.where(front, 0.0, np.inf)
    distance = 0.0
    while front.any():
        distance += spacing
        wide = front.copy()
        wide[1:] |= front[:-1]
        wide[:-1] |= front[1:]
        front = wide.copy()
        front[:, 1:] |= wide[:, :-1]
        front[:, :-1] |= wide[:, 1:]
        front &= ~blocked & np.isinf(field)
        field[front] = distance
    return field, origin, spacing
