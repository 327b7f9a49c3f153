"""Embeddings of scalars: of the noise level, and of coordinates."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """(batch,) -> (batch, dim): sines and cosines at geometrically spaced frequencies.

    dim: even width;  max_period: longest period (Vaswani et al. 2017, arXiv 1706.03762, section
        3.5)
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"a sinusoidal embedding needs an even width of at least 4, got {dim}")
        exponent = torch.arange(dim // 2) / (dim // 2 - 1)
        frequencies = torch.exp(-math.log(max_period) * exponent)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        angle = value[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def fourier_features(x: Tensor, octaves: int) -> Tensor:
    """(..., dim) -> (..., dim * (1 + 2 * octaves)): x, and sin and cos of pi 2^j x, j < octaves.

    Lets a network draw sharp borders in coordinates of order 1, such as the walls of a map
    (Tancik et al. 2020, arXiv 2006.10739).
    """
    if not octaves:
        return x
    angle = x[..., None, :] * _frequencies(octaves, x.device, x.dtype)  # (..., octaves, dim)
    waves = torch.stack([angle.sin(), angle.cos()], dim=-2)  # (..., octaves, 2, dim)
    return torch.cat([x, waves.flatten(-3)], dim=-1)


@functools.cache
def _frequencies(octaves: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    frequencies = [[math.pi * 2**j] for j in range(octaves)]
    return torch.tensor(frequencies, device=device, dtype=dtype)
