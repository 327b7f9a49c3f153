"""A plain GPT over vectors: causal self-attention blocks, whole sequences or one token at a time.

Blocks are pre-norm, x <- x + attend(norm(x)), x <- x + mlp(norm(x)) (Radford et al. 2018, 2019;
Vaswani et al. 2017, arXiv 1706.03762). Positions are learned vectors added to the input, or, as an
option, rotations of queries and keys, so that only distances count (Su et al. 2021, arXiv
2104.09864). With a band, a token attends to that many latest tokens only. Some columns can be
hidden: no token attends to them, themselves included, though they attend to others.

Cached decoding (``extend``, ``step``) computes exactly what a full ``forward`` over the same tokens
under the same mask computes. Learned positions cannot slide, so a sequence must fit ``positions``.
With rotations and a band, a cache may forget what is out of the band and roll on for ever.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.nn.beam_cache import BeamCache

PositionKind = Literal["learned", "rotary"]
DropoutPlace = Literal["block", "everywhere"]


class GPT(nn.Module):
    """(batch, n, width) -> (batch, n, width), each output seeing its own and earlier inputs.

    width: a multiple of ``heads``;  depth: blocks
    positions: tokens of the longest sequence, with position kind "learned"
    band: tokens that one attends to, itself included; 0 = all
    dropout_at: "block" (thesis B.1: at the end of each block) or "everywhere" (released code: on
        the inputs, the attention weights and the end of every branch)
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        positions: int,
        position_kind: PositionKind = "learned",
        band: int = 0,
        dropout: float = 0.0,
        dropout_at: DropoutPlace = "block",
    ) -> None:
        super().__init__()
        head_width = width // heads if heads else 0
        if depth < 1 or heads < 1 or width % heads or head_width % 2:
            raise ValueError(
                f"a GPT cannot have width {width}, {heads} heads and depth {depth}; every head "
                "needs an even whole number of channels, and there must be at least one block"
            )
        self.width, self.heads, self.head_width = width, heads, head_width
        self.band, self.rotary = band, position_kind == "rotary"
        self.max_length = None if self.rotary else positions
        self.positions = None
        if not self.rotary:
            self.positions = nn.Parameter(0.02 * torch.randn(positions, width))
        everywhere = dropout if dropout_at == "everywhere" else 0.0
        self.dropout = nn.Dropout(everywhere)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, everywhere) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Whole sequences (batch, n, width); ``hidden`` (n,) bool marks columns that none sees."""
        return self.prefill(x, hidden)[0]

    def prefill(
        self, x: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Outputs, and each block's keys and values (batch, heads, n, head_width)."""
        n = x.shape[1]
        x = self.dropout(self._place(x, 0))
        mask = None
        if self.band or hidden is not None:
            mask = _mask(torch.arange(n, device=x.device), n, self.band, hidden)
        rotation = self._rotation(0, n, x)
        cached = []
        for block in self._blocks():
            query, key, value = block.project(x, rotation)
            cached.append((key, value))
            x = block.finish(x, block.attend(query, key, value, mask))
        return self.norm(x), cached

    def attention(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(depth, batch, heads, n, n): how much each place (row) attends to each (column).

        Computed anew, block by block; ``forward`` itself never forms these tables.
        """
        n = x.shape[1]
        x, rotation = self._place(x, 0), self._rotation(0, n, x)
        mask = _mask(torch.arange(n, device=x.device), n, self.band, hidden)
        tables = []
        for block in self._blocks():
            query, key, value = block.project(x, rotation)
            scores = query @ key.transpose(-1, -2) * self.head_width**-0.5
            tables.append(scores.masked_fill(~mask, -torch.inf).softmax(dim=-1))
            x = block.finish(x, tables[-1] @ value)
        return torch.stack(tables)

    def extend(self, x: Tensor, cache: BeamCache, stored: Tensor) -> Tensor:
        """Outputs (batch, n, width) of the next n tokens of the prefix, which all beams share.

        stored: (n,) bool, False for hidden columns
        """
        first, n = cache.length, x.shape[1]
        x = self._place(x, first)
        rotation = self._rotation(first, n, x)
        places = cache.prefix_places.to(x.device)
        new = torch.arange(first, first + n, device=x.device)
        keys = torch.cat([places, new[stored]])
        mask = keys <= new[:, None]
        if self.band:
            mask = mask & (keys > new[:, None] - self.band)
        for index, block in enumerate(self._blocks()):
            query, key, value = block.project(x, rotation)
            cache.extend_prefix(index, key[:, :, stored], value[:, :, stored])
            old_key, old_value = cache.prefix(index)
            x = block.finish(x, block.attend(query, old_key, old_value, mask))
        cache.advance_prefix(n, new[stored])
        return self.norm(x)

    def step(self, x: Tensor, cache: BeamCache, stored: bool = True) -> Tensor:
        """Outputs (batch, rows, width) of the next token of every beam."""
        place = cache.length
        rotation = self._rotation(place, 1, x)
        cache.begin_step(place - self.band + 1 if self.band else 0, stored)
        x = cache.enter(self._place(x[:, :, None], place)[:, :, 0])
        for index, block in enumerate(self._blocks()):
            query, key, value = block.project(x, rotation)
            query = query.contiguous() * self.head_width**-0.5
            x = block.finish(x, cache.attend(index, query, key, value))
        cache.end_step()
        return cache.leave(self.norm(x))

    def new_cache(self, batch: int, suffix: int) -> BeamCache:
        """An empty cache for ``batch`` prefixes with beams of about ``suffix`` tokens."""
        like = self.norm.weight
        return BeamCache(
            batch,
            depth=len(self.blocks),
            heads=self.heads,
            head_width=self.head_width,
            suffix=suffix,
            band=self.band,
            like=like,
        )

    def _place(self, x: Tensor, first: int) -> Tensor:
        """Add learned positions to (..., n, width), the first of them at ``first``."""
        end = first + x.shape[-2]
        if self.positions is None:
            return x
        if end > len(self.positions):
            raise ValueError(
                f"sequence longer than the context: {end} tokens, but this network knows "
                f"{len(self.positions)} positions; plan with a shorter horizon or history, or "
                "train on longer windows"
            )
        return x + self.positions[first:end]

    def _rotation(self, first: int, n: int, like: Tensor) -> Tensor | None:
        if not self.rotary:
            return None
        return _rotation(first, n, self.head_width, like.device, like.dtype)

    def _blocks(self) -> list[_Block]:
        return [block for block in self.blocks if isinstance(block, _Block)]


class _Block(nn.Module):
    """Attention, then a perceptron at each token."""

    def __init__(self, width: int, heads: int, dropout: float, everywhere: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, everywhere
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.branch_dropout, self.dropout = nn.Dropout(everywhere), nn.Dropout(dropout)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (batch, heads, n, head_width)."""
        heads = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = _rotate(query, rotation), _rotate(key, rotation)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, heads, n, head_width); without a mask, causal."""
        dropout = self.attention_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None
        )

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the block, given what attention has mixed (batch, heads, n, head_width)."""
        branch = self.out(mixed.transpose(1, 2).flatten(2))
        x = x + (self.branch_dropout(branch) if self.training else branch)
        branch = self.mlp(self.second_norm(x))
        return x + (self.dropout(branch) if self.training else branch)


def _mask(queries: Tensor, n_keys: int, band: int, hidden: Tensor | None) -> Tensor:
    """(queries, keys) bool: which places each place attends to."""
    keys = torch.arange(n_keys, device=queries.device)
    mask = keys <= queries[:, None]
    if band:
        mask = mask & (keys > queries[:, None] - band)
    return mask if hidden is None else mask & ~hidden


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (j, j + width / 2) of (..., n, width) by their place's angles."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = rotation
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


@functools.lru_cache(maxsize=1024)
@torch.inference_mode(False)  # a training may use what a plan has put here
def _rotation(
    first: int, n: int, head_width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(2, n, head_width / 2): cosines and sines of place * 10000^(-j / (head_width / 2))."""
    half = head_width // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=device, dtype=torch.float64) / half)
    angle = torch.arange(first, first + n, device=device)[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()]).to(dtype)
