"""Distances between two samples of a distribution, each (n, dim), in the units they come in.

Both are 0 only for equal distributions and have no settings to tune, so that models which give no
density can be compared with ones that do. Samples of one distribution are not at distance 0: quote
the distance of two independent halves beside a model's (the noise floor).
"""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    """sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|), without bias (Szekely & Rizzo 2013).

    Unbiased estimates of the square can be negative for nearly equal samples; those give 0.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    across = torch.cdist(x, y).mean()
    within = [torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (x, y)]
    return float((2 * across - within[0] - within[1]).clamp(min=0).sqrt())


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, directions: int = 256, generator: torch.Generator | None = None
) -> float:
    """Mean Wasserstein-1 distance over random directions (Bonneel et al. 2015); equal sizes."""
    _check(x, y)
    if len(x) != len(y):
        raise ValueError(f"samples of equal size are compared; got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    axes = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    axes = axes / axes.norm(dim=0)
    along = [(sample @ axes).sort(dim=0).values for sample in (x, y)]
    return float((along[0] - along[1]).abs().mean())


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"two samples (n, dim) of one dimension are compared, n at least 2; got shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
