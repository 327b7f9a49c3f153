"""The planning layout of the U-Net computes the function that was trained."""

import pytest
import torch

from forethought.nn.unet1d import TemporalUnet


@pytest.mark.parametrize("dim_mults", [(1,), (1, 2), (1, 2, 4)])
@pytest.mark.parametrize("activation", ["silu", "mish"])
@pytest.mark.parametrize(("batch", "blocks"), [(1, 1), (3, 2)])
def test_packed_unet_equals_the_unet(dim_mults, activation, batch, blocks):
    torch.manual_seed(0)
    network = TemporalUnet(
        5, 3, dim=16, dim_mults=dim_mults, blocks_per_level=blocks, activation=activation
    ).eval()
    x, level = torch.randn(batch, 8, 5), torch.arange(batch)
    expected = network(x, level).detach()
    with torch.no_grad():
        found = network(x, level)
    assert network._packed is not None, "inference should take the planning layout"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_packed_unet_follows_changed_weights():
    torch.manual_seed(0)
    network, other = (TemporalUnet(4, 4, dim=16, dim_mults=(1, 2)).eval() for _ in range(2))
    x, level = torch.randn(2, 8, 4), torch.tensor([1, 5])
    with torch.no_grad():
        before = network(x, level)
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network(x, level), other(x, level), rtol=0, atol=0)
        next(network.parameters()).mul_(1.5)
        assert not torch.equal(network(x, level), other(x, level))
    assert not torch.equal(before, other(x, level))


def test_training_and_gradients_do_not_use_the_copy():
    network = TemporalUnet(4, 4, dim=16, dim_mults=(1, 2)).eval()
    x, level = torch.randn(2, 8, 4, requires_grad=True), torch.tensor([1, 5])
    network(x, level).sum().backward()
    assert x.grad is not None and bool(x.grad.any()) and network._packed is None
    with torch.no_grad():
        network.train()(x, level)
    assert network._packed is None
