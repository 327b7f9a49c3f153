"""Embeddings of scalars: of the noise level, and of coordinates."""

from __future__ import annotations

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
    angles = [math.pi * 2**j * x for j in range(octaves)]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat([x, *waves], dim=-1)
