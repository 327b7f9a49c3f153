r"""Acrobot with a continuous torque and the thesis's shaped reward (A.3).

Two links, a torque in [-1, 1] at the joint between them. Dynamics are those of Gymnasium's
Acrobot-v1 (Sutton and Barto's book): one classical Runge-Kutta step of 0.2 s, angles wrapped,
velocities clipped. State (angle 0, angle 1, velocity 0, velocity 1); angle 0 hangs down at 0.

The reward is the height of the tip that is reached,

    r = -cos(angle 0) - cos(angle 0 + angle 1)

and takes the place of Acrobot's -1 a step. The thesis does not say whether episodes end at the goal
height of 1. Here they do not: with this reward an end would be a loss, to be avoided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forethought.envs.closed_form import Array, ClosedFormEnv, wrap_angle

TIME_STEP = 0.2  # seconds
MAX_TORQUE = 1.0
MAX_VELOCITIES = np.array([4 * np.pi, 9 * np.pi])  # radians a second
GRAVITY = 9.8
LENGTH, CENTER, MASS, INERTIA = 1.0, 0.5, 1.0, 1.0  # of each link


class AcrobotEnv(ClosedFormEnv):
    """Observations (cos 0, sin 0, cos 1, sin 1, velocity 0, velocity 1), one torque."""

    def __init__(self, *, reference_returns: tuple[float, float] | None = None) -> None:
        super().__init__([1.0, 1.0, 1.0, 1.0, *MAX_VELOCITIES], [MAX_TORQUE], reference_returns)

    def draw_states(self, n: int, generator: np.random.Generator) -> Array:
        return generator.uniform(-0.1, 0.1, (n, 4))

    def advance(self, states: Array, actions: Array) -> Array:
        torque, h = actions[:, 0], TIME_STEP
        k1 = _derivative(states, torque)
        k2 = _derivative(states + h / 2 * k1, torque)
        k3 = _derivative(states + h / 2 * k2, torque)
        k4 = _derivative(states + h * k3, torque)
        reached = states + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        reached[:, :2] = wrap_angle(reached[:, :2])
        reached[:, 2:] = np.clip(reached[:, 2:], -MAX_VELOCITIES, MAX_VELOCITIES)
        return reached

    def observe(self, states: Array) -> Array:
        first, second = states[:, 0], states[:, 1]
        angles = [np.cos(first), np.sin(first), np.cos(second), np.sin(second)]
        return np.stack([*angles, states[:, 2], states[:, 3]], axis=-1)

    def states_of(self, observations: ArrayLike) -> Array:
        rows = np.asarray(observations, dtype=np.float64)
        first = np.arctan2(rows[:, 1], rows[:, 0])
        second = np.arctan2(rows[:, 3], rows[:, 2])
        return np.stack([first, second, rows[:, 4], rows[:, 5]], axis=-1)

    def arrival_rewards(self, observations: Array) -> Array:
        cos_0, sin_0, cos_1, sin_1 = np.moveaxis(observations[..., :4], -1, 0)
        return -cos_0 - (cos_0 * cos_1 - sin_0 * sin_1)


def _derivative(states: Array, torque: Array) -> Array:
    """d/dt of (n, 4) states: the equations of motion of the book."""
    first, second, speed_0, speed_1 = states.T
    inner = MASS * LENGTH * CENTER
    cosine, sine = np.cos(second), np.sin(second)
    d1 = MASS * (2 * CENTER**2 + LENGTH**2) + 2 * inner * cosine + 2 * INERTIA
    d2 = MASS * CENTER**2 + inner * cosine + INERTIA
    phi2 = MASS * CENTER * GRAVITY * np.sin(first + second)
    phi1 = -inner * sine * speed_1 * (speed_1 + 2 * speed_0) + phi2
    phi1 = phi1 + MASS * (CENTER + LENGTH) * GRAVITY * np.sin(first)
    pull = torque + d2 / d1 * phi1 - inner * speed_0**2 * sine - phi2
    change_1 = pull / (MASS * CENTER**2 + INERTIA - d2**2 / d1)
    change_0 = -(d2 * change_1 + phi1) / d1
    return np.stack([speed_0, speed_1, change_0, change_1], axis=-1)
