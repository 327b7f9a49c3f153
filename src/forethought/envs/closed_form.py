"""Environments whose step is a few lines of array arithmetic, one or thousands at a time.

The physics are functions of batches (``advance``, ``observe``, ``rewards``), so that occupancies by
Monte Carlo and value iteration on a grid cost a few array operations a step; ``step`` and ``reset``
are the same functions for a batch of one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class ClosedFormEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Continuous control with a state (S,) and no ending of its own.

    observation_limits: (O,) the largest magnitude of each observation;  max_action: (A,)
    reference_returns: returns that score 0 and 100; kept as an attribute
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        observation_limits: ArrayLike,
        max_action: ArrayLike,
        reference_returns: tuple[float, float] | None,
    ) -> None:
        high = np.asarray(observation_limits, dtype=np.float32)
        action = np.asarray(max_action, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-action, action, dtype=np.float32)
        self.reference_returns = reference_returns
        self._max_action = action.astype(np.float64)
        self._state: Array | None = None

    @abstractmethod
    def draw_states(self, n: int, generator: np.random.Generator) -> Array:
        """States (n, S) that episodes start in."""

    @abstractmethod
    def advance(self, states: Array, actions: Array) -> Array:
        """States (n, S) one step after (n, S) under actions (n, A) within the limits."""

    @abstractmethod
    def observe(self, states: Array) -> Array:
        """Observations (n, O) of states (n, S)."""

    @abstractmethod
    def states_of(self, observations: ArrayLike) -> Array:
        """States (n, S) with these observations (n, O), the inverse of ``observe``."""

    @abstractmethod
    def arrival_rewards(self, observations: Array) -> Array:
        """(...,) what it is worth to be at observations (..., O): the reward of the step there,
        but for costs of the action."""

    def rewards(self, states: Array, actions: Array, reached: Array) -> Array:
        """(n,) rewards of steps from ``states`` to ``reached``; by default those of arrival."""
        return self.arrival_rewards(self.observe(reached))

    def step_batch(self, states: Array, actions: ArrayLike) -> tuple[Array, Array]:
        """States reached (n, S) and rewards (n,), actions (n, A) clipped to their limits."""
        clipped = np.clip(actions, -self._max_action, self._max_action)
        reached = self.advance(states, clipped)
        return reached, self.rewards(states, clipped, reached)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a start, or take it from ``options["state"]`` (S,)."""
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"state"})
        if unknown:
            raise ValueError(f"unknown reset options {unknown}; known is 'state'")
        if options and "state" in options:
            self.set_state(options["state"])
        else:
            self._state = self.draw_states(1, self.np_random)
        return self._observation(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if self._state is None:
            raise ValueError("step was called before the first reset; call reset first")
        self._state, rewards = self.step_batch(self._state, np.asarray(action)[None])
        return self._observation(), float(rewards[0]), False, False, {}

    def get_state(self) -> Array:
        """The state (S,), a copy."""
        if self._state is None:
            raise ValueError("there is no state before the first reset; call reset first")
        return self._state[0].copy()

    def set_state(self, state: ArrayLike) -> None:
        """Go to a state (S,)."""
        array = np.array(state, dtype=np.float64)
        expected = self.draw_states(1, np.random.default_rng(0))[0]
        if array.shape != expected.shape or not np.isfinite(array).all():
            raise ValueError(f"state is {state}; expected {len(expected)} finite numbers")
        self._state = array[None]

    def _observation(self) -> NDArray[np.float32]:
        assert self._state is not None, "asked after a reset only"
        return self.observe(self._state)[0].astype(np.float32)


def wrap_angle(angle: Array) -> Array:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
