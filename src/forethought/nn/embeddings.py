"""Embeddings of scalars: of the noise level, of coordinates, of bins."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

HARMONICS = 8  # of the curves that embeddings of bins begin on


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
@torch.inference_mode(False)  # kept beyond the plan that first asks
def _frequencies(octaves: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    frequencies = [[math.pi * 2**j] for j in range(octaves)]
    return torch.tensor(frequencies, device=device, dtype=dtype)


@torch.no_grad()
def init_along_curves(weight: Tensor, vocabulary: int, *, std: float) -> None:
    """Fill embeddings (columns * vocabulary, width) with random smooth curves along the tokens of a
    column, so that neighboring bins are alike before training tells them apart."""
    place = torch.pi * torch.linspace(0, 1, vocabulary)
    order = torch.arange(1, HARMONICS + 1)
    waves = torch.cat([(place[:, None] * order).cos(), (place[:, None] * order).sin()], dim=1)
    waves = waves / order.repeat(2)
    random = torch.randn(len(weight) // vocabulary, 2 * HARMONICS, weight.shape[1])
    curves = waves @ random
    weight.copy_(std * (curves / curves.std()).flatten(0, 1))
