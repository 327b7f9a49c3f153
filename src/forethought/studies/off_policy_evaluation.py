"""Off-policy evaluation: what is another policy worth, from logged steps alone?

Pendulum. The logs are ``pendulum-policy``; the policies asked about are the shipped one and others
made from it by changing its network's last layer (weaker, stronger, biased, noisier, reversed), so
that their returns spread from solved to hopeless. None of them is run before it has been judged::

    gamma-model   for each policy one TD2-CFM that bootstraps with its actions and knows nothing of
                  rewards; V = E[r(s_e)] / (1 - discount) over start states (Equation 3.6)
    fitted Q      a network for each policy, discount and reward (``fitted_q.py``)
    rollouts      one ensemble of single steps for all policies, rolled out under each
    data          the mean discounted return of the logged episodes, whoever is asked about

Rewards are of the state arrived in; values are of the distribution of starts. The truth is the mean
of simulated returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forethought.agents.sac import SAC
from forethought.checkpoint import CONFIG, find_checkpoint, load_model, save_model, write_text
from forethought.data.episodes import EpisodeDataset
from forethought.envs.pendulum import PendulumEnv
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.models.gamma_base import draw_actions
from forethought.occupancy import ClosedFormSimulator, sample_discounts, simulate, steps_until
from forethought.recipes.gamma import MOST_DISCOUNT, gamma_experiment
from forethought.registry import studies
from forethought.scores import mean_and_interval
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_3 import MATCHING
from forethought.studies.fitted_q import FittedQ
from forethought.studies.gamma_limits import LearnedProcess
from forethought.studies.gamma_truth import open_dataset, trained, trained_model
from forethought.studies.off_policy_evaluation_show import markdown, plot

TASK, DISCOUNTS = "pendulum", (0.95, 0.99)
STARTS, DRAWS, ROLLOUT_DRAWS = 500, 16, 2  # start states; draws at each, of a model
GAMMA_SECONDS, Q_SECONDS, MODEL_SECONDS = 100.0, 50.0, 100.0  # of one core
SEED = 3_000  # added to the seed: of the starts
ENSEMBLE = DynamicsConfig(members=4, width=128, layers=2)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Of a policy u = tanh(mean + std * noise): the mean becomes gain * mean + shift, and log std
    grows by ``noise``."""

    label: str
    gain: float = 1.0
    shift: float = 0.0
    noise: float = 0.0


POLICIES = {
    "shipped": Change(label="the shipped policy"),
    "half": Change(label="half as strong", gain=0.5),
    "quarter": Change(label="a quarter as strong", gain=0.25),
    "biased": Change(label="pushed to one side", shift=0.7),
    "noisy": Change(label="noisier", noise=2.0),
    "idle": Change(label="nearly idle", gain=0.05),
    "reversed": Change(label="reversed", gain=-1.0),
}


