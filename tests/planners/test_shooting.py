"""Shooting planners: against LQR's closed form, bounds, seeds, warm starts, batches."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from forethought.controllers import FollowActions
from forethought.envs.maze_dynamics import MazeDynamics
from forethought.planners.shooting import (
    CEM,
    MPPI,
    CEMConfig,
    MPPIConfig,
    RandomShooting,
    ShootingConfig,
)
from forethought.policy import PlanningPolicy
from forethought.types import Plan, Trajectory

HORIZON = 20
A = torch.tensor([[1.0, 0.2], [0.0, 1.0]])
B = torch.tensor([[0.02], [0.2]])
Q, R = torch.diag(torch.tensor([1.0, 0.1])), 0.1
START = torch.tensor([[1.0, 0.0], [-0.5, 0.8]])


class DoubleIntegrator:
    """x' = A x + B u: a mass on a line, elementwise so that rows never touch."""

    def step(self, observation, action, generator=None):
        position, velocity = observation.unbind(1)
        push = action[:, 0]
        return torch.stack([position + 0.2 * velocity + 0.02 * push, velocity + 0.2 * push], dim=1)


def quadratic_reward(observation, action, goal):
    position, velocity = observation.unbind(1)
    return -(position * position + 0.1 * velocity * velocity + R * action[:, 0] * action[:, 0])


def lqr_cost(start: torch.Tensor) -> torch.Tensor:
    """Optimal sum of x_{k+1}' Q x_{k+1} + R u_k^2 over the horizon, by the Riccati recursion."""
    p = torch.zeros(2, 2, dtype=torch.float64)
    a, b, q = A.double(), B.double(), Q.double()
    for _ in range(HORIZON):
        m = p + q  # value of the state reached, its own cost included
        gain = (b.T @ m @ a) / (R + b.T @ m @ b)
        p = a.T @ m @ (a - b @ gain)
    x = start.double()
    return ((x @ p) * x).sum(dim=1).float()


WIDE: dict[str, Any] = {"horizon": HORIZON, "samples": 256, "low": -3.0, "high": 3.0, "noise": 1.0}
CALM: dict[str, Any] = {"noise": 0.2}
PLANNERS: dict[str, Any] = {
    "random": (RandomShooting, ShootingConfig(**WIDE, iterations=20)),
    "cem": (CEM, CEMConfig(**WIDE, iterations=20, elites=24, least_noise=0.001)),
    "mppi": (MPPI, MPPIConfig(**(WIDE | CALM), iterations=40, temperature=0.2)),
}


def make(name, **changes):
    kind, config = PLANNERS[name]
    config = replace(config, **changes)
    return kind(DoubleIntegrator(), quadratic_reward, config, action_dim=1)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def excess(name: str) -> torch.Tensor:
    plan = make(name).plan(START, generator=seeded(0, 1))
    return -plan.value / lqr_cost(START) - 1


def test_cem_and_mppi_come_near_lqr_and_random_shooting_does_not():
    cem, mppi, random = excess("cem"), excess("mppi"), excess("random")
    assert float(min(cem.min(), mppi.min(), random.min())) >= -1e-4, "nothing beats the optimum"
    assert float(cem.max()) < 0.02
    assert float(mppi.max()) < 0.05
    assert bool((random > torch.maximum(cem, mppi)).all())


@pytest.mark.parametrize("name", PLANNERS)
def test_plan_is_what_its_actions_lead_to_and_is_worth_its_value(name):
    plan = make(name, samples=32, iterations=2, **({"elites": 4} if name == "cem" else {})).plan(
        START, generator=seeded(0, 1)
    )
    observation, total = START, torch.zeros(2)
    for step in range(HORIZON):
        torch.testing.assert_close(plan.trajectory.observations[:, step], observation)
        action = plan.trajectory.actions[:, step]
        observation = DoubleIntegrator().step(observation, action)
        total += quadratic_reward(observation, action, None)
    torch.testing.assert_close(plan.value, total)


@pytest.mark.parametrize("name", PLANNERS)
def test_same_seed_same_plan_whatever_the_batch(name):
    few = {"samples": 48, "iterations": 2, **({"elites": 4} if name == "cem" else {})}
    both = make(name, **few).plan(START, generator=seeded(3, 4)).trajectory.actions
    again = make(name, **few).plan(START, generator=seeded(3, 4)).trajectory.actions
    alone = make(name, **few).plan(START[1:], generator=seeded(4)).trajectory.actions
    assert torch.equal(both, again)
    assert torch.equal(both[1:], alone)


@pytest.mark.parametrize("name", PLANNERS)
def test_actions_stay_within_bounds(name):
    few = {"samples": 64, "iterations": 3, "low": -0.3, "high": 0.1}
    few |= {"elites": 8} if name == "cem" else {}
    actions = make(name, **few).plan(START, generator=seeded(0, 1)).trajectory.actions
    assert float(actions.min()) >= -0.3 and float(actions.max()) <= 0.1
    assert float(actions.min()) < -0.2, "far from the origin the best push is a hard one"


def test_warm_start_continues_the_previous_plan():
    """With next to no noise the answer is the shifted previous plan, then no action."""
    planner = make("mppi", noise=1e-6, iterations=1, shift=3)
    actions = torch.linspace(-1, 1, 2 * HORIZON).reshape(2, HORIZON, 1)
    previous = Plan(
        trajectory=Trajectory(
            observations=torch.zeros(2, HORIZON, 2), actions=actions, times=torch.arange(HORIZON)
        )
    )
    found = planner.plan(START, previous=previous, generator=seeded(0, 1)).trajectory.actions
    expected = torch.cat([actions[:, 3:], torch.zeros(2, 3, 1)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def closed_loop_cost(planner) -> torch.Tensor:
    """Cost of 20 steps, planning anew at each, relative to LQR's."""
    policy = PlanningPolicy(planner, FollowActions(1), replan_every=1, goal_time="receding")
    policy.reset(2, [0, 1])
    observation, total = START, torch.zeros(2)
    for _ in range(HORIZON):
        action = policy(observation)
        observation = DoubleIntegrator().step(observation, action)
        total -= quadratic_reward(observation, action, None)
    return total / lqr_cost(START)


def test_warm_starts_make_up_for_few_iterations():
    """Two iterations a step: within half of LQR's cost; shifting by too much loses the gain."""
    warm = closed_loop_cost(make("mppi", iterations=2))
    cold = closed_loop_cost(make("mppi", iterations=2, shift=HORIZON))
    assert float(warm.max()) < 1.5
    assert bool((warm < cold).all())


def test_held_noise_changes_every_hold_steps_only():
    planner = RandomShooting(
        MazeDynamics("umaze"),
        lambda reached, action, goal: -(reached[:, 0] - 3.0).abs(),
        ShootingConfig(horizon=10, samples=16, hold=4),
        action_dim=2,
    )
    start, goal = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    actions = planner.plan(start, goal=goal, generator=seeded(0)).trajectory.actions[0]
    moved = actions.diff(dim=0).abs().sum(dim=1) > 0
    assert moved.nonzero().flatten().tolist() == [3, 7]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="elites is 500"):
        CEMConfig(elites=500, samples=100)
    with pytest.raises(ValueError, match="low < high"):
        ShootingConfig(low=1.0, high=-1.0)
    with pytest.raises(ValueError, match="1 generators for 2"):
        make("random").plan(START, generator=seeded(0))
