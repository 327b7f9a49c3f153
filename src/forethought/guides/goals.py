"""Guides toward points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.types import Guide, Trajectory


def reach(
    point: Sequence[float], *, dims: Sequence[int] | None = None, time: int | None = None
) -> Guide:
    """Minus the squared distance to ``point`` at environment step ``time`` (None: at the last row).

    point: (len(dims),) in environment units;  dims: observation dimensions, all by default
    """
    target = torch.as_tensor(point, dtype=torch.float32)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        row = -1
        if time is not None:
            row = int(
                torch.searchsorted(trajectory.times.cpu(), time).clamp(max=trajectory.horizon - 1)
            )
        at_time = trajectory.observations[:, row]
        if dims is not None:
            at_time = at_time[:, list(dims)]
        return -(at_time - target.to(at_time)).square().sum(dim=-1)

    return guide
