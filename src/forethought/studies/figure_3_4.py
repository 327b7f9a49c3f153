"""Figure 3.4: values of unseen rewards from one pass of a gamma-model, beside value iteration.

Pendulum, discount 0.99. A value is the mean reward of the model's samples over 1 - discount
(Equation 3.6), with the first action drawn from the policy. The reference iterates the Bellman
equation of the same policy on a grid of 161 x 161 states. Two rewards of the state arrived in: the
task's own, and one that nothing was trained for, how far the tip is to the left.

The map asks about all states alike, so its model learns from data that begin everywhere. Beside it
stands the model of Figure 3.3, which answers for all discounts and learned from where the policy
leads: asked for 0.99 at once, and for 0.95 in fourteen steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.agents.sac import SAC
from forethought.envs.grid import iterate_values, tabulate
from forethought.envs.pendulum import PendulumEnv
from forethought.models.base import OccupancyModel
from forethought.models.gamma import estimate_value, rollout, steps_to_cover
from forethought.models.gamma_base import GammaModel
from forethought.occupancy import ClosedFormSimulator, simulate, steps_until
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_3 import ALL_SECONDS, MATCHING, shown_points
from forethought.studies.figure_3_4_show import (
    ANGLES,
    DISCOUNT,
    GRID,
    NINE,
    SHORTER,
    VELOCITIES,
    markdown,
    plot,
)
from forethought.studies.gamma_truth import load_policy, pose, trained_model

Array = NDArray[np.float64]

ONE_SECONDS = 1000.0
NODES = 5  # of the quadrature over the policy's action
DRAWS, ROLLOUT_DRAWS, ROLLOUTS, MAP_ROLLOUTS = 1000, 64, 200, 10
LARGE_BATCHES: dict[str, dict[str, float]] = {  # less noise, so that the target may follow faster
    "model": {"target_rate": 0.05},
    "train": {"batch_size": 2048, "learning_rate": 2e-3},
}
REWARDS: dict[str, Callable[[Array], Array]] = {
    "task": PendulumEnv(reward="arrival").arrival_rewards,
    "left": lambda observations: np.maximum(0.0, -observations[..., 1]),
}


@studies.register("figure-3-4")
def figure_3_4() -> Study:
    """Value maps of two rewards."""
    return Study(
        title="Figure 3.4: values of Pendulum states at discount 0.99",
        parts=(
            Part(name="reference", minutes=3.0, compute=reference),
            Part(name="simulated", minutes=1.0, compute=simulated),
            Part(name="one-pass", minutes=20.0, compute=partial(modelled, way="one-pass")),
            Part(
                name="small-batches", minutes=20.0, compute=partial(modelled, way="small-batches")
            ),
            Part(name="wider", minutes=20.0, compute=partial(modelled, way="wider")),
            Part(name="all-discounts", minutes=2.0, compute=partial(modelled, way="all-discounts")),
            Part(name="rollouts", minutes=4.0, compute=partial(modelled, way="rollouts")),
            Part(name="nine", minutes=1.0, compute=nine),
        ),
        plot=plot,
        markdown=markdown,
    )


def asked_states() -> Array:
    """(n, 2) of the maps: every angle at every velocity, velocities fastest."""
    mesh = np.meshgrid(ANGLES, VELOCITIES, indexing="ij")
    return np.stack([axis.ravel() for axis in mesh], axis=-1)


def reference(settings: StudySettings) -> dict[str, Any]:
    """Bellman iteration on the grid: the policy's values and the best ones; rollouts as a check."""
    env, policy = PendulumEnv(reward="arrival"), load_policy(settings, "pendulum")
    assert isinstance(policy, SAC), "the shipped policies are"
    points = torch.from_numpy(env.observe(GRID.points)).float()
    actions, weights = policy.action_nodes(points, NODES)
    torques = np.linspace(-2, 2, 9)[:, None]
    states, part = asked_states(), {}
    for key, reward in REWARDS.items():
        own = iterate_values(
            tabulate(env, GRID, actions.double().numpy(), reward),
            DISCOUNT,
            weights=weights.double().numpy(),
            tolerance=0.01,
        )
        best = iterate_values(tabulate(env, GRID, torques, reward), DISCOUNT, tolerance=0.01)
        simulated, error = _simulated(settings, np.array(NINE), reward, ROLLOUTS)
        part[key] = {
            "policy": _rounded(GRID.read(own, states)),
            "best": _rounded(GRID.read(best, states)),
            "nine": _rounded(GRID.read(own, np.array(NINE))),
            "nine_rollouts": _rounded(simulated),
            "nine_standard_errors": _rounded(error),
        }
    return {"grid": list(GRID.counts), "nodes": NODES, "rollouts": ROLLOUTS, **part}


def simulated(settings: StudySettings) -> dict[str, Any]:
    """The same values by rollouts of the policy: the grid smears where neighbors part ways."""
    part: dict[str, Any] = {"rollouts": MAP_ROLLOUTS}
    for key, reward in REWARDS.items():
        values, error = _simulated(settings, asked_states(), reward, MAP_ROLLOUTS)
        part[key] = {"values": _rounded(values), "largest_standard_error": float(error.max())}
    return part


