"""Between the rows of a strided trajectory: a Catmull-Rom spline, which is linear in the rows.

A plan with stride k says where to be every k-th environment step. What is executed, and what a
constraint is checked on, is the cubic between the rows whose slopes are central differences:

    x(t) = sum_j W_tj r_j,

with at most four weights W_tj that are not zero, which sum to 1.
Source: Catmull and Rom, "A class of local interpolating splines" (1974).
"""

from __future__ import annotations

import torch
from torch import Tensor

from forethought.types import Trajectory


def interpolate(trajectory: Trajectory) -> Tensor:
    """(batch, last time + 1, O): a plan's observations at every environment step (Catmull-Rom)."""
    return interpolate_rows(trajectory.observations, stride_of(trajectory))


def interpolate_rows(points: Tensor, stride: int) -> Tensor:
    """(batch, (H - 1) stride + 1, D) through rows (batch, H, D); differentiable."""
    if stride == 1:
        return points
    step = points.diff(dim=1)
    slope = torch.cat([step[:, :1], (step[:, 1:] + step[:, :-1]) / 2, step[:, -1:]], dim=1)
    u = (torch.arange(stride, device=points.device) / stride)[None, None, :, None]
    left, right = points[:, :-1, None], points[:, 1:, None]  # (B, H - 1, 1, O)
    blend = u * u * (3 - 2 * u)
    curve = left + blend * (right - left)
    curve = curve + u * (1 - u) ** 2 * slope[:, :-1, None] - u * u * (1 - u) * slope[:, 1:, None]
    return torch.cat([curve.flatten(1, 2), points[:, -1:]], dim=1)


def stride_of(trajectory: Trajectory) -> int:
    """Environment steps from one row to the next."""
    return int(trajectory.times[1] - trajectory.times[0])
