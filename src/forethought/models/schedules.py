"""Noise schedules of diffusion models, as the cumulative signal level alpha-bar.

q(tau^i | tau^0) = N(sqrt(alpha_bar_i) tau^0, (1 - alpha_bar_i) I).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_alpha_bar(denoising_steps: int, offset: float = 0.008) -> Tensor:
    """(denoising_steps,) float64 alpha-bar of levels 1..N; steps' betas are clipped at 0.999.

    Nichol & Dhariwal 2021 (arXiv 2102.09672), Eq. 17; thesis Section 5.3.
    """
    if denoising_steps < 1:
        raise ValueError(f"denoising_steps is {denoising_steps}; it must be at least 1")
    u = torch.linspace(0, 1, denoising_steps + 1, dtype=torch.float64)
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, dim=0)


def spaced_levels(denoising_steps: int, steps: int) -> list[int]:
    """``steps`` level indices from N - 1 down to 0, evenly spaced; all of them for steps = 0.

    Raises ValueError for more steps than the model has levels.
    """
    if steps > denoising_steps or steps < 0:
        raise ValueError(
            f"{steps} sampling steps asked of a model with {denoising_steps} noise levels; "
            f"use 1 to {denoising_steps}, or 0 for all"
        )
    if steps in (0, denoising_steps):
        return list(range(denoising_steps - 1, -1, -1))
    if steps == 1:
        return [denoising_steps - 1]
    # the last level keeps noise of its own: the final jump from it to the clean sample is free
    top = denoising_steps - 1
    return [round(top * (1 - k / steps)) for k in range(steps)]