def _simulated(
    settings: StudySettings, states: Array, reward: Callable[[Array], Array], n: int
) -> tuple[Array, Array]:
    """Values (states,) by n rollouts of the policy from each, and their standard errors."""
    simulator = ClosedFormSimulator(PendulumEnv(reward="arrival"))
    policy = load_policy(settings, "pendulum")
    generator = torch.Generator().manual_seed(settings.seed)
    rows = np.repeat(states, n, axis=0)
    first = policy.explore(torch.from_numpy(simulator.observe(rows)).float(), generator)
    futures = simulate(
        simulator,
        policy.explore,
        rows,
        first.double().numpy(),
        n_steps=steps_until(DISCOUNT),
        generator=generator,
    )
    rewards = np.asarray(reward(futures.observations.double().numpy()))
    values = rewards @ DISCOUNT ** np.arange(rewards.shape[1])
    per_state = values.reshape(len(states), n)
    return per_state.mean(axis=1), per_state.std(axis=1, ddof=1) / n**0.5


def modelled(settings: StudySettings, *, way: str) -> dict[str, Any]:
    """Maps from a model: one pass at 0.99, or rollouts at 0.95 weighted to 0.99 (Theorem 1)."""
    shorter = way == "rollouts"
    model, training = MODELS.get(way, _all_discounts)(settings)
    policy = load_policy(settings, "pendulum")
    observation = torch.from_numpy(PendulumEnv().observe(asked_states())).float()
    found: dict[str, list[float]] = {key: [] for key in REWARDS}
    asked, draws = (SHORTER, ROLLOUT_DRAWS) if shorter else (DISCOUNT, DRAWS)
    n_steps = steps_to_cover(SHORTER, DISCOUNT) if shorter else 1
    for row in observation:
        # the same noise everywhere, so that what it adds is nearly the same in all states
        generator = torch.Generator().manual_seed(settings.seed)
        rows = row.expand(draws, -1)
        states = rollout(
            AtDiscount(model, asked),
            policy.explore,
            rows,
            policy.explore(rows, generator),
            n_steps=n_steps,
            generator=generator,
        )  # (n_steps, draws, 1, O)
        for key, reward in REWARDS.items():
            values = estimate_value(
                states, partial(_tensor_reward, reward), discount=asked, target=DISCOUNT
            )
            found[key].append(float(values.mean()))
    maps = {key: _rounded(np.array(values)) for key, values in found.items()}
    facts = {"model_discount": asked, "steps": n_steps, "draws": draws}
    return {"training": training, **facts, "maps": maps}


def nine(settings: StudySettings) -> dict[str, Any]:
    """Samples from nine starts, of the model and of simulation."""
    model, _ = _one_discount(settings)
    questions = pose(
        ClosedFormSimulator(PendulumEnv()),
        load_policy(settings, "pendulum"),
        np.array(NINE),
        settings.seed,
    )
    drawn = questions.predict(model, DISCOUNT, settings.seed)
    true = questions.occupancy(DISCOUNT, settings.seed + 1, 400)
    return {
        "starts": [shown_points("pendulum", row[None])[0] for row in questions.observation],
        "model": [shown_points("pendulum", row) for row in drawn],
        "simulation": [shown_points("pendulum", row) for row in true],
    }


class AtDiscount(OccupancyModel):
    """A discount-conditioned model that is asked for one discount."""

    def __init__(self, model: GammaModel, discount: float) -> None:
        self.model, self.discount = model, discount

    def sample(
        self,
        observation: Tensor,
        action: Tensor,
        n_samples: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.model.sample(observation, action, n_samples, generator, discount=self.discount)


def _one_discount(
    settings: StudySettings,
    name: str = "0.99",
    model: Mapping[str, Any] = LARGE_BATCHES["model"],
    train: Mapping[str, Any] = LARGE_BATCHES["train"],
) -> tuple[GammaModel, dict[str, Any]]:
    return trained_model(
        settings,
        "gamma/pendulum-td2",
        key=f"pendulum-td2-{name}",
        core_seconds=ONE_SECONDS,
        model={**MATCHING, "discount": DISCOUNT, **model},
        train=train,
        dataset="pendulum-everywhere",
    )


def _all_discounts(settings: StudySettings) -> tuple[GammaModel, dict[str, Any]]:
    return trained_model(
        settings,
        "gamma/pendulum-td2-all",
        key="pendulum-td2-all",
        core_seconds=ALL_SECONDS["pendulum"],
        model=MATCHING,
    )


MODELS: dict[str, Callable[[StudySettings], tuple[GammaModel, dict[str, Any]]]] = {
    "one-pass": _one_discount,
    "small-batches": partial(_one_discount, name="0.99-small-batches", model={}, train={}),
    "wider": partial(_one_discount, name="0.99-wider", model={"width": 256, "blocks": 3}, train={}),
}


def _tensor_reward(reward: Callable[[Array], Array], states: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(reward(states.double().numpy()))).to(states)


def _rounded(values: Array) -> list[float]:
    return np.round(values, 3).tolist()
