"""A diffusion transformer over the rows of a trajectory, the other network Diffuser can use.

Every row is a token and every token sees all others, at every depth; the U-Net reaches as far only
through its coarse levels. The noise level enters by adaLN-zero: it sets shift, scale and gate of
every residual branch,

    x <- x + gate(u) * branch(norm(x) * (1 + scale(u)) + shift(u)),

and gates and the last layer start at zero, so that a new network is the zero function and each
block the identity. Queries and keys are normalized, so that attention cannot saturate, and rotated
by their row (rotary positions), so that only distances between rows count and any horizon fits.

Sources: Peebles and Xie 2023 (arXiv 2212.09748); rotary positions: Su et al. 2021 (arXiv
2104.09864); normalized queries and keys: Dehghani et al. 2023 (arXiv 2302.05442).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.nn.embeddings import SinusoidalEmbedding

HEAD_WIDTH = 32


class TemporalDiT(nn.Module):
    """(batch, horizon, in_dim), noise level (batch,) -> (batch, horizon, out_dim).

    dim: width of a token, a multiple of 32, the width of an attention head;  depth: blocks
    """

    multiple = 1  # of rows: any horizon fits

    def __init__(self, in_dim: int, out_dim: int, *, dim: int, depth: int) -> None:
        super().__init__()
        if dim % HEAD_WIDTH or dim < HEAD_WIDTH or depth < 1:
            raise ValueError(
                f"a transformer cannot have width {dim} and depth {depth}; use a multiple of "
                f"{HEAD_WIDTH} and at least one block"
            )
        self.embed_row = nn.Linear(in_dim, dim)
        self.embed_level = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU()
        )
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(depth))
        self.norm = _norm(dim)
        self.modulate = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, out_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for zero in (self.modulate, self.head, *(block.modulate for block in self._blocks())):
            nn.init.zeros_(zero.weight)

    def check_horizon(self, horizon: int) -> None:
        """Raise ValueError if there is no row."""
        if horizon < 1:
            raise ValueError(f"horizon {horizon} must be at least 1")

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        self.check_horizon(x.shape[1])
        condition = self.embed_level(level)
        rotation = _rotation(x.shape[1], x.device, x.dtype)
        x = self.embed_row(x)
        for block in self._blocks():
            x = block(x, condition, rotation)
        shift, scale = self.modulate(condition)[:, None].chunk(2, dim=-1)
        return self.head(self.norm(x) * (1 + scale) + shift)

    def _blocks(self) -> list[_Block]:
        return [block for block in self.blocks if isinstance(block, _Block)]


class _Block(nn.Module):
    """Attention over the rows, then a perceptron at each; the noise level opens and shapes both."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(dim, 6 * dim)
        self.norm, self.second_norm = _norm(dim), _norm(dim)
        self.attend = _Attention(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor) -> Tensor:
        parts = self.modulate(condition)[:, None].chunk(6, dim=-1)  # each (B, 1, dim)
        shift, scale, gate, second_shift, second_scale, second_gate = parts
        x = x + gate * self.attend(self.norm(x) * (1 + scale) + shift, rotation)
        return x + second_gate * self.mlp(self.second_norm(x) * (1 + second_scale) + second_shift)


class _Attention(nn.Module):
    """Every row attends to every row; queries and keys are normalized and rotated."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 3 * dim)
        self.query_norm, self.key_norm = nn.RMSNorm(HEAD_WIDTH), nn.RMSNorm(HEAD_WIDTH)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        heads = self.project(x).unflatten(-1, (3, -1, HEAD_WIDTH))  # (B, H, 3, heads, width)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, H, width)
        query = _rotate(self.query_norm(query), rotation)
        key = _rotate(self.key_norm(key), rotation)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _norm(dim: int) -> nn.LayerNorm:
    """Its scale and shift come from the noise level."""
    return nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (j, j + width / 2) of (..., H, width) by their row's angles."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = rotation
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


@functools.lru_cache(maxsize=64)
def _rotation(horizon: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2, horizon, HEAD_WIDTH / 2): cosines and sines of row * 1000^(-j / (HEAD_WIDTH / 2))."""
    half = HEAD_WIDTH // 2
    frequency = 1_000.0 ** (-torch.arange(half, device=device) / half)
    angle = torch.arange(horizon, device=device)[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()]).to(dtype)
