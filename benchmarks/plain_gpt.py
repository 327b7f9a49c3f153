"""A plain Trajectory Transformer to measure against: what anyone would write first.

The network and loss of the flat model of ``models/transformer.py`` in its recipe's settings
(learned positions, an output layer for each column), with separate projections, an explicit table
of scores, masked fill and softmax; fp32, eager.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.models.transformer import TokenNetwork, TrajectoryTransformer


class PlainBlock(nn.Module):
    """(batch, n, width) -> the same; ``mask`` (n, n) bool says what attends to what."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = F.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        hidden = F.gelu(self.grow(self.second_norm(x)))
        return x + self.dropout(self.shrink(hidden))


class PlainTransformer(nn.Module):
    """The loss of token tables (batch, rows, columns), with the weights of ``model``."""

    mask: Tensor
    illegal: Tensor

    def __init__(self, model: TrajectoryTransformer) -> None:
        super().__init__()
        config, columns = model.config, model.tokens.columns
        assert config.positions == "learned" and config.dropout_at == "block", "plain settings"
        assert config.goal == "none" and len(model.network.head) == columns, "plain settings"
        n, width = config.window * columns, config.width
        self.columns, self.vocabulary = columns, config.n_bins + 2
        self.begin = nn.Parameter(torch.zeros(1, 1, width))
        self.embedding = nn.Embedding(columns * self.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(n, width))
        self.blocks = nn.ModuleList(
            PlainBlock(width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Parameter(torch.zeros_like(model.network.head))
        mask = torch.ones(n, n, dtype=torch.bool).tril()
        hidden = model.network.hidden_inputs(n)
        self.register_buffer("mask", mask if hidden is None else mask & ~hidden)
        self.register_buffer("illegal", model.illegal.clone())
        self._copy(model.network)

    @torch.no_grad()
    def _copy(self, network: TokenNetwork) -> None:
        theirs = dict(network.state_dict())
        gpt = {key.removeprefix("gpt."): value for key, value in theirs.items()}
        renamed = {"mlp.0": "grow", "mlp.2": "shrink"}
        for key in [key for key in gpt if "qkv" in key]:
            parts = gpt.pop(key).chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                gpt[key.replace("qkv", name)] = part
        for old, new in renamed.items():
            gpt = {key.replace(old, new): value for key, value in gpt.items()}
        self.load_state_dict({**gpt, "mask": self.mask, "illegal": self.illegal})

    def forward(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean cross entropy of tokens (batch, rows, columns)."""
        batch, rows, columns = tokens.shape
        places = torch.arange(rows * columns) % columns * self.vocabulary
        embedded = self.embedding((tokens.flatten(1) + places)[:, :-1])
        x = torch.cat([self.begin.expand(batch, -1, -1), embedded], dim=1) + self.positions
        for block in self.blocks:
            x = block(x, self.mask)
        outputs = self.norm(x).view(batch, rows, columns, -1)
        logits = torch.einsum("bhdw,dvw->bhdv", outputs, self.head)
        logits = logits.masked_fill(self.illegal, -torch.inf)
        entropy = F.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
        return (entropy * weight.flatten()).sum() / weight.sum()
