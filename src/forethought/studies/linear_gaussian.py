"""The linear-Gaussian system: gamma-models against a closed form, by discount and by dimension.

Mean and covariance of the discounted occupancy solve linear equations here, so that a model's
error can be told from that of a simulation. Every model is asked about the same eight state-action
pairs, drawn from episodes that it was not trained on, for 20,000 samples each::

    mean error        largest |mean - exact| of a dimension, in standard deviations of the occupancy
    covariance error  |covariance - exact| / |exact|, Frobenius norms

A flow is held against the closed form plus the sigma^2 it adds by construction; distances are to
the occupancy itself, each dimension in its standard deviations there. The row "exact" is as many
draws from the system itself: what sampling alone costs. "Single step" is a learned Gaussian model
of one step, rolled out with the true policy for a geometric number of steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.checkpoint import TRAIN_STATE, load_model
from forethought.config import Experiment, ModelConfig
from forethought.datasets.linear import build_linear
from forethought.distances import energy_distance, sliced_wasserstein
from forethought.envs.linear import LinearSystem
from forethought.models.base import Model
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.models.gamma_base import GammaConfig, GammaModel
from forethought.models.gamma_flow import GammaFlow, GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.recipes.gamma import gamma_experiment
from forethought.registry import studies
from forethought.scores import mean_and_interval
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.linear_gaussian_show import markdown, plot
from forethought.training import train_experiment

Array = NDArray[np.float64]
DISCOUNTS, DIMS, DIM_DISCOUNT = (0.5, 0.9, 0.99), (2, 8, 16), 0.9
N_STEPS, N_PAIRS, N_SAMPLES, N_COMPARED = 1_000_000, 8, 20_000, 2_000
TARGET_RATE = 0.02  # of flow matching and the GAN


@dataclass(frozen=True, kw_only=True)
class Method:
    """A kind of model, and how it is trained."""

    model: ModelConfig
    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    seconds: float = 60.0
    """of one core, about"""


_MATCHING: dict[str, Any] = {"width": 64, "blocks": 2, "target_ode_steps": 3}
_FLOW: dict[str, Any] = {
    "transforms": 2,
    "affine_first": True,
    "width": 64,
    "bins": 8,
    "bound": 5.0,
    "sigma": 0.05,
}
_GAN: dict[str, Any] = {"samples": 4, "width": 128}
METHODS = {
    "flow": Method(
        model=GammaFlowConfig(objective="likelihood", **_FLOW),
        steps=12_000,
        batch_size=512,
        learning_rate=2e-3,
        seconds=300.0,
    ),
    "flow-regression": Method(
        model=GammaFlowConfig(**_FLOW),
        steps=8_000,
        batch_size=512,
        learning_rate=2e-3,
        seconds=240.0,
    ),
    "td2": Method(model=GammaMatchingConfig(**_MATCHING), steps=20_000, seconds=180.0),
    "td": Method(
        model=GammaMatchingConfig(objective="td", **_MATCHING), steps=20_000, seconds=180.0
    ),
    "coupled": Method(
        model=GammaMatchingConfig(objective="coupled", **_MATCHING), steps=20_000, seconds=180.0
    ),
    "gan": Method(model=GammaGANConfig(**_GAN), steps=10_000, learning_rate=3e-4, seconds=150.0),
    "gan-original": Method(
        model=GammaGANConfig(objective="original", **_GAN),
        steps=10_000,
        learning_rate=3e-4,
        seconds=150.0,
    ),
    "single-step": Method(model=DynamicsConfig(members=1, width=64, layers=2), steps=6_000),
}
MORE_FLOWS = {  # where the flow misses the bar
    "flow-long": replace(METHODS["flow"], steps=30_000, seconds=750.0),
    "flow-large": replace(METHODS["flow"], batch_size=2048, seconds=750.0),
}
METHODS |= MORE_FLOWS
BY_DIMENSION = ("flow", "td2", "gan", "single-step")


@studies.register("linear-gaussian")
def linear_gaussian() -> Study:
    """Gamma-models against a closed form, by discount and by dimension."""
    methods = [method for method in METHODS if method not in MORE_FLOWS]
    cells = [(method, 2, discount) for method in methods for discount in DISCOUNTS]
    cells += [(method, 2, 0.99) for method in MORE_FLOWS]
    cells += [(method, dim, DIM_DISCOUNT) for dim in DIMS[1:] for method in BY_DIMENSION]
    parts = [
        Part(name=_name(*cell), minutes=METHODS[cell[0]].seconds / 60, compute=_compute(*cell))
        for cell in cells
    ]
    for dim in DIMS:
        parts.append(Part(name=f"exact-dim{dim}", minutes=0.1, compute=_exact(dim)))
    return Study(
        title="Linear-Gaussian system: gamma-models against a closed form",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def _name(method: str, dim: int, discount: float) -> str:
    return f"{method}-dim{dim}-{discount:g}"


def _compute(method: str, dim: int, discount: float) -> Callable[[StudySettings], Any]:
    def compute(settings: StudySettings) -> dict[str, Any]:
        folder = train_method(settings, method, dim, discount)
        model = load_model(folder)
        system, pairs = LinearSystem(dim), draw_pairs(dim, settings.seed)
        draw = _sampler(model, system, discount, settings.seed)
        facts = json.loads((folder / "training.json").read_text())
        row = judge(draw, system, pairs, discount, blur=_blur(model), seed=settings.seed)
        return {"method": method, "dim": dim, "discount": discount, **row, "training": facts}

    return compute


def _exact(dim: int) -> Callable[[StudySettings], Any]:
    def compute(settings: StudySettings) -> list[dict[str, Any]]:
        system, pairs = LinearSystem(dim), draw_pairs(dim, settings.seed)
        noise, rows = np.random.default_rng(settings.seed + 1), []
        for discount in DISCOUNTS if dim == 2 else (DIM_DISCOUNT,):

            def draw(state: Array, action: Array, n: int, at: float = discount) -> Array:
                return system.sample_occupancy(state, action, at, n, noise)

            row = judge(draw, system, pairs, discount, seed=settings.seed)
            rows.append({"method": "exact", "dim": dim, "discount": discount, **row})
        return rows

    return compute


def experiment_of(method: str, dim: int, discount: float, seed: int) -> Experiment:
    """What is trained: one model a discount, but one of the single step for all."""
    chosen = METHODS[method]
    model = chosen.model
    if isinstance(model, GammaConfig):
        burn_in = chosen.steps // 2
        # a slower target averages the noise of a flow's weights, which would widen what it predicts
        rate = 0.5 * TARGET_RATE if isinstance(model, GammaFlowConfig) else TARGET_RATE
        model = replace(model, discount=discount, target_rate=rate, burn_in=burn_in)
    experiment = gamma_experiment(
        f"linear-gaussian/{method}-{dim}",
        f"linear-{dim}",
        f"forethought/linear-{dim}-v0",
        model,
        steps=chosen.steps,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
    )
    # decayed for the GAN too: here it is the better of the two
    train = replace(experiment.train, schedule="cosine", seed=seed)
    return replace(experiment, train=train)


def train_method(settings: StudySettings, method: str, dim: int, discount: float) -> Path:
    """The checkpoint folder, trained unless it is there; goes on with what was begun."""
    name = f"{method}-dim{dim}" if method == "single-step" else _name(method, dim, discount)
    folder = settings.runs / "linear-gaussian" / name
    if not (folder / "training.json").exists():
        experiment = experiment_of(method, dim, discount, settings.seed)
        dataset = build_linear(0, N_STEPS, dim)
        train_experiment(experiment, dataset, folder, resume=(folder / TRAIN_STATE).exists())
    return folder


def draw_pairs(dim: int, seed: int) -> tuple[Array, Array]:
    """States (P, dim) and actions (P, dim / 2) of episodes that no model was trained on."""
    dataset = build_linear(1_000 + seed, 20_000, dim)
    last = dataset.starts[1:] - 1  # rows without an action
    rows = np.setdiff1d(np.arange(len(dataset.observations)), last)
    chosen = np.random.default_rng(seed).choice(rows, N_PAIRS, replace=False)
    return dataset.observations[chosen].astype(float), dataset.actions[chosen].astype(float)


def _sampler(
    model: Model, system: LinearSystem, discount: float, seed: int
) -> Callable[[Array, Array, int], Array]:
    generator, noise = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

    def ask(state: Array, action: Array, n: int) -> Array:
        assert isinstance(model, GammaModel), "all others"
        given = torch.from_numpy(state).float()[None], torch.from_numpy(action).float()[None]
        return model.sample(*given, n, generator)[0].double().numpy()

    def roll_out(state: Array, action: Array, n: int) -> Array:
        assert isinstance(model, Dynamics), "it is one"
        states, live = np.tile(state, (n, 1)), np.arange(n)
        actions = np.tile(action, (n, 1))
        while len(live):
            here = torch.from_numpy(states[live]).float()
            reached = model.step(here, torch.from_numpy(actions).float(), generator)
            states[live] = reached.double().numpy()
            live = live[noise.random(len(live)) < discount]
            actions = system.act(states[live], noise)
        return states

    return roll_out if isinstance(model, Dynamics) else ask


def _blur(model: Model) -> Array | float:
    """The covariance that the flow's single step adds by construction."""
    if not isinstance(model, GammaFlow):
        return 0.0
    return np.diag((model.sigma() * model.observation_normalizer.scale).double().numpy() ** 2)