@studies.register("off-policy-evaluation")
def off_policy_evaluation() -> Study:
    """Values of seven policies from the logs of others."""
    parts = [Part(name="data", minutes=0.1, compute=data_return)]
    for policy in POLICIES:
        parts += [
            Part(name=f"{policy}-truth", minutes=0.3, compute=partial(truth, policy=policy)),
            Part(name=f"{policy}-gamma", minutes=2.0, compute=partial(by_gamma, policy=policy)),
            Part(name=f"{policy}-fitted-q", minutes=2.0, compute=partial(by_q, policy=policy)),
            Part(name=f"{policy}-rollouts", minutes=0.8, compute=partial(by_model, policy=policy)),
        ]
    return Study(
        title="Off-policy evaluation: Pendulum policies from the logs of others",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def reward(observations: Tensor) -> Tensor:
    """(..,) the task's reward of the states arrived in (.., 3)."""
    rewards = PendulumEnv(reward="arrival").arrival_rewards(observations.double().numpy())
    return torch.from_numpy(np.asarray(rewards)).float()


def write_policy(settings: StudySettings, name: str) -> Path:
    """A checkpoint folder with the changed policy, made from the shipped one."""
    source = find_checkpoint(settings.pretrained / "sac" / TASK)
    folder = settings.runs / "off-policy-evaluation" / "policies" / name
    if not folder.exists():
        folder.mkdir(parents=True)
        write_text(folder / CONFIG, (source / CONFIG).read_text(encoding="utf-8"))
        model = load_model(source)
        assert isinstance(model, SAC), "the shipped policies are"
        change_policy(model, POLICIES[name])
        save_model(folder, model.actor_state())
    return folder


def change_policy(model: SAC, change: Change) -> None:
    """Change the last layer in place; its rows are means, then log deviations."""
    last = model.policy[-1]
    assert isinstance(last, torch.nn.Linear), "a perceptron ends with one"
    actions = model.spaces.action_dim
    with torch.no_grad():
        last.weight[:actions] *= change.gain
        last.bias[:actions] = change.gain * last.bias[:actions] + change.shift
        last.bias[actions:] += change.noise


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Where values are asked: states (n, S), observations (n, O), the policy's actions (n, A)."""

    policy: SAC
    states: np.ndarray
    observation: Tensor
    action: Tensor


def _starts(settings: StudySettings, policy: str) -> Starts:
    simulator = ClosedFormSimulator(PendulumEnv(reward="arrival"))
    states = simulator.draw_starts(STARTS, SEED + settings.seed)
    observation = torch.from_numpy(simulator.observe(states)).float()
    model = load_model(write_policy(settings, policy))
    assert isinstance(model, SAC), "it was changed from one"
    action = model.explore(observation, torch.Generator().manual_seed(settings.seed))
    return Starts(policy=model, states=states, observation=observation, action=action)


def truth(settings: StudySettings, *, policy: str) -> dict[str, Any]:
    """Simulated returns of the policy."""
    starts = _starts(settings, policy)
    futures = simulate(
        ClosedFormSimulator(PendulumEnv(reward="arrival")),
        starts.policy.explore,
        starts.states,
        starts.action.double().numpy(),
        n_steps=steps_until(max(DISCOUNTS)),
        generator=torch.Generator().manual_seed(SEED + settings.seed),
    )
    return {"starts": STARTS, "rows": [_row(at, futures.values(at)) for at in DISCOUNTS]}


def by_gamma(settings: StudySettings, *, policy: str) -> dict[str, Any]:
    """One pass of a gamma-model of the policy, the discount being an input."""
    starts = _starts(settings, policy)
    model, training = trained_model(
        settings,
        f"gamma/{TASK}-td2-all",
        key=f"ope-{policy}",
        core_seconds=GAMMA_SECONDS,
        model={
            **MATCHING,
            "most_discount": MOST_DISCOUNT,
            "policy": str(write_policy(settings, policy)),
        },
    )
    rows = []
    for discount in DISCOUNTS:
        noise = torch.Generator().manual_seed(settings.seed)
        drawn = model.sample(starts.observation, starts.action, DRAWS, noise, discount=discount)
        rows.append(_row(discount, reward(drawn).mean(dim=1) / (1 - discount)))
    return {"training": training, "draws": DRAWS, "rows": rows}


def by_q(settings: StudySettings, *, policy: str) -> dict[str, Any]:
    """A Q network for each discount."""
    starts, dataset = _starts(settings, policy), _logs(settings)
    actions = draw_actions(str(write_policy(settings, policy)), dataset)
    rows, steps = [], []
    for discount in DISCOUNTS:
        network = FittedQ(dataset, actions, reward, discount, settings.seed)
        steps.append(network.train(Q_SECONDS))
        rows.append(_row(discount, network.values(starts.observation, starts.action)))
    return {"training": {"steps": steps, "core_seconds": Q_SECONDS}, "rows": rows}


def by_model(settings: StudySettings, *, policy: str) -> dict[str, Any]:
    """Rollouts of learned single steps; the ensemble is trained once for all policies."""
    starts, dataset = _starts(settings, policy), _logs(settings)
    experiment = gamma_experiment(
        f"off-policy-evaluation/{TASK}",
        f"{TASK}-policy",
        f"forethought/{TASK}-v0",
        ENSEMBLE,
        steps=1,  # replaced by what fits the time
    )
    model, training = trained(
        settings, experiment, key="ope-single-step", core_seconds=MODEL_SECONDS
    )
    assert isinstance(model, Dynamics), "it is one"
    generator = torch.Generator().manual_seed(settings.seed)
    draws = sample_discounts(
        LearnedProcess(model, dataset, generator),
        starts.policy.explore,
        starts.observation.double().numpy(),
        starts.action.double().numpy(),
        discounts=DISCOUNTS,
        n_samples=ROLLOUT_DRAWS,
        rewards=[reward],
        generator=generator,
    )
    means = draws.returns[0].mean(dim=-1)  # (discounts, starts)
    rows = [_row(discount, values) for discount, values in zip(DISCOUNTS, means, strict=True)]
    return {"training": training, "draws": ROLLOUT_DRAWS, "rows": rows}


def data_return(settings: StudySettings) -> dict[str, Any]:
    """Discounted returns of the logged episodes; cut off at their ends, and scaled up for that."""
    dataset = _logs(settings)
    earned = reward(torch.from_numpy(np.array(dataset.observations))).double()
    rows = []
    for discount in DISCOUNTS:
        values = []
        for first, last in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
            weights = discount ** torch.arange(last - first - 1, dtype=torch.float64)
            seen = (1 - discount) * weights.sum()
            values.append(weights @ earned[first + 1 : last] / seen)
        rows.append(_row(discount, torch.stack(values)))
    return {"episodes": len(dataset), "rows": rows}


def _logs(settings: StudySettings) -> EpisodeDataset:
    return open_dataset(settings, f"{TASK}-policy")


def _row(discount: float, values: Tensor) -> dict[str, Any]:
    mean, low, high = mean_and_interval(values.double().tolist())
    numbers = {"value": mean, "interval": [low, high]}
    return {"discount": discount, **_rounded(numbers)}


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.round(value, 4).tolist() for name, value in numbers.items()}
