"""How many steps the behavior in the data needs from one observation to another.

A classifier with one output per number of rows k is trained to tell pairs (o_t, o_{t+k}) from pairs
of unrelated observations. Its best logit is the log density ratio

    logit_k(o, g) = log p(o_{t+k} = g | o_t = o) / p(g),

so "the smallest k whose logit exceeds a threshold" is the earliest time at which arriving at g is
likely.
References: noise-contrastive estimation (Gutmann & Hyvarinen 2010); C-learning (arXiv 2011.08909).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.nn.embeddings import fourier_features
from forethought.nn.mlp import mlp


class Reachability(nn.Module):
    """Logits (batch, max_rows) for pairs of normalized observations (batch, O).

    max_rows: k runs from 1 to max_rows;  width: of the three hidden layers
    octaves: of Fourier features of both observations
    """

    def __init__(self, observation_dim: int, max_rows: int, width: int, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves
        inputs = observation_dim * (2 * (1 + 2 * octaves) + 1)
        self.net = mlp([inputs, width, width, width, max_rows])

    def forward(self, z_observation: Tensor, z_goal: Tensor) -> Tensor:
        both = (fourier_features(z, self.octaves) for z in (z_observation, z_goal))
        return self.net(torch.cat([*both, z_goal - z_observation], dim=-1))

    def loss(
        self, z_windows: Tensor, mask: Tensor, n_pairs: int, generator: torch.Generator | None
    ) -> Tensor:
        """Contrastive loss over pairs from windows (B, H, O) whose valid rows are ``mask``."""
        batch, horizon, _ = z_windows.shape
        device = z_windows.device

        uniform = torch.rand(3, n_pairs, generator=generator, device=device)
        owner = (uniform[0] * batch).long()
        # k in 1..H-1, short gaps more often: nearby pairs say more, and each k has its own output
        gap = 1 + (uniform[1].square() * (horizon - 1)).long()
        first = (uniform[2] * (horizon - gap)).long()
        z_from, z_to = z_windows[owner, first], z_windows[owner, first + gap]
        valid = (mask[owner, first] & mask[owner, first + gap]).to(z_windows.dtype)
        unrelated = torch.randperm(n_pairs, generator=generator, device=device)
        logits = self(
            torch.cat([z_from, z_from]), torch.cat([z_to, z_to[unrelated]])
        )  # (2 pairs, max_rows)
        related = logits[:n_pairs].gather(1, gap[:, None] - 1).squeeze(1)
        attract = F.softplus(-related) * valid
        repel = F.softplus(logits[n_pairs:]).mean(dim=1) * valid * valid[unrelated]
        return (attract + repel).sum() / valid.sum().clamp(min=1)
