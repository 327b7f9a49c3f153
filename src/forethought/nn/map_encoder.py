"""A small convolutional network that turns a map of cell kinds into one vector.

The thesis conditions the Trajectory Transformer on an image of the present map in this way
(Appendix B.6); it prints no sizes, so these are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = 32


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
        if cells.shape[1:] != self.shape:
            raise ValueError(
                f"the map is {tuple(cells.shape[1:])}; this model was built for {self.shape}"
            )
        if cells.numel() and not 0 <= int(cells.min()) <= int(cells.max()) < self.kinds:
            raise ValueError(
                f"the map holds kinds {int(cells.min())} to {int(cells.max())}; this model knows "
                f"0 to {self.kinds - 1} (model.map_kinds {self.kinds})"
            )
        embedded = self.embedding(cells.to(torch.int64)).permute(0, 3, 1, 2)
        return self.read(self.convolutions(embedded))
