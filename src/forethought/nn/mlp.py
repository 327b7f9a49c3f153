"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given widths with ``activation`` between them, none at the end."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        if index:
            layers.append(activation())
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
