"""Environments that an agent acts in while it learns, side by side, one step at a time.

An episode is a function of its seed and its actions, and the seed one of (run's seed, environment,
episode's number). So the state of a running simulator need not be stored: a resumed run resets with
the seed and repeats the actions of the unfinished episode, whatever the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from forethought.data.replay import Steps
from forethought.types import Spaces


class Collector:
    """``n_envs`` environments with continuous actions that reset themselves when they end.

    make_env: a fresh environment that truncates by itself
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env], n_envs: int, seed: int) -> None:
        self.envs = [make_env() for _ in range(n_envs)]
        self._seed = seed
        self._episodes = [0] * n_envs  # number of the running one
        self._lengths = [0] * n_envs  # its steps so far
        box = self.envs[0].action_space
        shape = self.envs[0].observation_space.shape
        if not isinstance(box, gymnasium.spaces.Box) or len(box.shape) != 1 or shape is None:
            raise ValueError(
                f"an online agent needs actions in a box of one axis and observations of one axis; "
                f"the environment has {box} and {self.envs[0].observation_space}"
            )
        if not np.isfinite([box.low, box.high]).all():
            raise ValueError(f"actions must have finite limits, not {box}; wrap the environment")
        self.action_box = np.stack([box.low, box.high]).astype(np.float32)
        self.spaces = Spaces(observation_dim=shape[0], action_dim=box.shape[0])
        self.observation = np.stack([self._reset(env) for env in range(n_envs)])  # (n_envs, O)

    def step(self, action: np.ndarray) -> Steps:
        """Act (n_envs, A) in every environment; the rows of the step, one an environment."""
        action = np.clip(action.astype(np.float32), *self.action_box)
        n = len(self.envs)
        reward, reached = np.zeros(n, np.float32), np.empty_like(self.observation)
        terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
        for i, env in enumerate(self.envs):
            reached[i], reward[i], terminated[i], truncated[i], _ = env.step(action[i])
            self._lengths[i] += 1
        steps = Steps(
            observation=self.observation,
            action=action,
            reward=reward,
            next_observation=reached,
            terminated=terminated,
            truncated=truncated,
        )
        self.observation = reached.copy()
        for index in np.flatnonzero(terminated | truncated):
            self._episodes[index] += 1
            self.observation[index] = self._reset(int(index))
        return steps

    def _reset(self, env: int) -> np.ndarray:
        self._lengths[env] = 0
        sequence = np.random.SeedSequence((self._seed, env, self._episodes[env]))
        observation, _ = self.envs[env].reset(seed=int(sequence.generate_state(1)[0]))
        return np.array(observation, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Where the episodes stand, JSON-able."""
        return {"episodes": list(self._episodes), "lengths": list(self._lengths)}

    def rows_needed(self, state: dict[str, Any]) -> int:
        """Latest rows of the record that ``restore`` wants."""
        return max(state["lengths"]) * len(self.envs)

    def restore(self, state: dict[str, Any], rows: Steps | None) -> None:
        """Return to a ``state``, by repeating the actions in the latest ``rows``."""
        if len(state["episodes"]) != len(self.envs):
            raise ValueError(
                f"the run was begun with {len(state['episodes'])} environments, not "
                f"{len(self.envs)}; resume with that many"
            )
        self._episodes = list(state["episodes"])
        for index, length in enumerate(state["lengths"]):
            self.observation[index] = self._reset(index)
            if not length:
                continue
            assert rows is not None, "an episode that has steps is in the record"
            own = rows[slice(index, None, len(self.envs))][slice(-length, None)]
            for action in own.action:
                observation, *_ = self.envs[index].step(action)
                self.observation[index] = observation
            self._lengths[index] = length
            if not np.array_equal(self.observation[index], own.next_observation[-1]):
                raise ValueError(
                    "the environment does not repeat an episode from its seed and actions, so the "
                    "run cannot go on exactly; train anew, or make the environment deterministic"
                )

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()
