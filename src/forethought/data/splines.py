"""Between the rows of a trajectory: a Catmull-Rom spline, which is linear in the rows.

A plan with stride k says where to be every k-th environment step. What is executed, and what a
constraint is checked on, is the cubic between the rows whose slopes are central differences:

    x(t) = sum_j W_tj r_j,

with at most four weights W_tj that are not zero, which sum to 1. Where the distance between rows
varies, the slope at a row weighs the two differences beside it by each other's distance, which is
exact for parabolas.
Source: Catmull and Rom, "A class of local interpolating splines" (1974).
"""

from __future__ import annotations

import torch
from torch import Tensor

from forethought.types import Trajectory


def interpolate(trajectory: Trajectory) -> Tensor:
    """(batch, last time + 1, O): a plan's observations at every environment step (Catmull-Rom)."""
    if is_uniform(trajectory.times):
        return interpolate_rows(trajectory.observations, stride_of(trajectory))
    return _interpolate_at(trajectory.observations, trajectory.times)


def is_uniform(times: Tensor) -> bool:
    """Whether rows at ``times`` (horizon,) are equally spaced."""
    gaps = times.diff()
    return bool((gaps == gaps[:1]).all())


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


def _interpolate_at(points: Tensor, times: Tensor) -> Tensor:
    """(batch, times[-1] + 1, D) through rows (batch, H, D) at any increasing ``times``."""
    moment = torch.arange(int(times[-1]) + 1, device=times.device)
    row = torch.searchsorted(times, moment, right=True).sub(1).clamp(max=len(times) - 2)
    gap = times.diff().to(points)[:, None]  # (H - 1, 1)
    rate = points.diff(dim=1) / gap  # (B, H - 1, D) a step
    inner = (gap[1:] * rate[:, :-1] + gap[:-1] * rate[:, 1:]) / (gap[1:] + gap[:-1])
    slope = torch.cat([rate[:, :1], inner, rate[:, -1:]], dim=1)
    u = ((moment - times[row]).to(points) / gap[row, 0])[:, None]
    left, right = points[:, row], points[:, row + 1]
    curve = left + u * u * (3 - 2 * u) * (right - left)
    bend = u * (1 - u) ** 2 * slope[:, row] - u * u * (1 - u) * slope[:, row + 1]
    return curve + bend * gap[row]


def stride_of(trajectory: Trajectory) -> int:
    """Environment steps from one row to the next, 1 for a single row; ValueError if that varies."""
    if not is_uniform(trajectory.times):
        raise ValueError(
            "this needs plans with equally spaced rows, and this plan's are at the steps "
            f"{trajectory.times[:4].tolist()}...: use a model with model.growth 0"
        )
    return int(trajectory.times[1] - trajectory.times[0]) if trajectory.horizon > 1 else 1


def steps_per_row(trajectory: Trajectory) -> float:
    """Environment steps from one row to the next, on average: the stride where that is constant."""
    return int(trajectory.times[-1]) / (trajectory.horizon - 1)
