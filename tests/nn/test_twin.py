"""The pass with two purposes has the values and gradients of automatic differentiation."""

import pytest
import torch

from forethought.nn.ensemble import EnsembleMLP
from forethought.nn.twin import judge, learn_and_lead


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("sizes", [[5, 16, 16, 1], [5, 8, 1]])
def test_values_and_gradients_match_automatic_differentiation(sizes, layer_norm):
    torch.manual_seed(0)
    network = EnsembleMLP(3, sizes, layer_norm=layer_norm).double()
    data, led = torch.randn(7, 5).double(), torch.randn(9, 5).double()

    def gradients(passes):
        network.zero_grad()
        inputs = led.clone().requires_grad_()
        learned, judged = passes(data, inputs)
        (learned.square().sum() + judged.amin(dim=0).sin().sum()).backward()
        return [learned, judged, inputs.grad, *(p.grad for p in network.parameters())]

    ours = gradients(lambda d, i: learn_and_lead(network, d, i))
    plain = gradients(lambda d, i: (network(d)[..., 0], network(i, frozen=True)[..., 0]))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(judge(network, led), plain[1].detach())


def test_led_rows_teach_nothing_and_data_rows_lead_nowhere():
    torch.manual_seed(0)
    network = EnsembleMLP(2, [3, 8, 1])
    data, led = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    learned, judged = learn_and_lead(network, data, led)
    judged.sum().backward(retain_graph=True)
    assert all(not p.grad.any() for p in network.parameters())
    assert data.grad is None and bool(led.grad.any())
    led.grad = None
    learned.sum().backward()
    assert all(p.grad.any() for p in network.parameters()) and not led.grad.any()


@pytest.mark.parametrize("layer_norm", [False, True])
def test_half_precision_gives_about_the_same(layer_norm):
    torch.manual_seed(0)
    network = EnsembleMLP(3, [5, 16, 16, 1], layer_norm=layer_norm)
    data, led = torch.randn(7, 5), torch.randn(9, 5, requires_grad=True)
    exact = [*learn_and_lead(network, data, led), judge(network, data)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = [*learn_and_lead(network, data, led), judge(network, data)]
        (rounded[0].float().square().sum() + rounded[1].float().sum()).backward()
    for ours, theirs in zip(rounded, exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.1, atol=0.1)
    assert led.grad is not None and bool(led.grad.isfinite().all())
