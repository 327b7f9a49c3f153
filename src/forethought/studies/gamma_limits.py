"""Beyond the thesis's limits of gamma-models: 17 dimensions, and discounts of 0.99 and 0.995.

The thesis stops at about ten dimensions and below discount 0.99. Here every kind of model is
trained for the same processor time on data round a fixed policy of MuJoCo tasks and asked about
states of such episodes that it was not trained on. One model answers for all discounts where it
can: TD2-CFM with the discount as an input ("td2-all"), and an ensemble of one-step models rolled
out under the policy. Judged are

    distances    of samples to simulated occupancies, in standard deviations of the data
    value error  of V = E[r(s_e)] / (1 - discount) for rewards of the state reached, one of which
                 nobody trained for (Equation 3.6)

Simulation takes one draw for every discount from each rollout (``occupancy.sample_discounts``);
its two halves give the noise floor and together the reference values, with standard errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.checkpoint import WEIGHTS, find_checkpoint
from forethought.data.episodes import EpisodeDataset
from forethought.datasets.policies import visited_states
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.occupancy import sample_discounts, simulator_of
from forethought.recipes.gamma import MOST_DISCOUNT, gamma_experiment
from forethought.registry import studies
from forethought.scores import mean_and_interval
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_3 import FLOW, GANS, MATCHING, TUNED
from forethought.studies.gamma_limits_show import markdown, plot
from forethought.studies.gamma_truth import (
    distances,
    load_policy,
    open_dataset,
    pose,
    spread_of,
    trained,
    trained_model,
)

Array = NDArray[np.float64]
Reward = Callable[[Tensor], Tensor]

DISCOUNTS = (0.9, 0.99, 0.995)
CORE_SECONDS = 120.0  # of training, for every model
QUESTIONS, DRAWS = 8, 500  # draws: of a model, and of each half of the simulation
VALUE_DRAWS = 4_000  # of a model, for values: its sampling error is multiplied by the horizon
NEW = 1_000  # added to the seed: the data were made with small ones
COMPARISON: dict[str, dict[str, Any]] = {
    "td2": {"model": MATCHING},
    "flow": TUNED,
    "flow-regression": {"model": FLOW},
    "gan": GANS["gan-least-squares-0.001"],
}
ENSEMBLE = DynamicsConfig(members=5, width=200, layers=3)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with a policy in ``pretrained/sac``.

    rewards: name -> what it is, and the function (.., O) -> (..) of the state reached
    ends: whether the process can end by itself; it then stays where it is, and is paid there
    minutes: of simulation, about
    """

    dim: int
    rewards: dict[str, tuple[str, Reward]]
    ends: bool = False
    minutes: float = 4.0


def _forward(place: int) -> tuple[str, Reward]:
    return "forward velocity", lambda s: s[..., place]


TASKS = {
    "reacher": Task(
        dim=10,
        rewards={
            "task": ("minus the distance to the target", lambda s: -s[..., 8:10].norm(dim=-1)),
            "unseen": ("how far up the fingertip is", lambda s: s[..., 5] + s[..., 9]),
        },
    ),
    "halfcheetah": Task(
        dim=17,
        rewards={
            "task": _forward(8),
            "unseen": ("how level the torso is", lambda s: s[..., 1].cos()),
        },
        minutes=5.0,
    ),
    "pendulum": Task(
        dim=3,
        rewards={
            "task": (
                "minus the squared angle and velocity",
                lambda s: -(torch.atan2(s[..., 1], s[..., 0]) ** 2 + 0.1 * s[..., 2] ** 2),
            ),
            "unseen": ("how far left the tip is", lambda s: (-s[..., 1]).clamp(min=0)),
        },
        minutes=0.5,
    ),
    "hopper": Task(
        dim=11,
        rewards={"task": _forward(5), "unseen": ("height of the torso", lambda s: s[..., 0])},
        ends=True,
        minutes=8.0,
    ),
}


