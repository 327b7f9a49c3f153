"""Geometric horizons against closed forms on small Markov chains (thesis Section 3.4, A.1)."""

import numpy as np
import pytest
import torch

from forethought.models.base import OccupancyModel
from forethought.models.gamma import (
    estimate_value,
    expand_value,
    rollout,
    rollout_weights,
    sample_at,
    step_times,
    steps_to_cover,
    tabular_occupancy,
    terminal_weight,
)

N_STATES, N_ACTIONS = 5, 2
PAIRS = [(0.0, 0.9), (0.5, 0.9), (0.8, 0.99), (0.9, 0.9), (0.0, 0.0)]


class Chain(OccupancyModel):
    """A random MDP under a random policy; states and actions are indices, shape (..., 1)."""

    def __init__(self, discount: float) -> None:
        draw = np.random.default_rng(0)
        self.discount = discount
        self.steps = draw.dirichlet(np.ones(N_STATES) / 2, size=(N_STATES, N_ACTIONS))
        self.policy_table = draw.dirichlet(np.ones(N_ACTIONS), size=N_STATES)
        self.transitions = np.einsum("sa,sat->st", self.policy_table, self.steps)

    def occupancy(self, discount: float) -> np.ndarray:
        """(S, A, S): the first step is under the given action, later ones under the policy."""
        later = tabular_occupancy(self.transitions, discount)
        return (1 - discount) * self.steps + discount * self.steps @ later

    def sample(self, observation, action, n_samples, generator=None):
        table = torch.from_numpy(self.occupancy(self.discount))
        rows = table[observation[:, 0].long(), action[:, 0].long()]
        return torch.multinomial(rows, n_samples, replacement=True, generator=generator)[
            ..., None
        ].float()

    def policy(self, observation, generator=None):
        rows = torch.from_numpy(self.policy_table)[observation[:, 0].long()]
        return torch.multinomial(rows, 1, generator=generator).float()


def rewards() -> np.ndarray:
    return np.random.default_rng(1).normal(size=N_STATES)


def value(chain: Chain, discount: float) -> np.ndarray:
    """(S,) expected discounted sum of rewards of the states arrived in, by value iteration."""
    v = np.zeros(N_STATES)
    for _ in range(5000):
        v = chain.transitions @ (rewards() + discount * v)
    return v


@pytest.mark.parametrize(("discount", "target"), PAIRS)
def test_weighted_steps_have_a_geometric_time(discount, target):
    last = 400
    weights, times = rollout_weights(discount, target, last), step_times(discount, last, last)
    t = torch.arange(1, last + 1, dtype=torch.float64)
    torch.testing.assert_close(weights @ times, (1 - target) * target ** (t - 1))


@pytest.mark.parametrize(("discount", "target"), PAIRS)
def test_weights_and_rest_sum_to_one(discount, target):
    for n_steps in (1, 2, 7):
        total = float(rollout_weights(discount, target, n_steps).sum())
        assert total + terminal_weight(discount, target, n_steps) == pytest.approx(1, abs=1e-12)


def test_step_times_are_sums_of_geometric_times():
    one = step_times(0.7, 1, 60)[0].numpy()
    three = np.convolve(np.convolve(one, one)[:59], one)[:58]  # t = 3 ..
    np.testing.assert_allclose(step_times(0.7, 3, 60)[2].numpy()[2:], three, atol=1e-12)


def test_steps_to_cover_of_the_thesis():
    assert steps_to_cover(0.0, 0.99) == 299
    assert steps_to_cover(0.99, 0.99) == 1
    for discount, target in ((0.5, 0.95), (0.9, 0.99), (0.0, 0.5)):
        n = steps_to_cover(discount, target)
        assert terminal_weight(discount, target, n) <= 0.05 + 1e-9
        assert terminal_weight(discount, target, n - 1) > 0.05
    weights = rollout_weights(0.8, 0.99, 1)
    assert float(weights[0]) == pytest.approx(0.05)
    assert float(weights[0]) / (1 - 0.99) == pytest.approx(1 / (1 - 0.8))


