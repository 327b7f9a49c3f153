"""Several equal networks computed together: one batched matrix product a layer for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class EnsembleMLP(nn.Module):
    """``members`` perceptrons with ReLU between layers of the given ``sizes``.

    Each member starts from the distribution that ``nn.Linear`` uses.
    layer_norm: normalize every hidden layer before its ReLU (without learned scale and shift), so
        that outputs cannot run away with large steps (arXiv 2302.02948, 2405.16158)
    """

    def __init__(self, members: int, sizes: Sequence[int], *, layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1 / math.sqrt(before)
            weight = torch.empty(members, before, after).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.empty(members, 1, after).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor, *, frozen: bool = False) -> Tensor:
        """(members, batch, sizes[-1]) for inputs (batch, sizes[0]) that all members share, or
        (members, batch, sizes[0]), to each member its own.

        frozen: gradients reach the inputs but not the weights, and their cost is saved
        """
        shared = inputs.ndim == 2
        hidden = inputs.expand(len(self.weights[0]), *inputs.shape) if shared else inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if frozen:
                weight, bias = weight.detach(), bias.detach()  # noqa: PLW2901
            if layer:
                if self.layer_norm:
                    hidden = functional.layer_norm(hidden, hidden.shape[-1:])
                hidden = hidden.relu()
            hidden = torch.baddbmm(bias, hidden, weight)
        return hidden
