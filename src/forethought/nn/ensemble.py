"""Several equal networks computed together: one batched matrix product a layer for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class EnsembleMLP(nn.Module):
    """``members`` perceptrons with ReLU between layers of the given ``sizes``.

    Each member starts from the distribution that ``nn.Linear`` uses.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1 / math.sqrt(before)
            weight = torch.empty(members, before, after).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.empty(members, 1, after).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor) -> Tensor:
        """(members, batch, sizes[-1]) for inputs (batch, sizes[0]) that all members share."""
        hidden = inputs.expand(len(self.weights[0]), *inputs.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = hidden.relu()
            hidden = torch.baddbmm(bias, hidden, weight)
        return hidden
