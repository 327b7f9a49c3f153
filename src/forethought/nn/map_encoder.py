"""Small convolutional networks over maps of cell kinds: one vector for a map, or one for each cell.

The thesis conditions the Trajectory Transformer on an image of the present map: one vector for all
tokens (Appendix B.6, ``MapEncoder``); it prints no sizes, so these are ours. ``MapFeatures`` goes
beyond it: what the surroundings of each cell mean on the way to the goal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 32
DILATIONS = (1, 2, 4, 8, 4, 2, 1)  # of ``MapFeatures``; together they reach 23 cells far


class MapEncoder(nn.Module):
    """Maps (batch, height, width) of integers 0 .. kinds - 1 -> (batch, out).

    Two strided convolutions keep where things are; a linear layer reads all places at once.
    """

    def __init__(self, kinds: int, height: int, width: int, out: int) -> None:
        super().__init__()
        self.kinds, self.shape = kinds, (height, width)
        self.embedding = nn.Embedding(kinds, 8)
        self.convolutions = nn.Sequential(
            nn.Conv2d(8, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Flatten(),
        )
        places = ((height + 1) // 2) * ((width + 1) // 2)
        self.read = nn.Sequential(
            nn.Linear(CHANNELS * places, 2 * out), nn.GELU(), nn.Linear(2 * out, out)
        )

    def forward(self, cells: Tensor) -> Tensor:
        """Raises ValueError for a map of another shape or with unknown kinds."""
        _check(cells, self.kinds, self.shape)
        embedded = self.embedding(cells.to(torch.int64)).permute(0, 3, 1, 2)
        return self.read(self.convolutions(embedded))


class MapFeatures(nn.Module):
    """Maps (batch, height, width) of integers, marked cells (batch,) -> (batch, cells, channels).

    A cell's number is row * width + column. Residual convolutions keep the resolution; their
    dilations let each cell see most of a map.
    """

    def __init__(self, kinds: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.kinds, self.shape = kinds, (height, width)
        self.embedding = nn.Embedding(kinds, channels)
        self.mark = nn.Parameter(torch.randn(channels))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, dilation=d, padding=d) for d in DILATIONS
        )

    def forward(self, cells: Tensor, marked: Tensor | None) -> Tensor:
        """Raises ValueError for a map of another shape or with unknown kinds."""
        _check(cells, self.kinds, self.shape)
        x = self.embedding(cells.to(torch.int64).flatten(1))
        if marked is not None:
            places = torch.arange(x.shape[1], device=x.device)
            x = x + (places == marked[:, None])[..., None] * self.mark
        x = x.unflatten(1, self.shape).permute(0, 3, 1, 2)  # channels last in memory
        for convolution in self.convolutions:
            x = x + F.gelu(convolution(x))
        return x.permute(0, 2, 3, 1).flatten(1, 2)


def _check(cells: Tensor, kinds: int, shape: tuple[int, int]) -> None:
    if cells.shape[1:] != shape:
        raise ValueError(f"the map is {tuple(cells.shape[1:])}; this model was built for {shape}")
    if cells.numel() and not 0 <= int(cells.min()) <= int(cells.max()) < kinds:
        raise ValueError(
            f"the map holds kinds {int(cells.min())} to {int(cells.max())}; this model knows "
            f"0 to {kinds - 1} (model.map_kinds {kinds})"
        )
