"""Values on a grid: exact where steps land on points, equal to simulation where they do not."""

import numpy as np
import pytest
import torch

from forethought.envs.closed_form import ClosedFormEnv
from forethought.envs.grid import Grid, iterate_values, tabulate
from forethought.envs.pendulum import PendulumEnv
from forethought.occupancy import ClosedFormSimulator, simulate

RING = 12


class RingEnv(ClosedFormEnv):
    """A point on a circle of 12 places that moves by as many as the action says."""

    def __init__(self) -> None:
        super().__init__([1.0], [3.0], None)

    def draw_states(self, n, generator):
        return generator.uniform(0, RING, (n, 1))

    def advance(self, states, actions):
        return states + actions

    def observe(self, states):
        return states % RING

    def states_of(self, observations):
        return np.asarray(observations, dtype=np.float64)

    def arrival_rewards(self, observations):
        return (observations[..., 0].round() % RING == 0).astype(float)


GRID = Grid(low=(0.0,), high=(float(RING),), counts=(RING,), periodic=(True,))


def test_value_on_a_ring_is_exact():
    env, discount = RingEnv(), 0.9
    steps = tabulate(env, GRID, np.array([[1.0]]), env.arrival_rewards)
    found = iterate_values(steps, discount, weights=np.ones(1), tolerance=1e-9)
    arrive = (-np.arange(RING) - 1) % RING  # steps before the one that arrives at 0
    np.testing.assert_allclose(found, discount**arrive / (1 - discount**RING), atol=1e-8)


def test_the_best_value_takes_the_shorter_way():
    env, discount = RingEnv(), 0.9
    moves = np.array([[-1.0], [0.0], [1.0]])
    steps = tabulate(env, GRID, moves, env.arrival_rewards)
    found = iterate_values(steps, discount, tolerance=1e-9)
    distance = np.minimum(np.arange(RING), RING - np.arange(RING))
    np.testing.assert_allclose(found, discount ** np.maximum(distance - 1, 0) * 10, atol=1e-7)
    policy = iterate_values(steps, discount, weights=np.full(3, 1 / 3), tolerance=1e-9)
    assert (policy < found).all()


def test_value_of_a_constant_reward():
    steps = tabulate(RingEnv(), GRID, np.array([[0.3], [1.7]]), lambda o: np.full(len(o), -2.0))
    found = iterate_values(steps, 0.95, weights=np.array([0.25, 0.75]), tolerance=1e-6)
    np.testing.assert_allclose(found, -2.0 / 0.05, atol=1e-6)
    with pytest.raises(ValueError, match="discount"):
        iterate_values(steps, 1.0)


def test_linear_functions_are_interpolated_exactly():
    grid = Grid(low=(-1.0, 0.0), high=(1.0, 3.0), counts=(5, 4), periodic=(False, False))
    values = grid.points @ [2.0, -1.0] + 0.5
    states = np.random.default_rng(0).uniform([-1, 0], [1, 3], (50, 2))
    np.testing.assert_allclose(grid.read(values, states), states @ [2.0, -1.0] + 0.5, atol=1e-12)
    np.testing.assert_allclose(grid.read(values, np.array([[9.0, -9.0]])), 2.5)  # at the edge


def test_a_periodic_axis_closes():
    values = np.cos(2 * np.pi * GRID.points[:, 0] / RING)
    for shift in (-RING, 0, 3 * RING):
        read = GRID.read(values, np.array([[11.5 + shift], [0.0 + shift]]))
        np.testing.assert_allclose(read, [(values[11] + values[0]) / 2, 1.0], atol=1e-9)


def test_pendulum_values_are_those_of_rollouts():
    """For a damping policy, from states that swing out: deterministic, one rollout each."""
    env, discount = PendulumEnv(reward="arrival"), 0.95

    def policy(observation, generator=None):
        return torch.clamp(-observation[:, 2:3], -2, 2)

    grid = Grid(low=(-np.pi, -8.0), high=(np.pi, 8.0), counts=(120, 120), periodic=(True, False))
    actions = policy(torch.from_numpy(env.observe(grid.points))).numpy()[:, None]
    steps = tabulate(env, grid, actions, env.arrival_rewards)
    values = iterate_values(steps, discount, weights=np.ones(1))
    states = np.random.default_rng(0).uniform([1.0, -2.0], [5.0, 2.0], (20, 2))
    first = policy(torch.from_numpy(env.observe(states))).numpy()
    futures = simulate(ClosedFormSimulator(env), policy, states, first, n_steps=200)
    expected = futures.values(discount).numpy()
    np.testing.assert_allclose(grid.read(values, states), expected, rtol=0.02)
