"""Four rooms: episodes of the goal-reaching controller between uniform starts and goals.

Its actions are disturbed by Gaussian noise, so that the data also show how to come back to the way.
The noise is drawn again where it leads out of the range of actions: cut off there instead, it would
pile up, and the likeliest action of a model would be the largest one instead of the controller's.
An episode ends where it arrives, so its last observation is the goal that a model is told about
(goal relabeling; no rewards are needed).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.envs.four_rooms import (
    STEP_LIMIT,
    advance,
    controller_actions,
    draw_pairs,
    has_arrived,
)
from forethought.registry import datasets

ACTION_NOISE = 0.3
BATCH = 1_000  # episodes side by side


@datasets.register("four-rooms")
def build_four_rooms(
    seed: int = 0, n_steps: int = 200_000, on_progress: Callable[[int], None] | None = None
) -> EpisodeDataset:
    """At least ``n_steps`` steps, whole episodes."""
    noise, episodes, done = np.random.default_rng(seed), [], 0
    while done < n_steps:
        for episode in walk(BATCH, noise):
            if done < n_steps:
                episodes.append(episode)
                done += len(episode)
        if on_progress is not None:
            on_progress(min(done, n_steps))
    return EpisodeDataset.from_episodes(episodes)


def walk(n: int, noise: np.random.Generator, action_noise: float = ACTION_NOISE) -> list[Episode]:
    """Episodes of n controllers side by side."""
    start, goals = draw_pairs(n, noise)
    positions, actions = [start], []
    lengths, arrived = np.zeros(n, dtype=int), np.zeros(n, dtype=bool)
    for _ in range(STEP_LIMIT):
        aimed = controller_actions(positions[-1], goals)
        taken = _disturbed(aimed, action_noise, noise)
        actions.append(taken)
        positions.append(advance(positions[-1], taken))
        lengths += ~arrived
        arrived |= has_arrived(positions[-1], goals)
        if arrived.all():
            break
    path, taken = np.stack(positions, axis=1), np.stack(actions, axis=1)
    episodes = []
    for row, length in enumerate(lengths):
        rewards = np.zeros(length, dtype=np.float32)
        rewards[-1] = arrived[row]
        episodes.append(
            Episode(
                path[row, : length + 1].astype(np.float32),
                taken[row, :length].astype(np.float32),
                rewards,
                bool(arrived[row]),
                goal=goals[row].astype(np.float32),
            )
        )
    return episodes


def _disturbed(aimed: np.ndarray, deviation: float, noise: np.random.Generator) -> np.ndarray:
    """Gaussians around the actions (n, 2), truncated to [-1, 1] by drawing anew."""
    taken = aimed + deviation * noise.standard_normal(aimed.shape)
    while (outside := np.abs(taken) > 1).any():
        again = aimed[outside] + deviation * noise.standard_normal(int(outside.sum()))
        taken[outside] = again
    return taken
