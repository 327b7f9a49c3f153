"""Models, starting points and true trajectories of Figures 4.2 to 4.4.

Thesis Section 4.4: models learn from trajectories of one trained policy and predict 100 steps from
a fixed starting point. The policy is the shipped expert of ``pretrained/sac/TASK``, its actions
drawn at random, the data ``TASK-expert``. Starting points lie 5 to 205 steps into fresh episodes;
from each, the simulator runs the policy anew for every true trajectory, so all are held out.

The ensemble acts with the policy itself (the true one) in the states it predicts, as PETS needs it;
the transformers predict actions as they predict everything else. Partially observed models see each
dimension with 50 % probability, at the start too; they are given the five transitions before it,
and what the Markov one can use of them is the last. ``robust`` learns with 20 % hidden and is shown
all: it cannot rely on a single dimension, which its own errors may have spoiled.

Differs from the thesis: Hopper and Walker2d instead of Humanoid; the factored transformer, which
learns more in the time that all models get; smaller networks. ``flat`` is the thesis's, smaller
still; Figure 4.4 shows its attention.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.config import Experiment, ModelConfig, TrainConfig
from forethought.data.tokenizers import Tokenizer
from forethought.models.dynamics import DynamicsConfig
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.gamma import StochasticPolicy
from forethought.models.token_config import TokenModelConfig
from forethought.models.transformer import TransformerConfig
from forethought.occupancy import Simulator, simulate, simulator_of
from forethought.recipes.transformer import training
from forethought.studies.base import StudySettings
from forethought.studies.gamma_truth import load_policy, open_dataset
from forethought.studies.marginals import Prefix
from forethought.types import Trajectory

TASKS = ("hopper", "walker2d")
STARTS = {"hopper": 6, "walker2d": 4}  # Walker2d's transitions are 23 tokens, Hopper's 14
STEPS, TRUTHS, PREFIXES = 100, 25, 1_000
HISTORY, WARM_UP = 5, 200
HIDDEN_SHARE = 0.5
CORE_SECONDS = 600.0

_TOKENS: dict[str, Any] = {
    "n_bins": 100,
    "tokenizer": "uniform",
    "reward_token": False,
    "return_token": "none",
    "depth": 3,
    "heads": 4,
    "dropout": 0.0,
}
_FULL = FactoredTransformerConfig(context=5, horizon=10, width=96, head_width=96, **_TOKENS)
# sees one transition besides the present one
_MARKOV = replace(_FULL, context=1, horizon=1)
MODELS: dict[str, ModelConfig] = {
    "transformer": _FULL,
    "markov": _MARKOV,
    "partial": replace(_FULL, hidden_share=HIDDEN_SHARE),
    "partial-markov": replace(_MARKOV, hidden_share=HIDDEN_SHARE),
    "robust": replace(_FULL, hidden_share=0.2),
    "flat": TransformerConfig(context=5, horizon=5, width=64, **_TOKENS),
    "ensemble": DynamicsConfig(members=5, width=200, layers=4),
}
CROP = {
    key: min(HISTORY + 1, model.window)
    for key, model in MODELS.items()
    if isinstance(model, TokenModelConfig)
}
"""transitions that a sampled sequence goes on with when it has outgrown the window"""


def data_name(task: str) -> str:
    """The registered data set that a task's models learn from."""
    return f"{task}-expert"


