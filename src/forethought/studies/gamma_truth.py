"""Gamma-models of the thesis's tasks, trained for given processor time and judged by simulation.

Questions are states with an action of the policy there: first the one that a figure shows, then
rows of the data set. Answers are 1,000 independent draws of the occupancy of each, twice: the
distance between the two is the noise floor, what a perfect model would score. Distances are in
units of the data's standard deviation in each observation dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.checkpoint import find_checkpoint, load_model
from forethought.commands import build_data
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.distances import energy_distance, sliced_wasserstein
from forethought.models.base import Explorer, Model, require
from forethought.models.gamma_base import GammaConfig, GammaModel
from forethought.occupancy import (
    ClosedFormSimulator,
    Simulator,
    sample_occupancy,
    simulator_of,
)
from forethought.registry import recipes
from forethought.studies.base import StudySettings
from forethought.studies.timed_training import trained_for, with_steps

DRAWS, OTHER_QUESTIONS = 1_000, 8
BURN_IN = 0.3  # of the steps: horizons grow for so long
# the question that figures show: near the bottom and moving, so that the future is long
SHOWN = {"pendulum": [2.5, 1.0], "acrobot": [0.0, 0.0, 0.0, 0.0]}


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Where predictions start: states (B, S), observations (B, O), actions (B, A)."""

    simulator: Simulator
    policy: Explorer
    states: NDArray[np.float64]
    observation: Tensor
    action: Tensor

    def occupancy(self, discount: float, seed: int, n_samples: int = DRAWS) -> Tensor:
        """(B, n_samples, O) by simulation."""
        return sample_occupancy(
            self.simulator,
            self.policy.explore,
            self.states,
            self.action.numpy().astype(np.float64),
            discount=discount,
            n_samples=n_samples,
            generator=torch.Generator().manual_seed(seed),
        )

    def predict(self, model: GammaModel, discount: float, seed: int) -> Tensor:
        """(B, DRAWS, O) by the model."""
        generator = torch.Generator().manual_seed(seed)
        return model.sample(self.observation, self.action, DRAWS, generator, discount=discount)


def open_dataset(settings: StudySettings, name: str) -> EpisodeDataset:
    """The registered data set, built first if it is missing."""
    folder = settings.data / name
    if not folder.is_dir():
        build_data(name, folder, 0, None, settings.console)
    return EpisodeDataset.open(folder)


def load_policy(settings: StudySettings, task: str) -> Explorer:
    """The shipped policy that the task's gamma-models are asked about."""
    folder = find_checkpoint(settings.pretrained / "sac" / task)
    return require(load_model(folder), Explorer, needed_by=f"{task}'s gamma-models")


def pose_questions(settings: StudySettings, task: str) -> Questions:
    """The shown one, and others from random rows of the data set."""
    simulator = simulator_of(f"forethought/{task}-v0")
    assert isinstance(simulator, ClosedFormSimulator), "the tasks of these figures are"
    dataset = open_dataset(settings, f"{task}-policy")
    rows = np.random.default_rng(settings.seed).choice(len(dataset.observations), OTHER_QUESTIONS)
    others = simulator.env.states_of(dataset.observations[np.sort(rows)])
    states = np.concatenate([np.array([SHOWN[task]]), others])
    return pose(simulator, load_policy(settings, task), states, settings.seed)


def pose(
    simulator: Simulator, policy: Explorer, states: NDArray[np.float64], seed: int
) -> Questions:
    """Questions from ``states`` (B, S), with one action of the policy in each."""
    observation = torch.from_numpy(simulator.observe(states)).float()
    action = policy.explore(observation, torch.Generator().manual_seed(seed))
    return Questions(
        simulator=simulator, policy=policy, states=states, observation=observation, action=action
    )


def spread_of(dataset: EpisodeDataset) -> Tensor:
    """(O,) standard deviations of the data's observations: the unit of the distances."""
    return torch.from_numpy(np.std(dataset.observations, axis=0))


def distances(found: Tensor, true: Tensor, spread: Tensor) -> dict[str, Any]:
    """Energy and sliced Wasserstein distances (B, n, O) to (B, n, O): one a question, and means."""
    generator = torch.Generator().manual_seed(0)
    pairs = list(zip(found / spread, true / spread, strict=True))
    energy = [energy_distance(a, b) for a, b in pairs]
    sliced = [sliced_wasserstein(a, b, generator=generator) for a, b in pairs]
    return {
        "energy": float(np.mean(energy)),
        "sliced": float(np.mean(sliced)),
        "energies": np.round(energy, 4).tolist(),
        "sliced_each": np.round(sliced, 4).tolist(),
    }


def trained_model(
    settings: StudySettings,
    recipe: str,
    *,
    key: str,
    core_seconds: float,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> tuple[GammaModel, dict[str, Any]]:
    """The recipe with changed settings, trained for about ``core_seconds`` unless it is there.

    key: folder in ``settings.runs``, and in ``settings.pretrained / "gamma"`` if it is shipped
    dataset: in place of the recipe's
    Returns the model and what its training cost.
    """
    base = recipes[recipe]()
    assert isinstance(base.model, GammaConfig), "the recipes of these studies are gamma-models"
    changed = replace(base.model, **(model or {}))
    experiment = replace(
        base,
        model=changed,
        train=replace(base.train, **(train or {})),
        dataset=dataset or base.dataset,
    )
    found, training = trained(settings, experiment, key=key, core_seconds=core_seconds)
    assert isinstance(found, GammaModel), "its settings are a gamma-model's"
    return found, training


def trained(
    settings: StudySettings, experiment: Experiment, *, key: str, core_seconds: float
) -> tuple[Model, dict[str, Any]]:
    """The experiment's model, trained for about ``core_seconds`` unless it is there; as above."""
    shipped = find_checkpoint(settings.pretrained / "gamma" / key)
    folder = shipped if (shipped / "training.json").exists() else settings.runs / f"gamma-{key}"
    dataset = open_dataset(settings, experiment.dataset)
    return trained_for(experiment, dataset, folder, core_seconds, _with_horizons_growing)


def _with_horizons_growing(experiment: Experiment, steps: int) -> Experiment:
    if isinstance(experiment.model, GammaConfig):
        grown = replace(experiment.model, burn_in=round(BURN_IN * steps))
        experiment = replace(experiment, model=grown)
    return with_steps(experiment, steps)
