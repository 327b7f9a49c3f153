r"""Pendulum: swing a link upright that is too heavy to be lifted at once (thesis A.3).

Gymnasium's Pendulum-v1: state (angle from upright, velocity), torque u in [-2, 2], dt = 0.05,

    v' = clip(v + dt (15 sin(angle) + 3 u), -8, 8);   angle' = angle + dt v'

Its reward -(angle^2 + 0.1 v^2 + 0.001 u^2) is of the state that is left. gamma-models predict the
states that are reached, and need rewards of those (thesis Eq. 3.6): ``reward="arrival"``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from forethought.envs.closed_form import Array, ClosedFormEnv, wrap_angle

TIME_STEP = 0.05  # seconds
MAX_TORQUE = 2.0
MAX_VELOCITY = 8.0  # radians a second
GRAVITY = 10.0


class PendulumEnv(ClosedFormEnv):
    """Observations (cos, sin, velocity), one torque.

    reward: "gymnasium", of the state left and the torque; "arrival", of the state reached alone
    """

    def __init__(
        self,
        *,
        reward: Literal["gymnasium", "arrival"] = "gymnasium",
        reference_returns: tuple[float, float] | None = None,
    ) -> None:
        if reward not in ("gymnasium", "arrival"):
            raise ValueError(f"reward is {reward!r}; use 'gymnasium' or 'arrival'")
        super().__init__([1.0, 1.0, MAX_VELOCITY], [MAX_TORQUE], reference_returns)
        self._reward = reward

    def draw_states(self, n: int, generator: np.random.Generator) -> Array:
        return generator.uniform([-np.pi, -1.0], [np.pi, 1.0], (n, 2))

    def advance(self, states: Array, actions: Array) -> Array:
        angle, velocity = states.T
        pull = 1.5 * GRAVITY * np.sin(angle) + 3.0 * actions[:, 0]
        velocity = np.clip(velocity + pull * TIME_STEP, -MAX_VELOCITY, MAX_VELOCITY)
        return np.stack([angle + velocity * TIME_STEP, velocity], axis=-1)

    def observe(self, states: Array) -> Array:
        angle, velocity = states.T
        return np.stack([np.cos(angle), np.sin(angle), velocity], axis=-1)

    def states_of(self, observations: ArrayLike) -> Array:
        cosine, sine, velocity = np.asarray(observations, dtype=np.float64).T
        return np.stack([np.arctan2(sine, cosine), velocity], axis=-1)

    def arrival_rewards(self, observations: Array) -> Array:
        angle = np.arctan2(observations[..., 1], observations[..., 0])
        return -(angle**2 + 0.1 * observations[..., 2] ** 2)

    def rewards(self, states: Array, actions: Array, reached: Array) -> Array:
        if self._reward == "arrival":
            return self.arrival_rewards(self.observe(reached))
        angle, velocity = states.T
        return -(wrap_angle(angle) ** 2 + 0.1 * velocity**2 + 0.001 * actions[:, 0] ** 2)
