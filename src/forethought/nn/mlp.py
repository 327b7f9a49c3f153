"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given widths with ``activation`` between them, none at the end."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        if index:
            layers.append(activation())
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)


class ResidualMLP(nn.Module):
    """(batch, inputs) -> (batch, outputs): blocks x + W act(V norm(x)) at one width.

    The last layer starts at a tenth of its usual size, so that first outputs are small.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, outputs))
        with torch.no_grad():
            for parameter in self.leave[-1].parameters():
                parameter.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)
