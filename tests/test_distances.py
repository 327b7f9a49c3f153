"""Distances against closed forms."""

import math

import pytest
import torch

from forethought.distances import energy_distance, sliced_wasserstein


def normal(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_of_two_points_apart():
    x = torch.zeros(10, 3)
    y = torch.full((20, 3), 2.0)
    assert energy_distance(x, y) == pytest.approx(math.sqrt(2 * math.sqrt(12)))


def test_energy_distance_of_shifted_normals():
    # E|N(m, 2)| in one dimension, twice less twice its value at m = 0
    shift, n = 1.5, 4000
    folded = 2 * math.sqrt(1 / math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    expected = math.sqrt(2 * folded - 4 / math.sqrt(math.pi))
    found = energy_distance(normal(n, 1, 0), normal(n, 1, 1) + shift)
    assert found == pytest.approx(expected, abs=0.03)


def test_equal_samples_are_at_the_noise_floor():
    near, far = normal(2000, 4, 0), normal(2000, 4, 1)
    assert energy_distance(near, far) < 0.1 < energy_distance(near, 1.5 * far)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    x = normal(500, 1, 0)
    assert sliced_wasserstein(x, x + 0.7) == pytest.approx(0.7, abs=1e-6)
    x = normal(500, 3, 0)
    shift = torch.tensor([3.0, 0.0, 0.0])
    # E|u_1| of a direction on the sphere in three dimensions is 1/2
    generator = torch.Generator().manual_seed(0)
    found = sliced_wasserstein(x, x + shift, directions=20_000, generator=generator)
    assert found == pytest.approx(1.5, abs=0.03)


def test_samples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one dimension"):
        energy_distance(torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="equal size"):
        sliced_wasserstein(torch.zeros(5, 2), torch.zeros(6, 2))
