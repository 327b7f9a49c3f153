"""Temporal U-Net: the network of Diffuser (thesis Figure C.1 and Section C.3 item 1).

Residual blocks of temporal convolutions, halved in time and widened level by level, then back up
with skip connections. Fully convolutional, so any horizon divisible by 2^(levels - 1) fits. With
the defaults it is the released network (x: two residual blocks a level, kernel 5, Mish);
``blocks_per_level`` and ``activation`` make the smaller one of our recipes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from forethought.nn.embeddings import SinusoidalEmbedding
from forethought.nn.packed import PackedUnet

Activation = Literal["mish", "silu"]
MOST_PACKED_ROWS = 2048  # batch times horizon; with more, convolutions are as fast and need less
_ACTIVATIONS: dict[str, type[nn.Module]] = {"mish": nn.Mish, "silu": nn.SiLU}


class TemporalUnet(nn.Module):
    """(batch, horizon, in_dim), noise level (batch,) -> (batch, horizon, out_dim).

    dim: channels of the first level and width of the noise-level embedding
    dim_mults: channels of each level as multiples of ``dim``
    kernel_size: of the temporal convolutions
    blocks_per_level: residual blocks on the way down (and up)
    middle_blocks: residual blocks at the coarsest level; with one level and none of these, a row
        of the output sees only 1 + 3 (kernel_size - 1) rows
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        dim: int = 32,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        kernel_size: int = 5,
        blocks_per_level: int = 2,
        middle_blocks: int = 2,
        activation: Activation = "mish",
    ) -> None:
        super().__init__()
        act = _ACTIVATIONS[activation]
        widths = [in_dim, *(dim * mult for mult in dim_mults)]
        self._packed: PackedUnet | None = None  # the weights, laid out for planning on a processor
        self.multiple = 2 ** (len(dim_mults) - 1)
        self.embed_level = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, 4 * dim), act(), nn.Linear(4 * dim, dim)
        )

        def blocks(before: int, after: int, count: int = blocks_per_level) -> nn.ModuleList:
            sizes = [before, *[after] * count]
            pairs = zip(sizes[:-1], sizes[1:], strict=True)
            return nn.ModuleList(ResidualBlock(a, b, dim, kernel_size, act) for a, b in pairs)

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(blocks(a, b) for a, b in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(b, b, 3, stride=2, padding=1) for _, b in pairs[:-1])
        self.middle = blocks(widths[-1], widths[-1], middle_blocks)
        self.up = nn.ModuleList(blocks(2 * b, a) for a, b in reversed(pairs[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(a, a, 4, stride=2, padding=1) for a, _ in reversed(pairs[1:])
        )
        self.head = nn.Sequential(
            ConvBlock(dim * dim_mults[0], dim, kernel_size, act), nn.Conv1d(dim, out_dim, 1)
        )

    def check_horizon(self, horizon: int) -> None:
        """Raise ValueError if ``horizon`` rows cannot be halved at every level."""
        if horizon % self.multiple or horizon < self.multiple:
            lower = max(horizon // self.multiple, 1) * self.multiple
            raise ValueError(
                f"horizon {horizon} is not a multiple of {self.multiple} "
                f"({len(self.shrink)} down-samplings); use {lower} or {lower + self.multiple}"
            )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        self.check_horizon(x.shape[1])
        is_planning = not (self.training or torch.is_grad_enabled())
        if is_planning and x.device.type == "cpu" and x.shape[0] * x.shape[1] <= MOST_PACKED_ROWS:
            if self._packed is None or not self._packed.is_current():
                self._packed = PackedUnet(self)
            return self._packed(x, level)
        embedding = self.embed_level(level)
        x = x.transpose(1, 2)  # (B, channels, H)
        skips = []
        for index, stage in enumerate(self.down):
            x = _run_blocks(stage, x, embedding)
            skips.append(x)
            if index < len(self.shrink):
                x = self.shrink[index](x)
        x = _run_blocks(self.middle, x, embedding)
        for stage, grow in zip(self.up, self.grow, strict=True):
            x = torch.cat([x, skips.pop()], dim=1)
            x = grow(_run_blocks(stage, x, embedding))
        return self.head(x).transpose(1, 2)


def _run_blocks(blocks: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x, embedding)
    return x


class ConvBlock(nn.Sequential):
    """Convolution in time, group normalization (8 groups), activation."""

    def __init__(self, before: int, after: int, kernel_size: int, act: type[nn.Module]) -> None:
        convolution = nn.Conv1d(before, after, kernel_size, padding=kernel_size // 2)
        super().__init__(convolution, nn.GroupNorm(8, after), act())


class ResidualBlock(nn.Module):
    """Two ConvBlocks with the noise level added between them, and a skip connection."""

    def __init__(
        self, before: int, after: int, embedding_dim: int, kernel_size: int, act: type[nn.Module]
    ) -> None:
        super().__init__()
        self.first = ConvBlock(before, after, kernel_size, act)
        self.second = ConvBlock(after, after, kernel_size, act)
        self.shift = nn.Sequential(act(), nn.Linear(embedding_dim, after))
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.shift(embedding)[:, :, None]
        return self.second(hidden) + self.skip(x)
