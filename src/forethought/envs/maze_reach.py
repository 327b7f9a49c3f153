"""Reaching one far goal in a maze, rewarded once: the protocol of D4RL's AntMaze, with the ball.

Every episode starts in one cell, by default the one farthest from the layout's target; the reward
is 1 at the step that comes within 0.5 of the target, which ends the episode, and 0 before. So a
return is 0 or 1, and the mean score over episodes is the success rate in percent. An action is
held for ``frame_skip`` steps of the simulation, as the ant's is.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), AntMaze;
thesis Section 4.4, Table 4.2. Departs from AntMaze in its body: a ball, not an ant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.envs.maze import POSITION_NOISE, MazeEnv
from forethought.envs.maze_layout import Cell, Layout

FRAME_SKIP = 5  # steps of 0.01 s an action is held for
REACH_LIMITS = {"medium": 250, "large": 400}  # environment steps


class MazeReachEnv(MazeEnv):
    """The ball, put down in one cell and sent to the layout's target.

    layout: as of `MazeEnv`;  start: cell (row, col), None = the farthest from the target
    frame_skip: simulation steps for one action
    """

    def __init__(
        self,
        layout: str,
        *,
        start: Cell | None = None,
        frame_skip: int = FRAME_SKIP,
        reference_returns: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        if frame_skip < 1:
            raise ValueError(f"frame_skip is {frame_skip}; it must be at least 1")
        super().__init__(layout, goal="fixed", reference_returns=reference_returns)
        self.frame_skip = frame_skip
        self.start: Cell = farthest_cell(self.layout) if start is None else (start[0], start[1])
        self.layout.cell_of(self.start, "start")  # refuses walls and the outside

    def step(
        self, action: NDArray[np.float32] | Sequence[float]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Hold the action for ``frame_skip`` simulation steps, or until the goal is reached."""
        for _ in range(self.frame_skip - 1):
            observation, reward, _, _, info = super().step(action)
            if reward:
                return observation, reward, True, False, info
        observation, reward, _, _, info = super().step(action)
        return observation, reward, bool(reward), False, info

    def _draw_position(self) -> NDArray[np.float64]:
        return self.start + self.np_random.uniform(-POSITION_NOISE, POSITION_NOISE, 2)


def farthest_cell(layout: Layout) -> Cell:
    """The free cell with the longest shortest path to the target; of equals the first in reading
    order. Cells without any path are left out."""
    distance = cell_distances(layout, layout.target)
    return max(distance, key=lambda cell: (distance[cell], -cell[0], -cell[1]))


def cell_distances(layout: Layout, goal: Cell) -> dict[Cell, int]:
    """Moves along rows and columns from each free cell to ``goal``, where there is a path."""
    distance, frontier = {goal: 0}, [goal]
    for row, col in frontier:  # grows while it is read: breadth first
        for cell in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if not layout.walls[cell] and cell not in distance:
                distance[cell] = distance[row, col] + 1
                frontier.append(cell)
    return distance
