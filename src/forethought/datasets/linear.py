"""Episodes of the linear-Gaussian system under its own noisy policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.envs.linear import START_SPREAD, LinearSystem
from forethought.registry import datasets

EPISODE_STEPS = 50


def build_linear(seed: int, n_steps: int, dim: int) -> EpisodeDataset:
    """About ``n_steps`` steps in episodes of 50, from N(0, 2^2), in ``dim`` dimensions."""
    if n_steps < EPISODE_STEPS:
        raise ValueError(f"{n_steps} steps asked for; an episode has {EPISODE_STEPS}")
    system, noise = LinearSystem(dim), np.random.default_rng(seed)
    n = n_steps // EPISODE_STEPS
    states = [START_SPREAD * noise.standard_normal((n, dim))]
    actions = []
    for _ in range(EPISODE_STEPS):
        actions.append(system.act(states[-1], noise))
        states.append(system.step(states[-1], actions[-1], noise))
    observations = np.stack(states, axis=1).astype(np.float32)
    taken = np.stack(actions, axis=1).astype(np.float32)
    rewards = -np.mean(observations[:, 1:] ** 2, axis=2)
    return EpisodeDataset.from_episodes(
        [Episode(*arrays) for arrays in zip(observations, taken, rewards, strict=True)]
    )


for _dim in (2, 8, 16):

    @datasets.register(f"linear-{_dim}")
    def _build(
        seed: int = 0,
        n_steps: int = 200_000,
        on_progress: Callable[[int], None] | None = None,
        dim: int = _dim,
    ) -> EpisodeDataset:
        """Linear-Gaussian system, for gamma-models and their tests."""
        dataset = build_linear(seed, n_steps, dim)
        if on_progress is not None:
            on_progress(n_steps)
        return dataset
