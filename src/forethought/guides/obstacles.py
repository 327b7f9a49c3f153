"""Guides that keep a plan out of regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.types import Guide, Trajectory


def avoid(center: Sequence[float], radius: float, *, dims: Sequence[int] = (0, 1)) -> Guide:
    """Minus the summed squared depth of every row inside a disc (0 outside it).

    center: (len(dims),), radius: both in environment units;  dims: the observation's position
    """
    if radius <= 0:
        raise ValueError(f"radius is {radius}; it must be positive")
    middle = torch.as_tensor(center, dtype=torch.float32)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        offset = trajectory.observations[..., list(dims)] - middle.to(trajectory.observations)
        distance = (offset.square().sum(dim=-1) + 1e-12).sqrt()  # finite slope at the center
        return -(radius - distance).clamp(min=0).square().sum(dim=-1)

    return guide
