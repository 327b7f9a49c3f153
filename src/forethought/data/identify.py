"""What a controller must know of a system, measured in its log.

For coordinates p with velocities v, each pushed by one action a, medians over the log of

    (v_{t+1} - v_t) / a_t    and    (p_{t+1} - p_t) / v_{t+1}

estimate the velocity gained per action and the time step; contacts and limits are outliers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forethought.config import PursuitConfig
from forethought.data.episodes import EpisodeDataset


def identify_pursuit(
    dataset: EpisodeDataset,
    position: Sequence[int],
    velocity: Sequence[int],
    *,
    distance: float,
) -> PursuitConfig:
    """Settings of ``pursue_path``, for one observation dimension of each kind per action.

    distance: how far ahead to aim, environment units
    Raises ValueError if the dimensions do not fit the actions, or no action ever pushes.
    """
    if not len(position) == len(velocity) == dataset.spaces.action_dim:
        raise ValueError(
            f"position {tuple(position)} and velocity {tuple(velocity)} must name one observation "
            f"dimension for each of the {dataset.spaces.action_dim} actions"
        )
    inside = np.ones(len(dataset.observations) - 1, dtype=bool)
    inside[dataset.starts[1:-1] - 1] = False  # from an episode's last row to the next one's first
    before, after = dataset.observations[:-1], dataset.observations[1:]
    push = dataset.actions[:-1]
    strong = (np.abs(push) > 0.5 * np.abs(push).max()) & inside[:, None]
    speed = np.abs(after[:, velocity])
    moving = (speed > 0.5 * speed.max()) & inside[:, None]
    if not push[strong].any() or not speed.any():
        raise ValueError("no action in this log pushes, or nothing ever moves: nothing to measure")
    gained = (after - before)[:, velocity]
    moved = (after - before)[:, position]
    return PursuitConfig(
        position=tuple(position),
        velocity=tuple(velocity),
        distance=distance,
        speed=1.05 * float(speed.max()),
        acceleration=float(np.median(gained[strong] / push[strong])),
        step_seconds=float(np.median(moved[moving] / after[:, velocity][moving])),
    )
