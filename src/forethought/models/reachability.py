"""How many steps the behavior in the data needs from one observation to another.

A classifier with one output per row k of a window is trained to tell pairs (o_t, o_{t+k}) from
pairs of unrelated observations. Where rows are not equally spaced, k stands for the k-th row's time
since the window's start. Its best logit is the log density ratio

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
    """Logits (batch, H - 1) for pairs of normalized observations (batch, O), one a time.

    times: (H,) int64 environment steps of a window's rows; output k - 1 belongs to times[k], and
        to the gaps between other rows that are nearest to it
    width: of the three hidden layers
    octaves: of Fourier features of both observations
    """

    times: Tensor

    def __init__(self, observation_dim: int, times: Tensor, width: int, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves
        self.register_buffer("times", times, persistent=False)
        inputs = observation_dim * (2 * (1 + 2 * octaves) + 1)
        self.net = mlp([inputs, width, width, width, len(times) - 1])

    def forward(self, z_observation: Tensor, z_goal: Tensor) -> Tensor:
        both = (fourier_features(z, self.octaves) for z in (z_observation, z_goal))
        return self.net(torch.cat([*both, z_goal - z_observation], dim=-1))

    def output_of(self, gaps: Tensor) -> Tensor:
        """Index of the output for pairs ``gaps`` environment steps apart: the nearest time's."""
        right = torch.searchsorted(self.times, gaps).clamp(1, len(self.times) - 1)
        is_nearer = gaps - self.times[right - 1] < self.times[right] - gaps
        return (right - is_nearer.long()).clamp(min=1) - 1

    def first_likely(self, z_observation: Tensor, z_goal: Tensor, threshold: float) -> Tensor:
        """(batch,) environment steps: the first time whose logit exceeds ``threshold``, or where
        none does the likeliest one."""
        logits = self(z_observation, z_goal)
        likely = logits > threshold
        first = torch.where(likely.any(dim=1), likely.int().argmax(dim=1), logits.argmax(dim=1))
        return self.times[first + 1]

    def log_probability(self, z_plans: Tensor, times: Tensor, arrival: Tensor) -> Tensor:
        """(batch, candidates) of plans (batch, candidates, horizon, O) with rows at ``times``: that
        every row up to ``arrival`` (batch,) follows from the one before, not from chance."""
        logits = self(z_plans[..., :-1, :], z_plans[..., 1:, :])
        output = self.output_of(times.diff())[:, None].expand(*logits.shape[:-1], 1)
        next_row = logits.gather(-1, output).squeeze(-1)  # (B, K, horizon - 1)
        before = times[:-1] < arrival[:, None, None]
        return (F.logsigmoid(next_row) * before).sum(dim=-1)

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
        )  # (2 pairs, H - 1)
        output = self.output_of(self.times[first + gap] - self.times[first])
        related = logits[:n_pairs].gather(1, output[:, None]).squeeze(1)
        attract = F.softplus(-related) * valid
        repel = F.softplus(logits[n_pairs:]).mean(dim=1) * valid * valid[unrelated]
        return (attract + repel).sum() / valid.sum().clamp(min=1)
