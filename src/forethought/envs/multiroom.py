"""MiniGrid's MultiRoom-N4-S5 (thesis Appendix B.6): four small rooms in a row, a new map each time.

Observations are the agent's place and heading (x, y, direction), actions MiniGrid's seven; the map
is the episode's ``context``, without agent and goal, which the thesis gives as tokens. An episode
ends, with MiniGrid's reward, at the goal.

``shortest_actions`` is the expert: breadth-first search over places and headings on the map.

Differs from the thesis: the map is that of the episode's beginning, all doors closed; what has been
opened since is told by the latest steps. MiniGrid's class is used directly, for its registered name
``MiniGrid-MultiRoom-N4-S5-v0`` builds six rooms.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

ROOMS, ROOM_SIZE = 4, 5
STEP_LIMIT = 20 * ROOMS  # MiniGrid's

FLOOR, WALL, DOOR, NOTHING = range(4)
"""kinds of cells of a map"""
CELL_KINDS = 4

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
ACTIONS = 7
AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # by direction, (x, y); MiniGrid's order

Cells = NDArray[np.uint8]
_State = tuple[int, int, int, bool]


class MultiRoomEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Needs the package minigrid (``pip install "forethought[minigrid]"``)."""

    metadata = {"render_modes": []}

    def __init__(self, *, reference_returns: tuple[float, float] | None = None) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            from minigrid.envs import MultiRoomEnv as Rooms
        except ImportError as error:
            raise ImportError(
                'MultiRoom needs the package minigrid: pip install "forethought[minigrid]"'
            ) from error
        self._rooms = Rooms(minNumRooms=ROOMS, maxNumRooms=ROOMS, maxRoomSize=ROOM_SIZE)
        self.observation_space = gymnasium.spaces.Box(
            np.zeros(3, np.float32),
            np.array([self._rooms.width - 1, self._rooms.height - 1, 3], np.float32),
            dtype=np.float32,
        )
        self.action_space = gymnasium.spaces.Discrete(ACTIONS)
        self.reference_returns = reference_returns
        self.context = np.zeros((self._rooms.height, self._rooms.width), dtype=np.uint8)
        self._goal = np.zeros(3, dtype=np.float32)

    @property
    def goal_observation(self) -> NDArray[np.float32]:
        """The goal (x, y), and a direction that means nothing: 0."""
        return self._goal

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Build a map; ``context`` holds it until the next reset, (height, width) cell kinds."""
        super().reset(seed=seed)
        map_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._rooms.reset(seed=map_seed)
        kinds = {"wall": WALL, "door": DOOR, "goal": FLOOR}
        self.context = np.full_like(self.context, FLOOR)
        for y in range(self._rooms.height):
            for x in range(self._rooms.width):
                cell = self._rooms.grid.get(x, y)
                if cell is not None:
                    self.context[y, x] = kinds[cell.type]
                    if cell.type == "goal":
                        self._goal = np.array([x, y, 0], dtype=np.float32)
        self.context[~_enclosed(self.context, *map(int, self._rooms.agent_pos))] = NOTHING
        return self._observation(), {"success": False}

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, _ = self._rooms.step(int(action))
        arrived = bool(np.array_equal(self._rooms.agent_pos, self._goal[:2]))
        return self._observation(), float(reward), terminated, truncated, {"success": arrived}

    def _observation(self) -> NDArray[np.float32]:
        return np.array([*self._rooms.agent_pos, self._rooms.agent_dir], dtype=np.float32)


def _enclosed(cells: Cells, x: int, y: int) -> NDArray[np.bool_]:
    """(height, width) whether a cell can be reached from (x, y), or walls in one that can."""
    reached, queue = np.zeros(cells.shape, dtype=bool), deque([(x, y)])
    reached[y, x] = True
    while queue:
        x, y = queue.popleft()
        for dx, dy in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            here = (y + dy, x + dx)
            if not reached[here]:
                reached[here] = True
                if cells[here] != WALL:
                    queue.append((x + dx, y + dy))
    return reached


def shortest_actions(cells: Cells, start: NDArray[Any], goal: NDArray[Any]) -> list[int]:
    """The fewest actions from (x, y, direction) to the place goal (x, y, ...), doors being closed.

    cells: (height, width) kinds. Raises ValueError if there is no way.
    """
    # a state is a place, a heading and whether a door ahead has just been opened
    first: _State = (int(start[0]), int(start[1]), int(start[2]), False)
    queue: deque[_State] = deque([first])
    seen: set[_State] = {first}
    came: dict[_State, tuple[_State, int]] = {}
    while queue:
        state = x, y, heading, opened = queue.popleft()
        if (x, y) == (int(goal[0]), int(goal[1])):
            return _trace(came, state)
        ahead_x, ahead_y = x + int(AHEAD[heading][0]), y + int(AHEAD[heading][1])
        kind = cells[ahead_y, ahead_x]
        following: list[tuple[int, _State]] = [
            (LEFT, (x, y, (heading - 1) % 4, False)),
            (RIGHT, (x, y, (heading + 1) % 4, False)),
        ]
        if kind == FLOOR or (kind == DOOR and opened):
            following.append((FORWARD, (ahead_x, ahead_y, heading, False)))
        elif kind == DOOR:
            following.append((TOGGLE, (x, y, heading, True)))
        for action, reached in following:
            if reached not in seen:
                seen.add(reached)
                came[reached] = (state, action)
                queue.append(reached)
    raise ValueError(f"there is no way from {start} to {goal} on this map")


def _trace(came: dict[_State, tuple[_State, int]], state: _State) -> list[int]:
    actions = []
    while state in came:
        state, action = came[state]
        actions.append(action)
    return actions[::-1]