@studies.register("gamma-limits")
def gamma_limits() -> Study:
    """Gamma-models in 10 and 17 dimensions, at discounts to 0.995."""
    parts = []
    for task, facts in TASKS.items():
        parts.append(
            Part(name=f"{task}-truth", minutes=facts.minutes, compute=partial(truth, task=task))
        )
        asked = [(f"{kind}-{at:g}", kind, (at,)) for at in DISCOUNTS for kind in COMPARISON]
        asked += [("td2-all", "td2-all", DISCOUNTS), ("single-step", "single-step", DISCOUNTS)]
        parts += [
            Part(
                name=f"{task}-{name}",
                minutes=CORE_SECONDS / 60 + 0.3,
                compute=partial(modelled, task=task, kind=kind, discounts=discounts),
            )
            for name, kind, discounts in asked
        ]
    return Study(
        title="Limits of gamma-models: 10 and 17 dimensions, discounts to 0.995",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What simulation says of B questions at D discounts, n draws in each half; R rewards.

    observation (B, O), action (B, A);  first, second: (D, B, n, O)
    values, errors: (R, D, B), from all rollouts, and their standard errors
    """

    observation: Tensor
    action: Tensor
    first: Tensor
    second: Tensor
    values: Tensor
    errors: Tensor


def simulated(settings: StudySettings, task: str) -> Truth:
    """The truth of the task's questions, kept in ``settings.runs``: all models share it."""
    count = f"{QUESTIONS}x{DRAWS}-{'-'.join(f'{at:g}' for at in DISCOUNTS)}"
    name = f"gamma-limits-{task}-{fingerprint(settings, task)}-seed{settings.seed}-{count}.npz"
    file = settings.runs / name
    if not file.exists():
        _simulate(settings, task, file)
    with np.load(file) as kept:
        return Truth(**{name: torch.from_numpy(kept[name]) for name in kept.files})


def _simulate(settings: StudySettings, task: str, file: Path) -> None:
    simulator, policy = simulator_of(f"forethought/{task}-v0"), load_policy(settings, task)
    seed = NEW + settings.seed
    states = visited_states(task, simulator, policy, n=QUESTIONS, seed=seed)
    questions = pose(simulator, policy, states, seed)
    draws = sample_discounts(
        simulator,
        policy.explore,
        states,
        questions.action.double().numpy(),
        discounts=DISCOUNTS,
        n_samples=2 * DRAWS,
        rewards=[reward for _, reward in TASKS[task].rewards.values()],
        generator=torch.Generator().manual_seed(seed),
    )
    values, errors = draws.values()
    first, second = draws.states.split(DRAWS, dim=2)
    found = Truth(
        observation=questions.observation,
        action=questions.action,
        first=first,
        second=second,
        values=values,
        errors=errors,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}")  # whole or not there
    np.savez(scratch, **{name: tensor.numpy() for name, tensor in vars(found).items()})
    scratch.replace(file)


def fingerprint(settings: StudySettings, task: str) -> str:
    """Of the policy: what was made for another one must not be taken for this one's."""
    weights = find_checkpoint(settings.pretrained / "sac" / task) / WEIGHTS
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


def truth(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """Noise floors and reference values, one row a discount."""
    found = simulated(settings, task)
    spread = spread_of(open_dataset(settings, f"{task}-policy"))
    rows = []
    for index, discount in enumerate(DISCOUNTS):
        values = {
            name: {
                "values": _rounded(found.values[row, index]),
                "standard_errors": _rounded(found.errors[row, index]),
                "spread": float(found.values[row, index].std()),
            }
            for row, name in enumerate(TASKS[task].rewards)
        }
        floor = distances(found.first[index], found.second[index], spread)
        rows.append({"discount": discount, "floor": floor, "values": values})
    return {
        "dim": TASKS[task].dim,
        "questions": QUESTIONS,
        "draws": DRAWS,
        "rewards": {name: label for name, (label, _) in TASKS[task].rewards.items()},
        "policy": _policy_facts(settings, task),
        "unit": "standard deviations of the data in each observation dimension",
        "rows": rows,
    }


def _policy_facts(settings: StudySettings, task: str) -> dict[str, Any]:
    folder = find_checkpoint(settings.pretrained / "sac" / task)
    facts = json.loads((folder / "training.json").read_text())
    known = {name: facts.get(name) for name in ("env_steps", "updates", "return", "score")}
    return {**known, "fingerprint": fingerprint(settings, task)}


def modelled(
    settings: StudySettings, *, task: str, kind: str, discounts: tuple[float, ...]
) -> dict[str, Any]:
    """A model, trained for the common time, and what it is off at ``discounts``."""
    found = simulated(settings, task)
    dataset = open_dataset(settings, f"{task}-policy")
    ask = _single_step if kind == "single-step" else _gamma_model
    answers, values, training = ask(settings, task, kind, discounts, found)
    rows = []
    for row, discount in enumerate(discounts):
        index = DISCOUNTS.index(discount)
        errors = values[:, row] - found.values[:, index]  # (R, B)
        rows.append(
            {
                "discount": discount,
                "distance": distances(answers[row], found.first[index], spread_of(dataset)),
                "values": dict(zip(TASKS[task].rewards, map(_value_row, errors), strict=True)),
            }
        )
    facts = {"training_seed": 0, "draws": DRAWS, "value_draws": VALUE_DRAWS}
    if kind == "single-step":
        facts["value_draws"] = DRAWS
    return {"kind": kind, "training": training, **facts, "rows": rows}


def _value_row(errors: Tensor) -> dict[str, Any]:
    mean, low, high = mean_and_interval(errors.abs().tolist())
    return {"errors": _rounded(errors), "mean": mean, "interval": [low, high]}


Answer = tuple[list[Tensor], Tensor, dict[str, Any]]
"""samples (B, DRAWS, O) for each discount, values (R, discounts, B), what training cost"""


def _gamma_model(
    settings: StudySettings, task: str, kind: str, discounts: tuple[float, ...], true: Truth
) -> Answer:
    """One pass: samples, and the mean reward of more of them over 1 - discount."""
    is_all = kind == "td2-all"
    change: Mapping[str, Any] = COMPARISON["td2" if is_all else kind]
    own = {"most_discount": MOST_DISCOUNT} if is_all else {"discount": discounts[0]}
    network = kind if is_all else kind.split("-")[0]
    model, training = trained_model(
        settings,
        f"gamma/{task}-{network}",
        key=_key(settings, task, kind, () if is_all else discounts),
        core_seconds=CORE_SECONDS,
        model={**change["model"], **own},
        train=change.get("train"),
    )
    answers, values = [], []
    for discount in discounts:
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = model.sample(
            true.observation, true.action, VALUE_DRAWS, generator, discount=discount
        )
        answers.append(drawn[:, :DRAWS])
        rewards = [reward(drawn).mean(dim=-1) for _, reward in TASKS[task].rewards.values()]
        values.append(torch.stack(rewards).double() / (1 - discount))
    return answers, torch.stack(values, dim=1), training


def _single_step(
    settings: StudySettings, task: str, kind: str, discounts: tuple[float, ...], true: Truth
) -> Answer:
    """Rollouts of the one-step ensemble under the policy, as in the simulation."""
    experiment = gamma_experiment(
        f"gamma-limits/{task}-{kind}",
        f"{task}-policy",
        f"forethought/{task}-v0",
        replace(ENSEMBLE, learn_termination=TASKS[task].ends),
        steps=1,  # replaced by what fits the time
    )
    key = _key(settings, task, kind, ())
    model, training = trained(settings, experiment, key=key, core_seconds=CORE_SECONDS)
    assert isinstance(model, Dynamics), "it is one"
    generator = torch.Generator().manual_seed(settings.seed)
    dataset = open_dataset(settings, f"{task}-policy")
    draws = sample_discounts(
        LearnedProcess(model, dataset, generator),
        load_policy(settings, task).explore,
        true.observation.double().numpy(),
        true.action.double().numpy(),
        discounts=discounts,
        n_samples=DRAWS,
        rewards=[reward for _, reward in TASKS[task].rewards.values()],
        generator=generator,
    )
    return list(draws.states), draws.values()[0], training


class LearnedProcess:
    """A one-step model as a process; its states are observations, kept within the data's range
    (else some of the longest rollouts run away to infinity)."""

    def __init__(
        self, model: Dynamics, dataset: EpisodeDataset, generator: torch.Generator
    ) -> None:
        self.model, self.generator = model, generator
        self.low, self.high = dataset.observations.min(axis=0), dataset.observations.max(axis=0)

    def advance(self, states: Array, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        here, taken = torch.from_numpy(states).float(), torch.from_numpy(actions).float()
        reached, rewards, ended = self.model.advance(here, taken, self.generator)
        kept = np.clip(reached.double().numpy(), self.low, self.high)
        return kept, rewards.double().numpy(), ended.numpy()

    def observe(self, states: Array) -> Array:
        return states


def _key(settings: StudySettings, task: str, kind: str, discounts: tuple[float, ...]) -> str:
    """Of a model's folder."""
    parts = ["limits", task, fingerprint(settings, task), kind, *(f"{at:g}" for at in discounts)]
    return "-".join(parts)


def _rounded(values: Tensor) -> list[float]:
    return np.round(values.double().numpy(), 4).tolist()