def experiment_of(task: str, key: str) -> Experiment:
    """One of ``MODELS`` on the task's data; its number of updates follows from the time."""
    model = MODELS[key]
    if isinstance(model, TokenModelConfig):
        transitions = 320 if isinstance(model, TransformerConfig) else 960
        train = training(1, batch_size=transitions // model.window, learning_rate=3e-3)
    else:
        train = TrainConfig(batch_size=1_280, learning_rate=1e-3, weight_decay=1e-5, ema_decay=0.0)
    return Experiment(
        name=f"prediction/{task}-{key}",
        dataset=data_name(task),
        env=f"forethought/{task}-v0",
        model=model,
        train=train,
    )


def bins_of(settings: StudySettings, task: str) -> Tokenizer:
    """The bins that the task's transformers have for observations."""
    dataset = open_dataset(settings, data_name(task))
    bins = Tokenizer(dataset.spaces.observation_dim, _FULL.n_bins, _FULL.tokenizer)
    bins.fit(dataset.observations)
    return bins


@dataclass(frozen=True, kw_only=True)
class Start:
    """A starting point: what came before it, and what the policy may do from it.

    state: (S,) of the simulator;  observation: (O,);  history: (1, HISTORY, dim)
    truths: (N, T, O) observations at steps 1 .. T, NaN after an episode's end
    """

    state: NDArray[np.float64]
    observation: Tensor
    history: Trajectory
    truths: Tensor

    def prefix(self, hidden_share: float, generator: torch.Generator) -> Prefix:
        """Without hiding, the state alone, which is all that matters then."""
        if not hidden_share:
            return Prefix(history=None, observation=self.observation)
        seen = torch.cat([self.history.observations[0], self.observation[None]])
        is_hidden = torch.rand(seen.shape, generator=generator) < hidden_share
        seen = seen.masked_fill(is_hidden, torch.nan)
        history = Trajectory(
            observations=seen[None, :-1], actions=self.history.actions, times=self.history.times
        )
        return Prefix(history=history, observation=seen[-1])


def pose_starts(
    settings: StudySettings, task: str, *, n_starts: int = 0, n_truths: int = TRUTHS
) -> list[Start]:
    """The same for all models of a task and seed; ``n_starts`` 0 = as many as ``STARTS`` says."""
    n_starts = n_starts or STARTS[task]
    simulator = simulator_of(f"forethought/{task}-v0")
    policy = load_policy(settings, task).explore
    seeds = np.random.SeedSequence((settings.seed, 42)).generate_state(2)
    generator = torch.Generator().manual_seed(int(seeds[0]))
    states, actions, lengths = _run(simulator, policy, n_starts, int(seeds[1]), generator)
    rng = np.random.default_rng(settings.seed)
    starts = []
    for index, length in enumerate(lengths):
        if length <= HISTORY:
            raise ValueError(
                f"the policy of {task} falls within {length} steps; predictions start after "
                f"{HISTORY}. Train it longer."
            )
        at = min(int(rng.integers(HISTORY, HISTORY + WARM_UP + 1)), int(length) - 1)
        before = torch.from_numpy(simulator.observe(states[at - HISTORY : at + 1, index])).float()
        history = Trajectory(
            observations=before[None, :-1],
            actions=torch.from_numpy(actions[at - HISTORY : at, index]).float()[None],
            times=torch.arange(HISTORY),
        )
        truths = run_policy(simulator, policy, states[at, index], n_truths, generator)
        starts.append(
            Start(state=states[at, index], observation=before[-1], history=history, truths=truths)
        )
    return starts


def run_policy(
    simulator: Simulator,
    policy: StochasticPolicy,
    state: NDArray[np.float64],
    n: int,
    generator: torch.Generator,
) -> Tensor:
    """(n, STEPS, O) independent true futures of a state, NaN after an end."""
    states = np.repeat(state[None], n, axis=0)
    seen = torch.from_numpy(simulator.observe(states)).float()
    futures = simulate(
        simulator,
        policy,
        states,
        policy(seen, generator).numpy().astype(np.float64),
        n_steps=STEPS,
        generator=generator,
    )
    over = torch.cat([torch.zeros(n, 1, dtype=torch.bool), futures.ended[:, :-1]], dim=1)
    return futures.observations.masked_fill(over[..., None], torch.nan)


def _run(
    simulator: Simulator, policy: StochasticPolicy, n: int, seed: int, generator: torch.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Episodes side by side: states (T + 1, n, S), actions (T, n, A), steps before the end (n,)."""
    states, actions = [simulator.draw_starts(n, seed)], []
    lengths, live = np.full(n, HISTORY + WARM_UP + 1), np.ones(n, dtype=bool)
    for step in range(HISTORY + WARM_UP):
        seen = torch.from_numpy(simulator.observe(states[-1])).float()
        actions.append(policy(seen, generator).numpy().astype(np.float64))
        reached, _, ended = simulator.advance(states[-1], actions[-1])
        lengths[live & ended] = step + 1
        live &= ~ended
        states.append(reached)
    return np.stack(states), np.stack(actions), lengths


def digest(starts: list[Start]) -> str:
    """Tells true trajectories from others: results compare only where it is equal."""
    joined = torch.cat([start.truths for start in starts]).numpy().tobytes()
    return hashlib.sha256(joined).hexdigest()[:16]
