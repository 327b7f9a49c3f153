"""Warm starts: begin a plan from what is left of the one before it.

As the previous plan is executed, its rows move toward the present. Read at the new plan's times,
noised to a middle level and denoised from there, it needs a fraction of the network calls (thesis
Section 5.5, "Warm-Starting Diffusion for Faster Planning", Figure 5.7).
"""

from __future__ import annotations

import torch
from torch import Tensor

from forethought.models.base import WarmStart
from forethought.types import Plan, Trajectory


def warm_start(plan: Plan, times: Tensor, arrival: Tensor, share: float) -> WarmStart | None:
    """What is left of ``plan`` as a beginning for rows at ``times``; None if it is of no use.

    That is where it has arrived, or where the new plan would arrive (batch,) more than a row later
    than the old one: the environment has then left the old plan, and low noise cannot mend it.
    """
    left = plan.stats.get("arrival", plan.trajectory.times[-1]) - plan.elapsed
    if bool((left < 1).any()) or bool((arrival - left > times[1]).any()):
        return None
    return WarmStart(trajectory=shift(plan, times), share=share)


def shift(plan: Plan, times: Tensor) -> Trajectory:
    """What is left of ``plan`` after its ``elapsed`` steps, with rows at ``times`` from now.

    Linear between the plan's rows; after its end it stays at the last one.
    """
    old, rows = plan.trajectory, plan.trajectory.horizon
    moment = (times + plan.elapsed).clamp(max=int(old.times[-1]))
    right = torch.searchsorted(old.times, moment).clamp(1, rows - 1)
    left = right - 1
    span = old.times[right] - old.times[left]
    share = ((moment - old.times[left]) / span)[:, None].to(old.observations)
    return Trajectory(
        observations=torch.lerp(old.observations[:, left], old.observations[:, right], share),
        actions=torch.lerp(old.actions[:, left], old.actions[:, right], share),
        times=times,
    )
