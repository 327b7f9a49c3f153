"""Scoring a gamma-model: its samples against occupancies by simulation, and values against returns.

At each of a number of state-action pairs that the policy gets into, ``samples`` states are drawn
from the model and twice as many from the simulator, in two independent halves. The distance between
the model and the first half stands beside that between the halves, the noise floor: no model can be
told from the truth below it. Distances are in standard deviations: every dimension is divided by
its deviation over the states that lead from episodes' starts to those pairs.

Values are of the environment's reward of the state arrived in, E[r(s_e)] / (1 - discount) (thesis
Eq. 3.6), against the same mean over the simulator's states of both halves.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from forethought.checkpoint import (
    Device,
    current_commit,
    find_checkpoint,
    find_device,
    hardware,
    load_config,
    load_model,
    write_result,
)
from forethought.config import Experiment, to_json
from forethought.distances import energy_distance, sliced_wasserstein
from forethought.envs.closed_form import ClosedFormEnv
from forethought.envs.linear import LinearEnv
from forethought.models.base import OccupancyModel, require
from forethought.models.gamma import StochasticPolicy
from forethought.models.gamma_base import GammaConfig, GammaModel, stochastic_policy
from forethought.occupancy import Simulator, sample_occupancy, simulator_of
from forethought.prediction_tables import COLUMNS, prediction_cells
from forethought.scores import mean_and_interval

WANDERING = 50  # most steps from an episode's start to a pair asked about


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How many questions, and how many draws for each."""

    pairs: int = 16
    """state-action pairs, on the policy's way"""
    samples: int = 1000
    """states drawn for each from the model, and twice as many from the simulator"""
    discounts: tuple[float, ...] = ()
    """of a model that has the discount as an input; default: the model's own"""
    seed: int = 0
    device: Device = "cpu"

    def __post_init__(self) -> None:
        if self.pairs < 2 or self.samples < 2:
            raise ValueError(
                f"--pairs is {self.pairs} and --samples {self.samples}; both must be at least 2"
            )


@dataclass(frozen=True)
class Questions:
    """Pairs (P,) to predict from: states (P, S) of the simulator, observations, actions.

    unit: (O,) standard deviation of the observations on the way to them
    """

    states: NDArray[np.float64]
    observation: Tensor
    action: Tensor
    unit: Tensor


def evaluate_predictions(
    path: Path, settings: PredictionSettings, out: Path | None, console: Console
) -> dict[str, Any]:
    """Measure a gamma-model's checkpoint against its environment; write and print."""
    config = load_config(path)
    experiment: Experiment = config["experiment"]
    loaded = load_model(path).to(find_device(settings.device))
    model = require(loaded, OccupancyModel, needed_by="an evaluation of predictions")
    assert isinstance(model, GammaModel), "the only occupancy models"
    began = time.perf_counter()
    simulator, policy = _truth_of(experiment)
    questions = draw_questions(simulator, policy, settings.pairs, settings.seed)
    rewards = _arrival_rewards(experiment.env)
    rows = []
    for discount in settings.discounts or (model.discount,):
        console.print(f"discount {discount:g}: simulating {2 * settings.samples} states a pair ...")
        rows.append(compare(model, simulator, policy, questions, rewards, discount, settings))
    wall = round(time.perf_counter() - began, 1)
    data = {
        "kind": "prediction",
        "recipe": experiment.name,
        "rows": rows,
        "protocol": _protocol(path, config, settings) | {"wall_seconds": wall},
    }
    task = experiment.env.split("/")[-1].removesuffix("-v0")
    out = out or path / "evaluation" / f"{task}-seed{settings.seed}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_result(out, data)
    _print(data, console)
    console.print(f"written to {out}")
    return data


def draw_questions(simulator: Simulator, policy: StochasticPolicy, n: int, seed: int) -> Questions:
    """n pairs: up to WANDERING steps into episodes, short of their end, with the policy's action"""
    noise, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    states = simulator.draw_starts(n, seed)
    steps, visited = noise.integers(WANDERING, size=n), [simulator.observe(states)]
    for step in range(WANDERING):
        live = np.flatnonzero(steps > step)
        if not len(live):
            break
        reached, _, ended = simulator.advance(
            states[live], _act(simulator, policy, states[live], generator).numpy()
        )
        states[live[~ended]] = reached[~ended]
        steps[live[ended]] = 0
        visited.append(simulator.observe(states[live]))
    unit = torch.from_numpy(np.concatenate(visited).std(axis=0)).float()
    observation = torch.from_numpy(simulator.observe(states)).float()
    unit = torch.where(unit > 1e-6, unit, 1.0)  # what never moves
    return Questions(states, observation, policy(observation, generator), unit)


@torch.no_grad()
def compare(  # noqa: PLR0913  what is compared, on which questions, by which reward
    model: GammaModel,
    simulator: Simulator,
    policy: StochasticPolicy,
    questions: Questions,
    rewards: Any,
    discount: float,
    settings: PredictionSettings,
) -> dict[str, Any]:
    """One row: distances and their floor, value errors and theirs; means over pairs, intervals."""
    generator = torch.Generator().manual_seed(settings.seed)
    device = next(model.parameters()).device
    model_noise = torch.Generator(device).manual_seed(settings.seed)
    ask = {"discount": discount} if discount != model.discount else {}
    n, began = settings.samples, time.perf_counter()
    drawn = model.sample(questions.observation, questions.action, n, model_noise, **ask).cpu()
    model_seconds = time.perf_counter() - began
    truth = sample_occupancy(
        simulator,
        policy,
        questions.states,
        questions.action.numpy().astype(np.float64),
        discount=discount,
        n_samples=2 * n,
        generator=generator,
        terminal_flag=model.gamma_config.terminal_flag,
    )
    row = {"discount": discount, "sample_seconds": round(model_seconds, 4)}
    unit = questions.unit
    if model.gamma_config.terminal_flag:
        unit = torch.cat([unit, torch.ones(1)])
    row |= _distances(drawn, truth, unit, generator)
    if rewards is not None and not model.gamma_config.terminal_flag:
        row |= _value_errors(drawn, truth, rewards, discount)
    return row


