"""From a plan to actions, one environment step at a time.

``track_observations`` reads the plan by the clock: at step t it aims a little ahead of row t, so
the plan's timing is executed as imagined. ``pursue_path`` reads it by distance: it aims at the
point of the planned path a fixed distance ahead of where the system is, and drives each coordinate
there in least time. Plans learned from slow data then still run at the system's speed limit. The
aim is the classical "pure pursuit" (Coulter 1992, CMU-RI-TR-92-01); the drive is bang-bang control
of a double integrator with a bound on its speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from forethought.config import ControlConfig, PursuitConfig
from forethought.data.splines import interpolate, stride_of
from forethought.types import Trajectory


class Controller(Protocol):
    """Turns a plan into actions, one environment step at a time."""

    def prepare(self, trajectory: Trajectory) -> Tensor:
        """(batch, steps, width): what is looked up at each environment step of the plan; its
        first columns are the planned observations, if the plan has any use for them."""
        ...

    def read(self, rows: Tensor, progress: float, observation: Tensor) -> tuple[Tensor, float]:
        """The row (width,) of ``rows`` (steps, width) to act on now, and the new progress.

        progress: the plan's step that has been reached, as the last call returned it; 0 at first
        observation: (O,)
        """
        ...

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        """Actions (n, A) from rows as read (n, width), for observations (n, O)."""
        ...


class FollowActions:
    """Executes the plan's own actions; a plan with stride k must hold all k of them ("block")."""

    def __init__(self, action_dim: int) -> None:
        self._action_dim = action_dim

    def prepare(self, trajectory: Trajectory) -> Tensor:
        stride = stride_of(trajectory)
        if trajectory.actions.shape[-1] != stride * self._action_dim:
            raise ValueError(
                f"follow_actions needs all actions of a plan with stride {stride}, "
                f"{stride * self._action_dim} numbers a row; this one has "
                f"{trajectory.actions.shape[-1]}. Train with model.actions block, or use "
                "track_observations."
            )
        return trajectory.actions.unflatten(-1, (stride, self._action_dim)).flatten(1, 2)

    def read(self, rows: Tensor, progress: float, observation: Tensor) -> tuple[Tensor, float]:
        return _row_at(rows, progress), progress + 1

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        return reference


class TrackObservations:
    """Feedback toward the planned observations: action = gains @ (planned - observed).

    gains: (action_dim, observation_dim);  look_ahead: environment steps
    Between rows the plan is a Catmull-Rom spline; after its end it stays at the last row.
    """

    def __init__(self, gains: Sequence[Sequence[float]], look_ahead: float = 1.0) -> None:
        self._gains = torch.tensor(gains, dtype=torch.float32)
        self._look_ahead = look_ahead
        if self._gains.ndim != 2:
            raise ValueError("track_observations needs control.gains, one row per action dimension")

    def prepare(self, trajectory: Trajectory) -> Tensor:
        if trajectory.observations.shape[-1] != self._gains.shape[1]:
            raise ValueError(
                f"control.gains has {self._gains.shape[1]} columns; the observations have "
                f"{trajectory.observations.shape[-1]} dimensions"
            )
        return interpolate(trajectory)

    def read(self, rows: Tensor, progress: float, observation: Tensor) -> tuple[Tensor, float]:
        return _row_at(rows, progress + self._look_ahead), progress + 1

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        # not a matrix product: its rounding could depend on how many environments run side by side
        gains = self._gains.to(observation.device)
        return ((reference - observation)[:, None, :] * gains).sum(dim=-1)


class PursuePath:
    """Drives every coordinate in least time to the point of the path a distance ahead.

    The path is the plan's ``position`` dimensions; its timing is not used. Progress is the plan's
    step nearest to the system, searched for within two ``distance`` along the path of the last one,
    so that it never jumps between branches of a path that passes the same place twice.
    """

    def __init__(self, config: PursuitConfig) -> None:
        self._config = config
        sizes = {len(config.position), len(config.velocity)}
        if sizes == {0} or len(sizes) > 1:
            raise ValueError(
                f"pursue_path needs control.pursuit.position and .velocity, one observation "
                f"dimension each per action; got {config.position} and {config.velocity}"
            )
        if min(config.distance, config.speed, config.acceleration, config.step_seconds) <= 0:
            raise ValueError(f"control.pursuit needs positive numbers, got {config}")
        self._position, self._velocity = list(config.position), list(config.velocity)

    def prepare(self, trajectory: Trajectory) -> Tensor:
        """(batch, steps, O + 1): interpolated observations, and the distance along the path."""
        rows = interpolate(trajectory)
        steps = rows[..., self._position].diff(dim=1).square().sum(dim=-1).sqrt()
        along = torch.cat([steps.new_zeros(len(rows), 1), steps.cumsum(dim=1)], dim=1)
        return torch.cat([rows, along[..., None]], dim=-1)

    def read(self, rows: Tensor, progress: float, observation: Tensor) -> tuple[Tensor, float]:
        # NumPy: these few numbers are read at every environment step, and torch's calls cost more
        table, reach = rows.cpu().numpy(), self._config.distance
        along, step = table[:, -1], int(progress)
        last = int(np.searchsorted(along, along[step] + 2 * reach))
        here = observation.cpu().numpy()[self._position]
        offset = table[step : last + 1, self._position] - here
        step += int(np.square(offset).sum(axis=-1).argmin())
        ahead = int(np.searchsorted(along, along[step] + reach))
        return rows[min(ahead, len(rows) - 1)], float(step)

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        config = self._config
        offset = reference[:, self._position] - observation[:, self._position]
        # the largest speed from which it can still stop there; a tenth is kept for feedback
        braking = 0.9 * config.acceleration / config.step_seconds
        speed = (2 * braking * offset.abs()).sqrt().clamp(max=config.speed)
        return (offset.sign() * speed - observation[:, self._velocity]) / config.acceleration


def make_controller(config: ControlConfig, action_dim: int) -> Controller:
    """The controller that the settings name."""
    if config.controller == "follow_actions":
        return FollowActions(action_dim)
    if config.controller == "pursue_path":
        return PursuePath(config.pursuit)
    return TrackObservations(config.gains, config.look_ahead)


def _row_at(rows: Tensor, position: float) -> Tensor:
    """The row at a fractional position; the last one is held."""
    position = min(position, len(rows) - 1)
    low = int(position)
    if position == low:
        return rows[low]
    return torch.lerp(rows[low], rows[low + 1], position - low)
