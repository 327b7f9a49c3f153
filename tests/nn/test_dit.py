"""Laws of the transformer backbone: zero at first, global, alike at every distance, any horizon."""

import pytest
import torch

from forethought.nn.dit import TemporalDiT, _Attention, _rotation


def network(*, opened: bool, depth: int = 2, seed: int = 0) -> TemporalDiT:
    """Untrained; ``opened``: with small random values where it starts at zero."""
    torch.manual_seed(seed)
    made = TemporalDiT(5, 3, dim=32, depth=depth).eval()
    if opened:
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return made


def rows(horizon: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, horizon, 5, generator=torch.Generator().manual_seed(1))


LEVEL = torch.tensor([0, 7])


@pytest.mark.parametrize("horizon", [1, 2, 7, 48, 129])
def test_any_horizon_gives_an_output_of_its_shape(horizon):
    output = network(opened=True)(rows(horizon), LEVEL)
    assert output.shape == (2, horizon, 3) and bool(output.isfinite().all())
    assert TemporalDiT.multiple == 1


def test_new_network_is_zero_and_its_blocks_are_the_identity():
    made = network(opened=False)
    assert not made(rows(9), LEVEL).any()
    hidden, condition = torch.randn(2, 9, 32), made.embed_level(LEVEL)
    for block in made.blocks:
        torch.testing.assert_close(block(hidden, condition, torch.ones(2, 9, 16)), hidden)


def test_one_block_lets_every_output_row_depend_on_every_input_row():
    made = network(opened=True, depth=1)
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x, LEVEL[:1]), rows(6, 1))
    strength = jacobian[0, :, :, 0].abs().amax(dim=(1, 3))  # (row out, row in)
    assert bool((strength > 1e-6).all())


def test_only_distances_between_rows_count():
    torch.manual_seed(0)
    attend = _Attention(32)
    hidden = torch.randn(1, 8, 32)
    table = _rotation(40, hidden.device, hidden.dtype)
    near, far = (attend(hidden, table[:, first : first + 8]) for first in (0, 30))
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-5)
    backwards = attend(hidden.flip(1), table[:, :8]).flip(1)
    assert float((backwards - near).detach().abs().max()) > 1e-3, "order does count"


def test_level_and_batch_entries_do_not_mix():
    made, x = network(opened=True), rows(10)
    both = made(x, LEVEL)
    for index in range(2):
        alone = made(x[index : index + 1], LEVEL[index : index + 1])
        torch.testing.assert_close(alone[0], both[index], rtol=1e-4, atol=1e-5)
    assert float((made(x, LEVEL.flip(0)) - both).detach().abs().max()) > 1e-3, "the level counts"


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="width 40 .* multiple of 32"):
        TemporalDiT(5, 3, dim=40, depth=2)
    with pytest.raises(ValueError, match="at least one block"):
        TemporalDiT(5, 3, dim=32, depth=0)
    with pytest.raises(ValueError, match="horizon 0"):
        network(opened=False)(rows(0), LEVEL)