def test_steps_to_cover_an_exact_power():
    assert steps_to_cover(0.0, 0.5, mass=0.75) == 2


@pytest.mark.parametrize("bad", [(-0.1, 0.5), (1.0, 1.0), (0.5, 0.4), (0.5, 1.0)])
def test_discounts_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="discount"):
        rollout_weights(*bad, 3)


def test_tabular_occupancy_meets_its_recurrence():
    chain = Chain(0.9)
    mu = tabular_occupancy(chain.transitions, 0.9)
    np.testing.assert_allclose(mu, 0.1 * chain.transitions + 0.9 * chain.transitions @ mu)
    np.testing.assert_allclose(mu.sum(axis=1), 1)
    with pytest.raises(ValueError, match="rows sum to 1"):
        tabular_occupancy(2 * chain.transitions, 0.9)
    with pytest.raises(ValueError, match="square"):
        tabular_occupancy(chain.transitions[:2], 0.9)


@pytest.mark.parametrize(("discount", "target"), PAIRS)
def test_theorem_1_exactly(discount, target):
    chain = Chain(discount)
    first, later = chain.occupancy(discount), tabular_occupancy(chain.transitions, discount)
    weights, total = rollout_weights(discount, target, 3000).numpy(), 0.0
    for weight in weights:
        total, first = total + weight * first, first @ later
    np.testing.assert_allclose(total, chain.occupancy(target), atol=1e-9)


@pytest.mark.parametrize(("discount", "target"), PAIRS)
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_theorem_2_exactly(discount, target, n_steps):
    """Expectations take the place of samples: a state is the row of its distribution."""
    chain = Chain(discount)
    later, r = tabular_occupancy(chain.transitions, discount), rewards()
    powers = [np.linalg.matrix_power(later, n) for n in range(1, n_steps + 1)]
    states = torch.from_numpy(np.stack(powers))[:, :, None]  # (H, S, 1, S)
    v = value(chain, target)
    expanded = expand_value(
        states,
        lambda p: p @ torch.from_numpy(r),
        lambda p: p @ torch.from_numpy(v),
        discount=discount,
        target=target,
    )
    np.testing.assert_allclose(expanded, v, atol=1e-8)


def test_a_value_is_the_mean_reward_over_the_occupancy():
    chain = Chain(0.8)
    states = torch.from_numpy(tabular_occupancy(chain.transitions, 0.8))[None, :, None]
    r = torch.from_numpy(rewards())
    found = estimate_value(states, lambda p: p @ r, discount=0.8, target=0.8)
    np.testing.assert_allclose(found, value(chain, 0.8), atol=1e-8)


def test_sampled_rollouts_agree_with_the_chain():
    chain, n = Chain(0.6), 20_000
    observation, action = torch.zeros(2, 1), torch.tensor([[0.0], [1.0]])
    generator = torch.Generator().manual_seed(0)
    states = rollout(
        chain, chain.policy, observation, action, n_steps=3, n_samples=n, generator=generator
    )
    later = tabular_occupancy(chain.transitions, 0.6)
    expected = chain.occupancy(0.6)[0] @ later @ later
    for row in range(2):
        counts = torch.bincount(states[2, row, :, 0].long(), minlength=N_STATES) / n
        np.testing.assert_allclose(counts, expected[row], atol=4 * 0.5 / n**0.5)
    drawn = sample_at(
        chain,
        chain.policy,
        observation,
        action,
        target=0.9,
        n_samples=n,
        generator=generator,
    )
    expected = chain.occupancy(0.9)[0]
    for row in range(2):
        counts = torch.bincount(drawn[row, :, 0].long(), minlength=N_STATES) / n
        np.testing.assert_allclose(counts, expected[row], atol=4 * 0.5 / n**0.5)


def test_later_steps_need_the_policy():
    with pytest.raises(ValueError, match="needs the policy"):
        rollout(Chain(0.5), None, torch.zeros(1, 1), torch.zeros(1, 1), n_steps=2)
