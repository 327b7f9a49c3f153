"""Episodes round a trained policy, for gamma-models of it: ``TASK-policy``.

Thesis Section 3.6 learns from the replay buffer of a soft actor-critic run, a mixture of all its
policies. These data sets are rebuilt in seconds from the final policy alone, shipped in
``pretrained/sac``, disturbed in ways that make up for the policies that are not there:

    a quarter    the policy's own random actions
    a quarter    plus Gaussian noise, its deviation drawn up to half of the range of actions
    half         random actions take over now and then, each held for some steps: the share of
                 steps is drawn up to 1, the mean length of a stretch up to 10 steps

and where the task allows it (not in MuJoCo) a quarter of the episodes of each kind starts anywhere.
What a true replay buffer has and these lack: the directed mistakes of half-trained policies.

``TASK-everywhere``, where the task allows it, disturbs the same way but has short episodes, all of
which start anywhere: for questions about all states alike, such as value maps. The episodes of
``TASK-policy`` soon are where the policy leads, and leave corners of the state space all but empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from forethought.checkpoint import find_checkpoint, load_model
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.base import Explorer, require
from forethought.occupancy import Simulator, simulator_of
from forethought.registry import datasets

Array = NDArray[np.float64]

PI = float(np.pi)
# the box that a quarter of the starts is drawn from; None = where the task starts by itself
ANYWHERE: dict[str, tuple[list[float], list[float]] | None] = {
    "pendulum": ([-PI, -8.0], [PI, 8.0]),
    "acrobot": ([-PI, -PI, -4.0, -8.0], [PI, PI, 4.0, 8.0]),
    "mountain-car": ([-1.2, -0.07], [0.6, 0.07]),
    "reacher": None,
    "hopper": None,
    "walker2d": None,
    "halfcheetah": None,
}
ALONE, NOISY, MOST_NOISE, LONGEST, SPREAD = 0.25, 0.25, 0.5, 10.0, 0.25
SHORT = 20  # steps of an episode of ``TASK-everywhere``


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """What is done to the policy's actions in each of n episodes, all arrays (n,).

    noise: Gaussian, as a share of the range of actions;  share: of the steps taken at random
    length: mean number of steps that a random action, or its absence, lasts
    """

    noise: Array
    share: Array
    length: Array

    @classmethod
    def draw(cls, n: int, generator: np.random.Generator) -> Disturbances:
        """The mixture of the module's docstring."""
        kind = generator.random(n)
        is_noisy = (kind >= ALONE) & (kind < ALONE + NOISY)
        return cls(
            noise=generator.uniform(0, MOST_NOISE, n) * is_noisy,
            share=generator.random(n) * (kind >= ALONE + NOISY),
            length=generator.uniform(1, LONGEST, n),
        )


def build_policy_data(
    task: str,
    seed: int,
    n_steps: int,
    on_progress: Callable[[int], None] | None = None,
    *,
    everywhere: bool = False,
) -> EpisodeDataset:
    """About ``n_steps`` steps in whole episodes, all run side by side: of the task's time limit, or
    short and from everywhere."""
    env_id, path = f"forethought/{task}-v0", f"pretrained/sac/{task}"
    length = SHORT if everywhere else _limit_of(task)
    n = max(1, round(n_steps / length))
    policy = require(load_model(find_checkpoint(path)), Explorer, needed_by=f"{task}-policy")
    episodes = disturbed_episodes(
        task,
        simulator_of(env_id),
        policy,
        n=n,
        seed=seed,
        length=length,
        spread=1.0 if everywhere else SPREAD,
        on_step=None if on_progress is None else lambda step: on_progress(step * n),
    )
    return EpisodeDataset.from_episodes(
        episodes,
        env=env_id,
        builder=f"{task}-{'everywhere' if everywhere else 'policy'}",
        seed=seed,
        policy=path,
        behavior="the policy, alone, with Gaussian noise, or with stretches of random actions; "
        "not the replay buffer of its training",
    )


def disturbed_episodes(
    task: str,
    simulator: Simulator,
    policy: Explorer,
    *,
    n: int,
    seed: int,
    length: int = 0,
    spread: float = SPREAD,
    on_step: Callable[[int], None] | None = None,
) -> list[Episode]:
    """``n`` episodes of the mixture, of ``length`` steps (0: the task's time limit); a share
    ``spread`` of them starts anywhere, where the task allows it."""
    generator = np.random.default_rng(seed)
    states = simulator.draw_starts(n, seed)
    if (box := ANYWHERE[task]) is not None:
        is_spread = generator.random(n) < spread
        states[is_spread] = generator.uniform(*box, (n, states.shape[1]))[is_spread]
    space = gymnasium.make(f"forethought/{task}-v0", disable_env_checker=True).action_space
    assert isinstance(space, gymnasium.spaces.Box), "the registered tasks have a box of actions"
    return run_disturbed(
        simulator,
        policy,
        states,
        Disturbances.draw(n, generator),
        action_box=np.stack([space.low, space.high]).astype(np.float64),
        n_steps=length or _limit_of(task),
        generator=generator,
        on_step=on_step,
    )


