"""Laws of the normalizers: affine, invertible, and indifferent to the unit of the data."""

import numpy as np
import pytest
import torch

from forethought.data.normalizers import Normalizer

KINDS = ["limits", "gaussian"]


def make_values(*, n=500, seed=0):
    rng = np.random.default_rng(seed)
    scales, shifts = np.array([1.0, 100.0, 0.01, 1.0]), np.array([0.0, 5.0, 3.0, 1000.0])
    return (rng.normal(size=(n, 4)) * scales + shifts).astype(np.float32)


def fitted(kind, values):
    normalizer = Normalizer(values.shape[1], kind)
    normalizer.fit(values)
    return normalizer


@pytest.mark.parametrize("kind", KINDS)
def test_denormalize_inverts_normalize_beyond_the_data_too(kind):
    values = make_values()
    normalizer = fitted(kind, values)
    for factor in (1.0, 3.0):  # three times as far out: nothing is clipped
        z_values = factor * normalizer.normalize(torch.from_numpy(values))
        back = normalizer.normalize(normalizer.denormalize(z_values))
        torch.testing.assert_close(back, z_values, rtol=1e-4, atol=5e-4)
    decoded = normalizer.denormalize(normalizer.normalize(torch.from_numpy(values)))
    np.testing.assert_allclose(decoded.numpy(), values, rtol=1e-6, atol=1e-5)


def test_limits_map_to_minus_one_and_one():
    values = make_values()
    z_values = fitted("limits", values).normalize(torch.from_numpy(values))
    torch.testing.assert_close(z_values.amin(dim=0), -torch.ones(4), rtol=0, atol=2e-5)
    torch.testing.assert_close(z_values.amax(dim=0), torch.ones(4), rtol=0, atol=2e-5)


def test_gaussian_maps_to_mean_zero_and_deviation_one():
    values = make_values()
    z_values = fitted("gaussian", values).normalize(torch.from_numpy(values)).double()
    torch.testing.assert_close(z_values.mean(dim=0), torch.zeros(4).double(), rtol=0, atol=1e-3)
    deviation = z_values.std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(4).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [0.0, 0.1, -1234.5])
def test_constant_feature_keeps_its_unit_and_maps_to_zero(kind, constant):
    values = make_values()
    values[:, 2] = constant
    normalizer = fitted(kind, values)
    assert normalizer.scale[2] == 1
    z_values = normalizer.normalize(torch.from_numpy(values))
    torch.testing.assert_close(z_values[:, 2], torch.zeros(len(values)), rtol=0, atol=1e-4)
    assert torch.isfinite(z_values).all()
    decoded = normalizer.denormalize(z_values)
    np.testing.assert_allclose(decoded.numpy(), values, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_data_times_ten_give_the_same_model_units(kind):
    values = make_values()
    one, ten = fitted(kind, values), fitted(kind, values * 10)
    torch.testing.assert_close(ten.shift, 10 * one.shift, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ten.scale, 10 * one.scale, rtol=1e-5, atol=0)
    z_one = one.normalize(torch.from_numpy(values))
    z_ten = ten.normalize(torch.from_numpy(values * 10))
    torch.testing.assert_close(z_ten, z_one, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_travel_in_the_state_dict(kind):
    normalizer, empty = fitted(kind, make_values()), Normalizer(4, kind)
    empty.load_state_dict(normalizer.state_dict())
    z_values = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = normalizer.denormalize(z_values)
    torch.testing.assert_close(empty.denormalize(z_values), expected, rtol=0, atol=0)
    assert not list(normalizer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_decoding_everywhere(kind):
    normalizer = fitted(kind, make_values())
    z_values = torch.tensor([[-5.0, -1.0, 0.0, 5.0]], requires_grad=True)
    normalizer.denormalize(z_values).sum().backward()
    assert z_values.grad is not None
    torch.testing.assert_close(z_values.grad[0], normalizer.scale)