def _distances(
    drawn: Tensor, truth: Tensor, unit: Tensor, generator: torch.Generator
) -> dict[str, Any]:
    first, second = (half / unit for half in truth.chunk(2, dim=1))
    row: dict[str, Any] = {}
    measures = {
        "energy": energy_distance,
        "sliced": lambda x, y: sliced_wasserstein(x, y, generator=generator),
    }
    for name, measure in measures.items():
        model = [measure(x, y) for x, y in zip(drawn / unit, first, strict=True)]
        floor = [measure(x, y) for x, y in zip(second, first, strict=True)]
        row[name] = _summary(model) | {"pairs": np.round(model, 5).tolist()}
        row[f"{name}_floor"] = _summary(floor)
    return row


def _summary(values: list[float]) -> dict[str, Any]:
    mean, low, high = mean_and_interval(values)
    return {"mean": mean, "interval": [low, high], "worst": max(values)}


def _value_errors(drawn: Tensor, truth: Tensor, rewards: Any, discount: float) -> dict[str, Any]:
    """Root mean square over pairs; relative: as a share of the true values' own."""
    values = [
        rewards(states.double().numpy()).mean(axis=1) / (1 - discount)
        for states in (drawn, truth, *truth.chunk(2, dim=1))
    ]
    model, true, first, second = values
    size = float(np.sqrt(np.mean(true**2)))
    error = float(np.sqrt(np.mean((model - true) ** 2)))
    # the difference of two halves has the variance of one estimate with half as many draws, twice
    floor = float(np.sqrt(np.mean((first - second) ** 2))) / 2
    return {
        "value_error": error,
        "value_floor": floor,
        "value_error_relative": error / size if size else None,
        "values": np.round(model, 5).tolist(),
        "true_values": np.round(true, 5).tolist(),
    }


class LinearSimulator:
    """The linear-Gaussian system as a simulator, and its own policy."""

    def __init__(self, env: LinearEnv, seed: int = 0) -> None:
        self.env, self._noise = env, np.random.default_rng(seed)

    def draw_starts(self, n: int, seed: int) -> NDArray[np.float64]:
        return self.env.draw_states(n, np.random.default_rng(seed))

    def advance(
        self, states: NDArray[np.float64], actions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        reached = self.env.system.step(states, actions, self._noise)
        return reached, self.env.arrival_rewards(reached), np.zeros(len(states), dtype=bool)

    def observe(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        return states

    def act(self, observation: Tensor, generator: torch.Generator | None = None, /) -> Tensor:
        """The policy's actions, with noise of the simulator's own."""
        states = observation.double().numpy()
        return torch.from_numpy(self.env.system.act(states, self._noise)).float()


def _truth_of(experiment: Experiment) -> tuple[Simulator, StochasticPolicy]:
    """The environment as a simulator, and the policy asked about."""
    env = gymnasium.make(experiment.env, disable_env_checker=True).unwrapped
    if isinstance(env, LinearEnv):
        linear = LinearSimulator(env)
        return linear, linear.act
    model = experiment.model
    if not isinstance(model, GammaConfig) or not model.policy:
        raise ValueError(
            f"{experiment.name} names no policy (model.policy): it predicts whoever made its data, "
            "which cannot be run here. Train it with --model.policy CHECKPOINT"
        )
    return simulator_of(experiment.env), stochastic_policy(
        load_model(find_checkpoint(model.policy))
    )


def _arrival_rewards(env_id: str) -> Any:
    """Rewards (...) of observations arrived in (..., O); None if they depend on more than that."""
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    return env.arrival_rewards if isinstance(env, ClosedFormEnv | LinearEnv) else None


def _act(
    simulator: Simulator,
    policy: StochasticPolicy,
    states: NDArray[np.float64],
    generator: torch.Generator,
) -> Tensor:
    return policy(torch.from_numpy(simulator.observe(states)).float(), generator).double()


def _protocol(path: Path, config: dict[str, Any], settings: PredictionSettings) -> dict[str, Any]:
    training = path / "training.json"
    facts = json.loads(training.read_text()) if training.is_file() else {}
    experiment: Experiment = config["experiment"]
    return {
        "checkpoint": str(path),
        "env": experiment.env,
        "pairs": settings.pairs,
        "samples": settings.samples,
        "seed": settings.seed,
        "model": to_json(experiment.model),
        "train_seconds": facts.get("train_seconds"),
        "train_steps": facts.get("steps"),
        "dataset": {key: config["dataset"].get(key) for key in ("name", "fingerprint", "seed")},
        "command": "forethought " + shlex.join(sys.argv[1:]),
        "commit": current_commit(),
        "made": date.today().isoformat(),
        "hardware": hardware(),
    }


def _print(data: dict[str, Any], console: Console) -> None:
    protocol = data["protocol"]
    title = f"{data['recipe']} in {protocol['env']}, {protocol['pairs']} pairs, n = "
    table = Table(title=f"{title}{protocol['samples']}, in standard deviations")
    for column in COLUMNS:
        table.add_column(column)
    for row in data["rows"]:
        table.add_row(*prediction_cells(row))
    console.print(table)