def visited_states(
    task: str, simulator: Simulator, policy: Explorer, *, n: int, seed: int
) -> Array:
    """(n, S) states of the simulator, from n episodes of the mixture, each at a random time."""
    recorder = _Recorder(simulator)
    episodes = disturbed_episodes(task, recorder, policy, n=n, seed=seed)
    lengths = np.array([len(episode) for episode in episodes])
    times = np.random.default_rng([seed, n]).integers(lengths)
    return np.stack([recorder.seen[time][row] for row, time in enumerate(times)])


class _Recorder:
    """A simulator that keeps the states it is asked to observe: one array (n, S) a step."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.seen: list[Array] = []

    def draw_starts(self, n: int, seed: int) -> Array:
        return self.simulator.draw_starts(n, seed)

    def advance(self, states: Array, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        return self.simulator.advance(states, actions)

    def observe(self, states: Array) -> Array:
        self.seen.append(states.copy())
        return self.simulator.observe(states)


def _limit_of(task: str) -> int:
    limit = gymnasium.spec(f"forethought/{task}-v0").max_episode_steps
    assert limit is not None, "the registered tasks have a time limit"
    return limit


def run_disturbed(  # noqa: PLR0913  who acts where, how disturbed, and for how long
    simulator: Simulator,
    policy: Explorer,
    states: Array,
    disturbances: Disturbances,
    *,
    action_box: Array,
    n_steps: int,
    generator: np.random.Generator,
    on_step: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Episodes of ``n_steps`` from states (n, S), or shorter where the process ends.

    action_box: (2, A), the lowest and the highest action
    """
    n, (low, high) = len(states), action_box
    draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
    is_random = generator.random(n) < disturbances.share
    held = generator.uniform(low, high, (n, len(low)))
    lengths, terminated = np.full(n, n_steps), np.zeros(n, dtype=bool)
    observations, actions, rewards = [simulator.observe(states)], [], []
    for step in range(n_steps):
        current = torch.from_numpy(observations[-1].astype(np.float32))
        action = policy.explore(current, draws).numpy().astype(np.float64)
        noise = generator.standard_normal(action.shape) * (high - low) * 0.5
        action = np.clip(action + disturbances.noise[:, None] * noise, low, high)
        action = np.where(is_random[:, None], held, action).astype(np.float32)
        live = np.flatnonzero(~terminated)
        reached, earned = states.copy(), np.zeros(n)
        reached[live], earned[live], terminated[live] = simulator.advance(
            states[live], action[live].astype(np.float64)
        )
        lengths[live[terminated[live]]] = step + 1
        states = reached
        observations.append(simulator.observe(states))
        actions.append(action)
        rewards.append(earned)
        renewed = generator.random(n) < 1 / disturbances.length
        is_random = np.where(renewed, generator.random(n) < disturbances.share, is_random)
        fresh = generator.uniform(low, high, held.shape)
        held = np.where(renewed[:, None], fresh, held)
        if on_step is not None:
            on_step(step + 1)
    seen = np.stack(observations, axis=1).astype(np.float32)
    taken, paid = np.stack(actions, axis=1), np.stack(rewards, axis=1).astype(np.float32)
    return [
        Episode(seen[i, : k + 1], taken[i, :k], paid[i, :k], bool(terminated[i]))
        for i, k in enumerate(lengths)
    ]


for _task in ANYWHERE:

    @datasets.register(f"{_task}-policy")
    def _build(
        seed: int = 0,
        n_steps: int = 200_000,
        on_progress: Callable[[int], None] | None = None,
        task: str = _task,
    ) -> EpisodeDataset:
        """A trained policy with various disturbances, for gamma-models of it."""
        return build_policy_data(task, seed, n_steps, on_progress)


for _task, _box in ANYWHERE.items():
    if _box is not None:

        @datasets.register(f"{_task}-everywhere")
        def _build_everywhere(
            seed: int = 0,
            n_steps: int = 200_000,
            on_progress: Callable[[int], None] | None = None,
            task: str = _task,
        ) -> EpisodeDataset:
            """The same in short episodes from anywhere."""
            return build_policy_data(task, seed, n_steps, on_progress, everywhere=True)
