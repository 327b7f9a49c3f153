"""The one loop that makes both data and scores.

Plain environments run side by side in waves, and one policy call serves all that are still live.
Each episode's environment and planner noise come from its own seed, so a score does not depend on
how many ran together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from forethought.data.episodes import Episode
from forethought.policy import ContextObserver, Policy, RewardObserver
from forethought.scores import mean_and_interval, normalized_score

GoalOf = Callable[[gymnasium.Env], np.ndarray]


def goal_observation(env: gymnasium.Env) -> np.ndarray | None:
    """The environment's goal as a full observation (O,), if it has a ``goal_observation``."""
    if env.has_wrapper_attr("goal_observation"):
        return np.array(env.get_wrapper_attr("goal_observation"), dtype=np.float32)
    return None


def rollout(
    policy: Policy,
    make_env: Callable[[], gymnasium.Env],
    n_episodes: int,
    seed: int,
    *,
    n_parallel: int = 16,
    goal_of: Callable[[gymnasium.Env], np.ndarray | None] = goal_observation,
    on_episode: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Run ``n_episodes`` episodes; the result depends on ``seed`` only, not on ``n_parallel``.

    make_env: a fresh environment that truncates by itself;  goal_of: its goal as an observation, or
        None
    on_episode: called with the number of episodes done
    """
    if n_episodes < 1 or n_parallel < 1:
        raise ValueError(f"{n_episodes} episodes, {n_parallel} at a time: both must be at least 1")
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(n_episodes)]
    envs = [make_env() for _ in range(min(n_parallel, n_episodes))]
    episodes: list[Episode] = []
    try:
        for first in range(0, n_episodes, len(envs)):
            wave = seeds[first : first + len(envs)]
            episodes += _run_wave(policy, envs[: len(wave)], wave, goal_of)
            if on_episode is not None:
                on_episode(len(episodes))
    finally:
        for env in envs:
            env.close()
    return episodes


class _Recorder:
    """One environment's episode so far."""

    def __init__(self, env: gymnasium.Env, seed: int, goal_of: Callable) -> None:
        self.env, self.seed = env, seed
        observation, _ = env.reset(seed=seed)
        self.goal = goal_of(env)
        self.context = env.get_wrapper_attr("context") if env.has_wrapper_attr("context") else None
        self.observations = [np.array(observation, dtype=np.float32)]  # a copy: it may be reused
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.successes: list[bool] = []
        self.tells_success = False
        self.terminated = False

    def step(self, action: np.ndarray) -> bool:
        """Act; True while the episode goes on."""
        discrete = isinstance(self.env.action_space, gymnasium.spaces.Discrete)
        taken = int(action[0]) if discrete else action
        observation, reward, terminated, truncated, info = self.env.step(taken)
        self.observations.append(np.array(observation, dtype=np.float32))
        self.actions.append(action)
        self.rewards.append(float(reward))
        self.successes.append(bool(info.get("success", False)))
        self.tells_success |= "success" in info
        self.terminated = bool(terminated)
        return not (terminated or truncated)

    def episode(self) -> Episode:
        return Episode(
            np.stack(self.observations),
            np.stack(self.actions),
            np.asarray(self.rewards, dtype=np.float32),
            self.terminated,
            successes=np.asarray(self.successes) if self.tells_success else None,
            goal=self.goal,
            context=self.context,
            seed=self.seed,
        )


def _run_wave(
    policy: Policy, envs: Sequence[gymnasium.Env], seeds: Sequence[int], goal_of: Callable
) -> list[Episode]:
    recorders = [_Recorder(env, seed, goal_of) for env, seed in zip(envs, seeds, strict=True)]
    policy.reset(len(envs), seeds)
    contexts = [r.context for r in recorders if r.context is not None]
    if contexts and isinstance(policy, ContextObserver):
        policy.observe_contexts(torch.from_numpy(np.stack(contexts)))
    live = list(range(len(envs)))
    while live:
        observation = _stack([recorders[i].observations[-1] for i in live])
        goals = [recorders[i].goal for i in live]
        goal = None if goals[0] is None else _stack(goals)
        actions = policy(observation, goal, torch.tensor(live)).numpy()
        pairs = list(zip(live, actions, strict=True))
        acted, live = live, [i for i, a in pairs if recorders[i].step(_legal(envs[i], a))]
        if isinstance(policy, RewardObserver):
            rewards = [recorders[i].rewards[-1] for i in acted]
            policy.observe_rewards(torch.tensor(rewards), torch.tensor(acted))
    return [recorder.episode() for recorder in recorders]


def _legal(env: gymnasium.Env, action: np.ndarray) -> np.ndarray:
    """The action (A,) as the environment will take it, and as the record should say: clipped to its
    box, or the nearest index of a discrete one."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.clip(np.rint(action), 0, space.n - 1).astype(np.int64)
    if isinstance(space, gymnasium.spaces.Box):
        return np.clip(action, space.low, space.high)
    return action


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A score with its protocol: per-episode records, summary, and how it was made."""

    score: dict[str, Any]
    success_rate: float
    n: int
    protocol: dict[str, Any]
    episodes: list[dict[str, Any]]
    paths: list[Episode] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the executed paths."""
        names = ("score", "success_rate", "n", "protocol", "episodes")
        return {name: getattr(self, name) for name in names}


def evaluate(
    policy: Policy,
    env_id: str,
    n_episodes: int,
    seed: int,
    *,
    n_parallel: int = 16,
    protocol: dict[str, Any] | None = None,
    on_episode: Callable[[int], None] | None = None,
) -> Evaluation:
    """Roll out ``policy`` in a registered environment and score it (100 = the reference expert).

    An episode succeeds if it is at the goal at some step and at its last one.
    """
    reference = gymnasium.spec(env_id).kwargs.get("reference_returns")
    began = time.perf_counter()
    episodes = rollout(
        policy,
        lambda: gymnasium.make(env_id, disable_env_checker=True),
        n_episodes,
        seed,
        n_parallel=n_parallel,
        on_episode=on_episode,
    )
    seconds = time.perf_counter() - began
    records = [_record(episode, reference) for episode in episodes]
    mean, low, high = mean_and_interval([record["score"] for record in records])
    return Evaluation(
        score={"mean": mean, "interval": [low, high] if math.isfinite(low) else None},
        success_rate=float(np.mean([record["success"] for record in records])),
        n=n_episodes,
        protocol={
            "env": env_id,
            "seed": seed,
            "reference_returns": reference,
            "wall_seconds": round(seconds, 2),
            **(protocol or {}),
        },
        episodes=records,
        paths=episodes,
    )


def _record(episode: Episode, reference: tuple[float, float] | None) -> dict[str, Any]:
    total = float(episode.rewards.sum())
    successes = np.zeros(1, dtype=bool) if episode.successes is None else episode.successes
    reached = bool(successes.any())
    return {
        "seed": episode.seed,
        "return": total,
        "score": total if reference is None else normalized_score(total, reference),
        "success": reached and bool(successes[-1]),
        "arrival_step": int(successes.argmax()) + 1 if reached else None,
        "steps": len(episode),
        "start": [round(float(x), 4) for x in episode.observations[0]],
        "goal": None if episode.goal is None else [round(float(x), 4) for x in episode.goal],
    }
