"""What Diffuser's training shows of a window: how much of it, and which rows are given clean.

A plan is made from known rows, its start and mostly its goal (thesis Section 5.3: inpainting). So
training shows these rows without noise and asks for the others alone. With random goal times the
goal stands at a random row and is held after it, which puts plans of any arrival time in
distribution.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Conditioning = Literal["none", "start", "start_and_end", "start_and_goal_time"]


def cut_windows(
    z: Tensor, weight: Tensor, shorter: tuple[int, ...], generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Windows and weights (B, H, D), in pieces of one horizon: H or one of the ``shorter``.

    One is drawn for the whole batch, which keeps all its rows: (B H / horizon, horizon, D).
    """
    if not shorter:
        return z, weight
    draw = torch.randint(len(shorter) + 1, (), generator=generator, device=z.device)
    horizon = (*shorter, z.shape[1])[int(draw)]
    pieces = (-1, horizon, z.shape[2])
    return z.reshape(pieces), weight.reshape(pieces)


def condition(
    z_clean: Tensor,
    weight: Tensor,
    kind: Conditioning,
    width: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows and weights (B, H, D) as they are shown, and which entries are given (B, H, D) bool.

    width: observation dimensions; they come first, and actions are never given
    With goal times, rows after a window's goal repeat it and weigh nothing.
    """
    given = torch.zeros_like(z_clean, dtype=torch.bool)
    given[:, 0, :width] = kind != "none"
    if kind == "start_and_end":
        given[:, -1, :width] = True
    if kind == "start_and_goal_time":
        batch, horizon, _ = z_clean.shape
        row = torch.arange(horizon, device=z_clean.device)
        uniform = torch.rand(batch, generator=generator, device=z_clean.device)
        goal_row = 1 + (uniform * (horizon - 1)).long()  # in 1..H-1
        source = torch.minimum(row, goal_row[:, None])  # (B, H)
        z_clean = z_clean.gather(1, source[..., None].expand_as(z_clean))
        arrived = row >= goal_row[:, None]
        given[..., :width] |= arrived[..., None]
        weight = weight.masked_fill(arrived[..., None], 0)
    return z_clean, weight, given
