"""The linear-Gaussian system: closed form against simulation and recurrence."""

import numpy as np
import pytest

from forethought.datasets.linear import build_linear
from forethought.envs.linear import LinearSystem


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("dim", [2, 4])
def test_occupancy_of_simulation_and_of_the_closed_form(discount, dim):
    system, n = LinearSystem(dim), 40_000
    state, action = np.linspace(1, 2, dim), np.linspace(-0.5, 0.5, dim // 2)
    mean, covariance = system.occupancy(state, action, discount)
    drawn = system.sample_occupancy(state, action, discount, n, np.random.default_rng(0))
    error = np.sqrt(np.diag(covariance) / n)
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - mean), 5 * error)
    gap = np.linalg.norm(np.cov(drawn.T) - covariance) / np.linalg.norm(covariance)
    assert gap < 0.05


def test_occupancy_at_discount_zero_is_the_next_state():
    system = LinearSystem(2)
    mean, covariance = system.occupancy(np.array([1.0, 0.0]), np.array([0.5]), 0.0)
    np.testing.assert_allclose(mean, system.a @ [1.0, 0.0] + [0.0, 0.5])
    np.testing.assert_allclose(covariance, 0.01 * np.eye(2))


def test_data_obeys_the_system():
    dataset = build_linear(seed=0, n_steps=20_000, dim=2)
    rows = np.delete(np.arange(len(dataset.observations)), dataset.starts[1:] - 1)
    s, a = dataset.observations[rows], dataset.actions[rows]
    found, *_ = np.linalg.lstsq(np.hstack([s, a]), dataset.observations[rows + 1], rcond=None)
    system = LinearSystem(2)
    np.testing.assert_allclose(found.T, np.hstack([system.a, system.b]), atol=0.01)


def test_odd_dimensions_are_refused():
    with pytest.raises(ValueError, match="even dimension"):
        LinearSystem(3)