def judge(  # noqa: PLR0913  who draws, what is true, and where it is asked
    draw: Callable[[Array, Array, int], Array],
    system: LinearSystem,
    pairs: tuple[Array, Array],
    discount: float,
    *,
    blur: Array | float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Moments against the closed form, and distances from simulated states beside their floor."""
    noise, generator = np.random.default_rng(seed + 7), torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {}
    moments = []
    for state, action in zip(*pairs, strict=True):
        mean, covariance = system.occupancy(state, action, discount)
        own = np.sqrt(np.diag(covariance))
        blurred = covariance + blur
        states = draw(state, action, N_SAMPLES)
        at, spread = states.mean(axis=0), np.cov(states.T)
        numbers = {
            "mean_error": float(np.max(np.abs(at - mean) / np.sqrt(np.diag(blurred)))),
            "covariance_error": float(np.linalg.norm(spread - blurred) / np.linalg.norm(blurred)),
        }
        halves = [
            system.sample_occupancy(state, action, discount, N_COMPARED, noise) for _ in range(2)
        ]
        drawn, first, second = (torch.from_numpy(x / own) for x in (states[:N_COMPARED], *halves))
        numbers |= _distances(drawn, first, generator, "")
        numbers |= _distances(second, first, generator, "_floor")
        for key, value in numbers.items():
            found.setdefault(key, []).append(value)
        if system.dim == 2:
            moments.append({"mean": _round(at), "covariance": _round(spread)})
            moments[-1] |= {"exact_mean": _round(mean), "exact_covariance": _round(blurred)}
    return {
        "n": N_SAMPLES,
        **{key: _summary(values) for key, values in found.items()},
        "moments": moments,
    }


def _distances(x: Tensor, y: Tensor, generator: torch.Generator, ending: str) -> dict[str, float]:
    return {
        f"energy{ending}": energy_distance(x, y),
        f"sliced{ending}": sliced_wasserstein(x, y, generator=generator),
    }


def _summary(values: list[float]) -> dict[str, Any]:
    mean, low, high = mean_and_interval(values)
    assert math.isfinite(low), "there are several pairs"
    numbers = {"mean": mean, "interval": [low, high], "worst": max(values), "pairs": values}
    return {key: _round(value) for key, value in numbers.items()}


def _round(value: Any) -> Any:
    return np.round(value, 5).tolist()
