"""Occupancies by simulation against closed forms and MuJoCo's own steps."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import forethought.envs  # noqa: F401  registers the environments
from forethought.envs.linear import LinearSystem
from forethought.models.gamma import tabular_occupancy
from forethought.occupancy import (
    MujocoSimulator,
    geometric_weights,
    sample_discounts,
    sample_occupancy,
    simulate,
    simulator_of,
    steps_until,
)

STATES = 4


class LinearSimulator:
    """The linear-Gaussian system as a simulator."""

    def __init__(self) -> None:
        self.system, self.noise = LinearSystem(2), np.random.default_rng(0)

    def draw_starts(self, n, seed):
        return np.zeros((n, 2))

    def advance(self, states, actions):
        reached = self.system.step(states, actions, self.noise)
        return reached, np.ones(len(states)), np.zeros(len(states), dtype=bool)

    def observe(self, states):
        return states

    def act(self, observation, generator=None):
        return torch.from_numpy(self.system.act(observation.double().numpy(), self.noise))


class ChainSimulator:
    """A random walk with drift on 0 .. 3 that ends when it arrives at 3."""

    def __init__(self) -> None:
        self.noise = np.random.default_rng(0)
        self.transitions = np.array(
            [[0.5, 0.5, 0, 0], [0.3, 0.2, 0.5, 0], [0, 0.3, 0.2, 0.5], [0, 0, 0, 1.0]]
        )

    def draw_starts(self, n, seed):
        return np.zeros((n, 1))

    def advance(self, states, actions):
        rows = self.transitions[states[:, 0].astype(int)].cumsum(axis=1)
        reached = (rows < self.noise.random((len(states), 1))).sum(axis=1, keepdims=True)
        return reached.astype(float), np.ones(len(states)), reached[:, 0] == STATES - 1

    def observe(self, states):
        return states

    def act(self, observation, generator=None):
        return torch.zeros(len(observation), 1)


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_samples_have_the_closed_form_s_moments(discount):
    simulator, n = LinearSimulator(), 20_000
    states, actions = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[0.5], [-0.5]])
    drawn = sample_occupancy(
        simulator, simulator.act, states, actions, discount=discount, n_samples=n
    )
    assert drawn.shape == (2, n, 2)
    for row in range(2):
        mean, covariance = simulator.system.occupancy(states[row], actions[row], discount)
        found = drawn[row].double().numpy()
        error = np.sqrt(np.diag(covariance) / n)
        np.testing.assert_array_less(np.abs(found.mean(axis=0) - mean), 5 * error)
        gap = np.linalg.norm(np.cov(found.T) - covariance) / np.linalg.norm(covariance)
        assert gap < 0.06


def test_weighted_rollouts_have_the_closed_form_s_mean():
    simulator, n, discount = LinearSimulator(), 4000, 0.8
    states, actions = np.tile([1.0, 2.0], (n, 1)), np.tile([0.5], (n, 1))
    n_steps = steps_until(discount, 1e-4)
    futures = simulate(simulator, simulator.act, states, actions, n_steps=n_steps)
    weights = geometric_weights(discount, n_steps)
    means = weights @ futures.observations.double()  # (n, 2), one for each rollout
    mean, _ = simulator.system.occupancy(states[0], actions[0], discount)
    error = means.std(dim=0) / n**0.5
    assert bool(((means.mean(dim=0) - torch.from_numpy(mean)).abs() < 5 * error).all())


def test_weights_are_geometric_and_sum_to_one():
    for discount in (0.0, 0.5, 0.99):
        weights = geometric_weights(discount, 30)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
        assert float(weights[0]) == pytest.approx(1 - discount)
    assert 0.95 ** steps_until(0.95) <= 1e-3 < 0.95 ** (steps_until(0.95) - 1)
    with pytest.raises(ValueError, match="discount"):
        geometric_weights(1.0, 5)


def test_an_ended_process_stays_and_is_flagged():
    """As a chain whose last state leads to itself; the flag's mean is that state's share."""
    simulator, n, discount = ChainSimulator(), 10_000, 0.8
    drawn = sample_occupancy(
        simulator,
        simulator.act,
        np.array([[0.0]]),
        np.zeros((1, 1)),
        discount=discount,
        n_samples=n,
        terminal_flag=True,
    )[0]
    expected = tabular_occupancy(simulator.transitions, discount)[0]
    counts = torch.bincount(drawn[:, 0].long(), minlength=STATES) / n
    np.testing.assert_allclose(counts, expected, atol=4 * 0.5 / n**0.5)
    torch.testing.assert_close(drawn[:, 1], (drawn[:, 0] == STATES - 1).float())


def test_value_of_a_constant_reward():
    simulator = LinearSimulator()
    futures = simulate(
        simulator, simulator.act, np.zeros((3, 2)), np.zeros((3, 1)), n_steps=steps_until(0.9, 1e-9)
    )
    torch.testing.assert_close(futures.values(0.9), torch.full((3,), 10.0, dtype=torch.float64))


def test_rewards_stop_at_the_end():
    """Every step of the chain earns 1 until it ends: the value solves (I - g T) v = 1."""
    simulator, n, discount = ChainSimulator(), 20_000, 0.9
    states = np.zeros((n, 1))
    futures = simulate(simulator, simulator.act, states, np.zeros((n, 1)), n_steps=100)
    inner = simulator.transitions[:3, :3]
    expected = np.linalg.solve(np.eye(3) - discount * inner, np.ones(3))[0]
    found = futures.values(discount)
    assert abs(float(found.mean()) - expected) < 5 * float(found.std()) / n**0.5 + 1e-3
    assert bool(futures.ended[:, -1].float().mean() > 0.99)
    assert bool((futures.observations[futures.ended] == STATES - 1).all())


@pytest.mark.parametrize("name", ["reacher", "hopper", "halfcheetah"])
def test_mujoco_states_step_as_the_environment_does(name):
    env: Any = gymnasium.make(f"forethought/{name}-v0", disable_env_checker=True).unwrapped
    simulator = simulator_of(f"forethought/{name}-v0")
    assert isinstance(simulator, MujocoSimulator)
    starts = simulator.draw_starts(2, seed=0)
    assert not np.allclose(starts[0], starts[1])
    states = starts[::-1].copy()  # the order in which they are asked about must not matter
    nq = env.model.nq
    env.reset(seed=0)
    env.set_state(starts[0][:nq], starts[0][nq:])
    for step in range(5):
        actions = np.full((2, env.action_space.shape[0]), 0.3 * (-1) ** step)
        observation, reward, *_ = env.step(actions[1])
        states, rewards, ended = simulator.advance(states, actions)
        # bodies are where the last Runge-Kutta stage had them in one, where the state has them
        # in the other
        np.testing.assert_allclose(simulator.observe(states)[1], observation, atol=1e-4)
        assert rewards[1] == pytest.approx(reward, abs=1e-4)
        assert not ended.any()


def test_environments_without_states_are_refused():
    with pytest.raises(ValueError, match="cannot be put into a given state"):
        simulator_of("forethought/maze2d-umaze-v0")


def test_several_discounts_share_rollouts_and_keep_their_closed_forms():
    """Draws at every discount have its occupancy, returns the value of a linear reward."""
    simulator, n, discounts = LinearSimulator(), 20_000, (0.0, 0.5, 0.9)
    states, actions = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[0.5], [-0.5]])
    draws = sample_discounts(
        simulator,
        simulator.act,
        states,
        actions,
        discounts=discounts,
        n_samples=n,
        rewards=[lambda s: s[..., 0], lambda s: torch.ones_like(s[..., 0])],
    )
    values, errors = draws.values()
    assert draws.states.shape == (3, 2, n, 2) and values.shape == (2, 3, 2)
    assert bool((draws.times.diff(dim=0) >= 0).all())
    for index, discount in enumerate(discounts):
        share = float((draws.times[index] > 3).double().mean())
        assert share == pytest.approx(discount**3, abs=0.015)
        torch.testing.assert_close(values[1, index], torch.full((2,), 1 / (1 - discount)).double())
        for row in range(2):
            mean, covariance = simulator.system.occupancy(states[row], actions[row], discount)
            found = draws.states[index, row].double().numpy()
            bound = 5 * np.sqrt(np.diag(covariance) / n)
            np.testing.assert_array_less(np.abs(found.mean(axis=0) - mean), bound)
            value = mean[0] / (1 - discount)
            assert abs(float(values[0, index, row]) - value) < 5 * float(errors[0, index, row])


def test_an_ended_process_is_paid_where_it_stays():
    """A reward for the chain's last state has (1 - discount) V = that state's share."""
    simulator, discounts = ChainSimulator(), (0.6, 0.9)
    draws = sample_discounts(
        simulator,
        simulator.act,
        np.array([[0.0]]),
        np.zeros((1, 1)),
        discounts=discounts,
        n_samples=10_000,
        rewards=[lambda s: (s[..., 0] == STATES - 1).float()],
    )
    values, errors = draws.values()
    for index, discount in enumerate(discounts):
        share = tabular_occupancy(simulator.transitions, discount)[0, -1]
        error = abs(float(values[0, index, 0]) - share / (1 - discount))
        assert error < 5 * float(errors[0, index, 0])
        arrived = float((draws.states[index] == STATES - 1).double().mean())
        assert arrived == pytest.approx(share, abs=4 * 0.5 / 100)
