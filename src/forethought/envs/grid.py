r"""Values on a grid of states, for closed-form environments with few state dimensions.

A step from a grid point lands between points; its value is interpolated linearly from the corners
of the cell. Iterating the Bellman equation for rewards of the state that is reached,

    V(s) = E_a [ r(s') + discount V(s') ],     or with max over a in place of E_a,

gives the value of a policy (thesis Eq. 3.6 computes the same from a gamma-model), or the best
value, to the resolution of the grid. Thesis Figure 3.4 has such a map for reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from forethought.envs.closed_form import Array, ClosedFormEnv


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Evenly spaced points of a box of states.

    low, high, counts: one number a state dimension. A periodic axis has its points at the left
    edges of its cells, for ``high`` is ``low`` again; another has them from edge to edge, and
    states beyond are moved to the edge.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    counts: tuple[int, ...]
    periodic: tuple[bool, ...]

    @property
    def axes(self) -> list[Array]:
        """The coordinates along each dimension."""
        return [
            np.linspace(low, high, count, endpoint=not periodic)
            for low, high, count, periodic in self._dimensions()
        ]

    @property
    def points(self) -> Array:
        """(N, S), the last dimension fastest."""
        mesh = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([axis.ravel() for axis in mesh], axis=-1)

    def corners(self, states: Array) -> tuple[NDArray[np.int64], Array]:
        """Indices (n, 2^S) of the points round each state (n, S), and their weights, sum 1."""
        below, above, share = [], [], []
        for column, (low, high, count, periodic) in zip(states.T, self._dimensions(), strict=True):
            cells = count if periodic else count - 1
            place = (column - low) / (high - low) * cells
            place = place % cells if periodic else np.clip(place, 0, cells)
            first = np.minimum(place.astype(np.int64), cells - 1)  # % may round up to cells
            below.append(first)
            above.append((first + 1) % count)
            share.append(place - first)
        index, weight = [], []
        for upper in product((False, True), repeat=len(self.counts)):
            flat, mass = np.zeros(len(states), dtype=np.int64), np.ones(len(states))
            for axis, is_upper in enumerate(upper):
                flat = flat * self.counts[axis] + (above if is_upper else below)[axis]
                mass = mass * (share[axis] if is_upper else 1 - share[axis])
            index.append(flat)
            weight.append(mass)
        return np.stack(index, axis=-1), np.stack(weight, axis=-1)

    def read(self, values: Array, states: Array) -> Array:
        """(n,) values of states (n, S), between those of the points (N,)."""
        index, weight = self.corners(states)
        return (values[index] * weight).sum(axis=-1)

    def _dimensions(self) -> list[tuple[float, float, int, bool]]:
        return list(zip(self.low, self.high, self.counts, self.periodic, strict=True))


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What m actions at each of N points lead to: corners (N, m, 2^S), rewards (N, m)."""

    index: NDArray[np.int64]
    weight: Array
    rewards: Array


def tabulate(
    env: ClosedFormEnv, grid: Grid, actions: Array, reward: Callable[[Array], Array]
) -> Steps:
    """Every point's steps under its actions (N, m, A), or (m, A) the same for all.

    reward: observations (n, O) reached -> (n,)
    """
    points = grid.points
    chosen = np.broadcast_to(actions, (len(points), *actions.shape[-2:]))
    n_actions = chosen.shape[1]
    flat = chosen.reshape(-1, chosen.shape[2])
    reached, _ = env.step_batch(np.repeat(points, n_actions, axis=0), flat)
    index, weight = grid.corners(reached)
    shape = (len(points), n_actions)
    return Steps(
        index=index.reshape(*shape, -1),
        weight=weight.reshape(*shape, -1),
        rewards=np.asarray(reward(env.observe(reached))).reshape(shape),
    )


def iterate_values(
    steps: Steps, discount: float, *, weights: Array | None = None, tolerance: float = 1e-4
) -> Array:
    """(N,) values of the points, each within ``tolerance`` of the fixed point.

    weights: (m,) probabilities of the actions, for a policy's value; None = the best action's
    """
    if not 0 <= discount < 1:
        raise ValueError(f"a discount is {discount}; it must lie in [0, 1)")
    index, weight, rewards = steps.index, steps.weight, steps.rewards
    if weights is not None:  # one expectation over actions and corners
        weight = (weight * weights[:, None]).reshape(len(index), 1, -1)
        index = index.reshape(len(index), 1, -1)
        rewards = (rewards @ weights)[:, None]
    values = np.zeros(len(index))
    while True:
        updated = (rewards + discount * (values[index] * weight).sum(axis=-1)).max(axis=-1)
        change = np.abs(updated - values).max()
        values = updated
        if discount * change <= tolerance * (1 - discount):
            return values
