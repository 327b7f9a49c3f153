"""MultiRoom: shortest ways of the expert, and walks at random, each on a map of its own.

A share ``RANDOM_SHARE`` of the episodes takes uniform random actions until the time limit (thesis
Appendix B.6: "a mixture of trajectories from a pre-trained goal-reaching policy and a uniform
random policy"). Every episode's last place is the goal that a model is told about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.envs.multiroom import ACTIONS, STEP_LIMIT, MultiRoomEnv, shortest_actions
from forethought.registry import datasets

RANDOM_SHARE = 0.1


@datasets.register("multiroom")
def build_multiroom(
    seed: int = 0, n_steps: int = 400_000, on_progress: Callable[[int], None] | None = None
) -> EpisodeDataset:
    """At least ``n_steps`` steps, whole episodes."""
    draws, env, done = np.random.default_rng(seed), MultiRoomEnv(), 0
    episodes: list[Episode] = []
    while done < n_steps:
        episodes.append(walk(env, draws, at_random=draws.random() < RANDOM_SHARE))
        done += len(episodes[-1])
        if on_progress is not None:
            on_progress(min(done, n_steps))
    return EpisodeDataset.from_episodes(episodes, n_actions=ACTIONS)


def walk(env: MultiRoomEnv, draws: np.random.Generator, *, at_random: bool) -> Episode:
    """One episode on a new map."""
    observation, _ = env.reset(seed=int(draws.integers(2**31)))
    observations, rewards, ended = [observation], [], False
    actions = shortest_actions(env.context, observation, env.goal_observation)
    if at_random:
        actions = draws.integers(ACTIONS, size=STEP_LIMIT).tolist()
    for action in actions:
        observation, reward, ended, truncated, _ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        if ended or truncated:
            break
    return Episode(
        np.stack(observations),
        np.array(actions[: len(rewards)], dtype=np.int64)[:, None],
        np.array(rewards, dtype=np.float32),
        ended,
        goal=env.goal_observation,
        context=env.context,
    )
