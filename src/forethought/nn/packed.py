"""The temporal U-Net for planning: the same function, laid out for small batches on a processor.

A plan is a few network calls on one short window, so the time goes into reading weights in the
wrong order and into calls, not into arithmetic. Here rows lie together, (batch, horizon, channels),
every convolution is one matrix product with weights laid out once, and the level's shift of all
blocks is one product. Equal to ``TemporalUnet`` up to rounding (1e-5); inference only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from forethought.nn.unet1d import TemporalUnet

# submodules are typed Any: a checker knows of ``nn.Sequential`` only that it holds modules


class PackedUnet:
    """A copy of a network's weights; ``is_current`` says whether they have changed since."""

    @torch.no_grad()
    def __init__(self, network: TemporalUnet) -> None:
        self._parameters = list(network.parameters())
        self._state = _state_of(self._parameters)
        self._embed_level = network.embed_level
        head: Any = network.head
        self._act = head[0][2]
        blocks = [*_blocks(network.down), *_blocks([network.middle]), *_blocks(network.up)]
        shifts = [block.shift[1] for block in blocks]
        self._shift_sizes = [shift.out_features for shift in shifts]
        self._shift = torch.cat([s.weight for s in shifts]), torch.cat([s.bias for s in shifts])
        self._down = [
            [_PackedResidual(block) for block in _blocks([stage])] for stage in network.down
        ]
        self._middle = [_PackedResidual(block) for block in _blocks([network.middle])]
        self._up = [[_PackedResidual(block) for block in _blocks([stage])] for stage in network.up]
        self._shrink = [_PackedConv(conv) for conv in network.shrink]
        self._grow = [_PackedGrow(conv) for conv in network.grow]
        self._head = _PackedBlock(head[0])
        self._last = _PackedConv(head[1])

    def is_current(self) -> bool:
        """Whether the network's weights are those that were copied."""
        return self._state == _state_of(self._parameters)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        with torch.inference_mode():  # half of the time is calls, which this makes lighter
            out = self._forward(x, level)
        return out.clone()  # an ordinary tensor, which a guide may differentiate through

    def _forward(self, x: Tensor, level: Tensor) -> Tensor:
        embedding = self._act(self._embed_level(level))
        shifts = iter(F.linear(embedding, *self._shift).split(self._shift_sizes, dim=-1))
        skips = []
        for index, stage in enumerate(self._down):
            for block in stage:
                x = block(x, next(shifts))
            skips.append(x)
            if index < len(self._shrink):
                x = self._shrink[index](x)
        for block in self._middle:
            x = block(x, next(shifts))
        for stage, grow in zip(self._up, self._grow, strict=True):
            x = torch.cat([x, skips.pop()], dim=-1)
            for block in stage:
                x = block(x, next(shifts))
            x = grow(x)
        return self._last(self._head(x).transpose(1, 2))


def _state_of(parameters: list[nn.Parameter]) -> list[tuple[int, int]]:
    return [(p.data_ptr(), p._version) for p in parameters]


def _blocks(stages: Any) -> list[Any]:
    return [block for stage in stages for block in stage]


class _PackedConv:
    """A convolution in time as one matrix product: (B, H, in) -> (B, H / stride, out)."""

    def __init__(self, convolution: Any) -> None:
        weight = convolution.weight  # (out, in, kernel)
        self._size, self._stride = weight.shape[2], convolution.stride[0]
        self._pad = int(convolution.padding[0])
        self._weight = weight.permute(2, 1, 0).reshape(-1, weight.shape[0]).contiguous()
        self._bias = convolution.bias

    def __call__(self, x: Tensor) -> Tensor:
        return _product(_patches(x, self._size, self._stride, self._pad), self._weight, self._bias)


def _patches(x: Tensor, size: int, stride: int, pad: int) -> Tensor:
    """(B, rows, size * in): the rows around each output, zeros beyond the ends."""
    batch, horizon, width = x.shape
    if pad:
        x = torch.constant_pad_nd(x, (0, 0, pad, pad))
    rows = (horizon + 2 * pad - size) // stride + 1
    shape = (batch, rows, size * width)
    return x.contiguous().as_strided(shape, ((horizon + 2 * pad) * width, stride * width, 1))


def _product(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, rows, in) by (in, out), plus a bias."""
    out = torch.addmm(bias, patches.reshape(-1, weight.shape[0]), weight)
    return out.view(patches.shape[0], patches.shape[1], -1)


class _PackedGrow:
    """The transposed convolution (kernel 4, stride 2, padding 1): (B, H, C) -> (B, 2 H, C).

    Output 2 i takes rows i - 1 and i, output 2 i + 1 rows i and i + 1; both in one product.
    """

    def __init__(self, convolution: Any) -> None:
        tap = convolution.weight.permute(2, 0, 1)  # (4, in, out)
        zero = torch.zeros_like(tap[0])
        even, odd = torch.cat([tap[3], tap[1], zero]), torch.cat([zero, tap[2], tap[0]])
        self._weight = torch.cat([even, odd], dim=1)
        self._bias = torch.cat([convolution.bias, convolution.bias])

    def __call__(self, x: Tensor) -> Tensor:
        patches = _patches(x, 3, 1, 1)
        return _product(patches, self._weight, self._bias).view(len(x), 2 * x.shape[1], -1)


class _PackedBlock:
    """``ConvBlock``: (B, H, in) -> (B, out, H), the layout that the normalization leaves."""

    def __init__(self, block: Any) -> None:
        convolution, norm, self._act = block
        self._convolution = _PackedConv(convolution)
        self._norm = norm.num_groups, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        # the operator itself: its module and function check what is known here
        return self._act(torch.group_norm(self._convolution(x).transpose(1, 2), *self._norm))


class _PackedResidual:
    """``ResidualBlock`` with rows together; its shift is computed by the caller."""

    def __init__(self, block: Any) -> None:
        self._first, self._second = _PackedBlock(block.first), _PackedBlock(block.second)
        self._skip = None
        if isinstance(block.skip, nn.Conv1d):
            self._skip = _PackedConv(block.skip)

    def __call__(self, x: Tensor, shift: Tensor) -> Tensor:
        hidden = self._first(x).add_(shift[:, :, None]).transpose(1, 2)
        skip = x if self._skip is None else self._skip(x)
        return self._second(hidden).transpose(1, 2) + skip
