r"""MountainCarContinuous with the thesis's shaped reward r = x, the position reached (A.3).

A car on the track sin(3 x) that must rock to climb. Dynamics are those of Gymnasium's
MountainCarContinuous-v0: force a in [-1, 1],

    v' = clip(v + 0.0015 a - 0.0025 cos(3 x), -0.07, 0.07);   x' = clip(x + v', -1.2, 0.6)

and v' = 0 at the left wall. The thesis does not say whether the shaping replaces the reward for the
goal (x = 0.45) or whether episodes end there. Here it does and they do not: the car stays on top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forethought.envs.closed_form import Array, ClosedFormEnv

POSITIONS = (-1.2, 0.6)
MAX_SPEED = 0.07  # position units a step
POWER, SLOPE = 0.0015, 0.0025


class MountainCarEnv(ClosedFormEnv):
    """Observations (position, velocity), one force."""

    def __init__(self, *, reference_returns: tuple[float, float] | None = None) -> None:
        super().__init__([-POSITIONS[0], MAX_SPEED], [1.0], reference_returns)

    def draw_states(self, n: int, generator: np.random.Generator) -> Array:
        return np.stack([generator.uniform(-0.6, -0.4, n), np.zeros(n)], axis=-1)

    def advance(self, states: Array, actions: Array) -> Array:
        position, velocity = states.T
        velocity = velocity + POWER * actions[:, 0] - SLOPE * np.cos(3 * position)
        velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = np.clip(position + velocity, *POSITIONS)
        stopped = (position == POSITIONS[0]) & (velocity < 0)
        return np.stack([position, np.where(stopped, 0.0, velocity)], axis=-1)

    def observe(self, states: Array) -> Array:
        return states.copy()

    def states_of(self, observations: ArrayLike) -> Array:
        return np.array(observations, dtype=np.float64)

    def arrival_rewards(self, observations: Array) -> Array:
        return observations[..., 0].copy()
