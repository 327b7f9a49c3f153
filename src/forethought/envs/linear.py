"""A linear-Gaussian system whose discounted occupancy is known in closed form.

    s' = A s + B a + noise,  a = K s + noise,  r = -|s'|^2 / dim

A damped rotation of every pair of coordinates, pushed by one action per pair. It is the quickest
start with gamma-models and the judge of them: mean and covariance of the occupancy (thesis Eq. 2.2)
solve linear equations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ANGLE, DECAY, GAIN = 0.3, 0.97, 0.2
STEP_NOISE, ACTION_NOISE, START_SPREAD = 0.1, 0.3, 2.0


@dataclass(frozen=True)
class LinearSystem:
    """The matrices; ``dim`` is even, there are dim / 2 actions."""

    dim: int = 2
    a: np.ndarray = field(init=False, repr=False)
    b: np.ndarray = field(init=False, repr=False)
    k: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"a linear system has an even dimension from 2 on, got {self.dim}")
        cos, sin = DECAY * np.cos(ANGLE), DECAY * np.sin(ANGLE)
        pairs = np.eye(self.dim // 2)
        object.__setattr__(self, "a", np.kron(pairs, np.array([[cos, -sin], [sin, cos]])))
        object.__setattr__(self, "b", np.kron(pairs, np.array([[0.0], [1.0]])))
        object.__setattr__(self, "k", np.kron(pairs, np.array([[0.0, -GAIN]])))

    @property
    def action_dim(self) -> int:
        return self.dim // 2

    def step(self, states: np.ndarray, actions: np.ndarray, noise: np.random.Generator) -> Any:
        """(n, dim), (n, dim / 2) -> (n, dim)."""
        disturbance = STEP_NOISE * noise.standard_normal(states.shape)
        return states @ self.a.T + actions @ self.b.T + disturbance

    def act(self, states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        """The policy's actions (n, dim / 2)."""
        mean = states @ self.k.T
        return mean + ACTION_NOISE * noise.standard_normal(mean.shape)

    def occupancy(
        self, state: np.ndarray, action: np.ndarray, discount: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (dim,) and covariance (dim, dim) of the discounted occupancy from (s, a).

        With F = A + B K and W the noise of a step under the policy: mean (1 - g) (I - g F)^-1 m_1,
        and the second moment G solves G = (1 - g) S_1 + g (F G F^T + W).
        """
        f, identity = self.a + self.b @ self.k, np.eye(self.dim)
        first = self.a @ state + self.b @ action
        own = STEP_NOISE**2 * identity
        later = own + ACTION_NOISE**2 * self.b @ self.b.T
        mean = (1 - discount) * np.linalg.solve(identity - discount * f, first)
        constant = (1 - discount) * (own + np.outer(first, first)) + discount * later
        system = np.eye(self.dim**2) - discount * np.kron(f, f)
        second = np.linalg.solve(system, constant.reshape(-1)).reshape(self.dim, self.dim)
        return mean, second - np.outer(mean, mean)

    def sample_occupancy(
        self,
        state: np.ndarray,
        action: np.ndarray,
        discount: float,
        n: int,
        noise: np.random.Generator,
    ) -> np.ndarray:
        """(n, dim) by simulation: every row stops with probability 1 - discount after each step."""
        states = self.step(np.tile(state, (n, 1)), np.tile(action, (n, 1)), noise)
        live = noise.random(n) < discount
        while live.any():
            rows = np.flatnonzero(live)
            states[rows] = self.step(states[rows], self.act(states[rows], noise), noise)
            live[rows] = noise.random(len(rows)) < discount
        return states


class LinearEnv(gymnasium.Env):
    """The system as an environment; episodes start at N(0, START_SPREAD^2)."""

    def __init__(self, dim: int = 2) -> None:
        self.system = LinearSystem(dim)
        self.observation_space = spaces.Box(-np.inf, np.inf, (dim,), np.float32)
        self.action_space = spaces.Box(-np.inf, np.inf, (self.system.action_dim,), np.float32)
        self._state = np.zeros(dim)

    def draw_states(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """States (n, dim) that episodes start in."""
        return START_SPREAD * generator.standard_normal((n, self.system.dim))

    def arrival_rewards(self, observations: np.ndarray) -> np.ndarray:
        """(...,) rewards of steps that reach observations (..., dim)."""
        return -np.mean(observations**2, axis=-1)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self._state = self.draw_states(1, self.np_random)[0]
        return self._state.astype(np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        given = np.asarray(action, dtype=np.float64)[None]
        self._state = self.system.step(self._state[None], given, self.np_random)[0]
        reward = float(self.arrival_rewards(self._state))
        return self._state.astype(np.float32), reward, False, False, {}
