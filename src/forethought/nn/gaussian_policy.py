"""A Gaussian over bounded actions whose spread does not depend on the situation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forethought.nn.mlp import mlp

LOG_STD_RANGE = (-5.0, 2.0)  # as in the code of IQL's authors


class GaussianPolicy(nn.Module):
    """N(tanh f(z), diag(std)^2) over actions in [-1, 1]; f has two hidden layers of ``width``.

    inputs, outputs: dimensions of z and of an action
    """

    def __init__(self, inputs: int, outputs: int, *, width: int) -> None:
        super().__init__()
        self.network = mlp([inputs, width, width, outputs], nn.ReLU)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def forward(self, z: Tensor) -> Tensor:
        """The mode (batch, outputs)."""
        return self.network(z).tanh()

    def log_prob(self, z: Tensor, z_action: Tensor) -> Tensor:
        """(batch,) log density of actions (batch, outputs), without its constant."""
        log_std = self.log_std.clamp(*LOG_STD_RANGE)
        error = (z_action - self(z)) / log_std.exp()
        return -(0.5 * error.square() + log_std).sum(dim=-1)
