"""D4RL-style data of Hopper, Walker2d and HalfCheetah: ``TASK-QUALITY``, from shipped policies.

    expert          the snapshot of a SAC run that earns most
    medium          the one nearest to a third of that
    medium-expert   half of the steps from each
    medium-replay   random actions and every snapshot up to the medium one, each with as many of the
                    steps as training took since the one before

Policies draw their actions, as D4RL's do. Differs from D4RL (Fu et al. 2020): Gymnasium's ``-v5``
tasks instead of ``-v2``; fewer steps of medium and medium-expert (D4RL: 1M and 2M); policies of our
own; and medium-replay is not the buffer of a run but a mixture of policies it went through, which
lacks what lies between them. Every episode is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.policy import Policy
from forethought.registry import datasets
from forethought.rollout import rollout
from forethought.scores import mean_and_interval, normalized_score
from forethought.snapshots import RandomPolicy, ShippedPolicies, StochasticPolicy

TASKS = ("hopper", "walker2d", "halfcheetah")
STEPS = {
    "medium": 200_000,
    "medium-replay": 200_000,
    "medium-expert": 400_000,
    "expert": 1_000_000,
}
"""of a quality, unless told otherwise"""
QUALITIES = tuple(STEPS)
PARALLEL = 16
NOT_A_BUFFER = "a mixture of snapshots, not the replay buffer of their training"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A part of the data: a snapshot's file ("" = random actions) and its share of the steps."""

    file: str
    share: float


def sources_of(shipped: ShippedPolicies, quality: str) -> list[Source]:
    """Who acts in the data of a quality, and for what share of the steps."""
    if quality in ("expert", "medium"):
        return [Source(file=getattr(shipped, quality), share=1.0)]
    if quality == "medium-expert":
        return [Source(file=file, share=0.5) for file in (shipped.medium, shipped.expert)]
    if quality != "medium-replay":
        raise ValueError(f"quality is {quality!r}; known: {', '.join(QUALITIES)}")
    last = shipped.files.index(shipped.medium)
    files = ("", *shipped.files[: last + 1])
    times = np.array([0, shipped.random_steps, *shipped.env_steps[: last + 1]])
    shares = np.diff(times) / times[-1]
    return [Source(file=f, share=float(s)) for f, s in zip(files, shares, strict=True) if s > 0]


def build_locomotion(
    task: str,
    quality: str,
    seed: int,
    n_steps: int,
    on_progress: Callable[[int], None] | None = None,
    *,
    folder: str = "",
) -> EpisodeDataset:
    """At least ``n_steps`` steps in whole episodes.

    folder: of shipped policies, by default ``pretrained/sac/TASK``
    """
    if n_steps < 1:
        raise ValueError(f"{n_steps} steps asked for; a data set needs at least one")
    path = folder or f"pretrained/sac/{task}"
    shipped = ShippedPolicies.open(path)
    episodes, facts = [], []
    for index, source in enumerate(sources_of(shipped, quality)):
        before = sum(map(len, episodes))
        part = _collect(
            _policy_of(shipped, source),
            shipped.env,
            max(1, round(source.share * n_steps)),
            np.random.SeedSequence((seed, index)),
            None if on_progress is None else lambda done, b=before: on_progress(b + done),
        )
        episodes += part
        facts.append(
            {
                "policy": source.file or "random",
                "steps": sum(map(len, part)),
                "episodes": len(part),
                "return": round(float(np.mean([e.rewards.sum() for e in part])), 3),
            }
        )
    return EpisodeDataset.from_episodes(
        episodes,
        env=shipped.env,
        builder=f"{task}-{quality}",
        seed=seed,
        policy=path,
        behavior="actions drawn from the policies"
        + (f"; {NOT_A_BUFFER}" if quality == "medium-replay" else ""),
        sources=facts,
        score=behavior_score(episodes, shipped.env),
    )


def behavior_score(episodes: list[Episode], env_id: str) -> dict[str, Any]:
    """Mean normalized return of whole episodes with its 95 % interval, and their number."""
    reference = gymnasium.spec(env_id).kwargs.get("reference_returns")
    totals = [float(episode.rewards.sum()) for episode in episodes]
    scores = totals if reference is None else [normalized_score(t, reference) for t in totals]
    mean, low, high = mean_and_interval(scores)
    return {"mean": mean, "interval": [low, high] if len(scores) > 1 else None, "n": len(scores)}


def _policy_of(shipped: ShippedPolicies, source: Source) -> Policy:
    if source.file:
        return StochasticPolicy(shipped.load(source.file))
    box: Any = gymnasium.make(shipped.env, disable_env_checker=True).action_space
    return RandomPolicy(np.stack([box.low, box.high]))


def _collect(
    policy: Policy,
    env_id: str,
    n_steps: int,
    seeds: np.random.SeedSequence,
    on_progress: Callable[[int], None] | None,
) -> list[Episode]:
    """Episodes in the order of their seeds until they hold ``n_steps``."""
    episodes: list[Episode] = []
    make_env = partial(gymnasium.make, env_id, disable_env_checker=True)
    done = 0
    while done < n_steps:
        # the first wave is small: it tells how long episodes are
        mean = done / len(episodes) if episodes else n_steps
        n = min(PARALLEL, max(4 if n_steps > 1_000 else 1, round((n_steps - done) / mean)))
        (child,) = seeds.spawn(1)
        for episode in rollout(policy, make_env, n, int(child.generate_state(1)[0]), n_parallel=n):
            if done < n_steps:
                episodes.append(episode)
                done += len(episode)
        if on_progress is not None:
            on_progress(min(done, n_steps))
    return episodes


for _task in TASKS:
    for _quality in QUALITIES:

        @datasets.register(f"{_task}-{_quality}")
        def _build(
            seed: int = 0,
            n_steps: int = STEPS[_quality],
            on_progress: Callable[[int], None] | None = None,
            names: tuple[str, str] = (_task, _quality),
        ) -> EpisodeDataset:
            """Episodes of shipped SAC policies, in the manner of D4RL."""
            return build_locomotion(*names, seed, n_steps, on_progress)
