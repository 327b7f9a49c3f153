"""Maze layouts: which cells are walls, in D4RL's strings and D4RL's frame; no simulator.

Positions are (row, col) in cells, but shifted: walls are unit boxes at index + 1 of the world and
the ball's home is at 1.2, so that the center of cell (r, c) is at (r - 0.2, c - 0.2).

Source: the layouts of Maze2D in Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement
Learning" (2020).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

HOME = 1.2  # world position of the ball at observation (0, 0); walls stand at index + 1
CENTER_SHIFT = 1.0 - HOME  # a cell's center minus its index: -0.2

Cell = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The walls of a maze and its evaluation target; made by `Layout.parse`.

    rows: one string a row, of '#' (wall), 'O' (free) and at most one 'G' (free, evaluation target;
        without one the target is the first free cell, as in D4RL). The border must be wall.
    """

    rows: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read a layout whose rows are separated by newlines or by D4RL's backslashes."""
        return cls(tuple(row.strip() for row in text.strip().replace("\\", "\n").split("\n")))

    def __post_init__(self) -> None:
        widths = sorted({len(row) for row in self.rows})
        if len(widths) != 1 or widths[0] == 0:
            raise ValueError(f"layout rows have lengths {widths}; all need the same, at least 3")
        unknown = sorted(set("".join(self.rows)) - set("#OG"))
        if unknown:
            raise ValueError(
                f"layout has unknown characters {unknown}; use '#' (wall), 'O' (free), 'G' (target)"
            )
        if "".join(self.rows).count("G") > 1:
            raise ValueError("layout has more than one 'G'; mark a single evaluation target")
        border = self.rows[0] + self.rows[-1] + "".join(row[0] + row[-1] for row in self.rows)
        if set(border) != {"#"}:
            raise ValueError("layout has an open border; every cell on the rim must be '#'")
        if not self.free_cells():
            raise ValueError("layout has no free cell; mark at least one with 'O' or 'G'")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), in cells."""
        return len(self.rows), len(self.rows[0])

    @cached_property
    def walls(self) -> NDArray[np.bool_]:
        """Which cells are walls: read-only (rows, columns)."""
        walls = np.array([[character == "#" for character in row] for row in self.rows])
        walls.setflags(write=False)
        return walls

    def free_cells(self) -> list[Cell]:
        """All cells that are not walls, in reading order; includes the target."""
        return [
            (row, col)
            for row, line in enumerate(self.rows)
            for col, character in enumerate(line)
            if character != "#"
        ]

    @cached_property
    def target(self) -> Cell:
        """The cell of the evaluation target; the goal itself is at these integer coordinates."""
        for row, line in enumerate(self.rows):
            if "G" in line:
                return row, line.index("G")
        return self.free_cells()[0]

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Whether points (..., 2), in observation coordinates, lie within the rim: (...)."""
        cells = np.asarray(points, dtype=np.float64) + HOME - 0.5
        return np.all((cells >= 0) & (cells < np.array(self.shape)), axis=-1)

    def is_free(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Whether points (..., 2), in observation coordinates, lie in a free cell: (...)."""
        points = np.asarray(points, dtype=np.float64)
        inside = self.contains(points)
        cells = np.floor(np.where(inside[..., None], points + HOME - 0.5, 0.0)).astype(np.int64)
        return inside & ~self.walls[cells[..., 0], cells[..., 1]]

    def cell_of(self, point: Sequence[float] | NDArray, name: str = "point") -> Cell:
        """The free cell that holds one point (row, col); a ValueError in a wall or outside."""
        if not self.is_free(point):
            raise ValueError(f"{name} {describe_point(point)} is {self._allowed(point)}")
        return int(point[0] + HOME - 0.5), int(point[1] + HOME - 0.5)

    def center_of(self, cell: Cell) -> tuple[float, float]:
        """The middle of a cell in observation coordinates."""
        return cell[0] + CENTER_SHIFT, cell[1] + CENTER_SHIFT

    def shortest_path(self, start: Cell, goal: Cell) -> list[Cell]:
        """Cells from start to goal, both included, moving along rows and columns (BFS)."""
        for name, cell in (("start", start), ("goal", goal)):
            if not (0 <= cell[0] < self.shape[0] and 0 <= cell[1] < self.shape[1]):
                raise ValueError(f"{name} cell {cell} is outside the {self.shape} layout")
            if self.walls[cell]:
                raise ValueError(f"{name} cell {cell} is a wall; use one of free_cells()")
        following: dict[Cell, Cell] = {goal: goal}  # searched from the goal: the next cell to it
        queue = deque([goal])
        while queue and start not in following:
            row, col = cell = queue.popleft()
            for neighbor in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if self.rows[neighbor[0]][neighbor[1]] != "#" and neighbor not in following:
                    following[neighbor] = cell
                    queue.append(neighbor)
        if start not in following:
            raise ValueError(f"no path from cell {start} to cell {goal} in this layout")
        path = [start]
        while path[-1] != goal:
            path.append(following[path[-1]])
        return path

    def _allowed(self, point: ArrayLike) -> str:
        where = "in a wall" if self.contains(point) else "outside the maze"
        shift = HOME - 0.5
        return (
            f"{where}; allowed are the free cells {self.free_cells()}, where cell (r, c) spans"
            f" [r - {shift:.1f}, r + {1 - shift:.1f}) by [c - {shift:.1f}, c + {1 - shift:.1f})"
        )


LAYOUTS = {
    "umaze": Layout.parse(r"#####\#GOO#\###O#\#OOO#\#####"),
    "medium": Layout.parse(
        r"########\#OO##OO#\#OO#OOO#\##OOO###\#OO#OOO#\#O#OO#O#\#OOO#OG#\########"
    ),
    "large": Layout.parse(
        r"############\#OOOO#OOOOO#\#O##O#O#O#O#\#OOOOOO#OOO#\#O####O###O#\#OO#O#OOOOO#"
        r"\##O#O#O#O###\#OO#OOO#OGO#\############"
    ),
}


def describe_point(point: Iterable[float]) -> str:
    """A point as "(1.5, 2)", for messages."""
    return "(" + ", ".join(f"{float(number):g}" for number in point) + ")"
