"""Plans with a row for every environment step: made of pieces, and kept while they lead on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.types import Plan, Trajectory

WATCHED, ADVANCE = 12, 0.25  # environment steps, and the least share of them to get on along a plan


def dense(rows: Tensor) -> Trajectory:
    """Observations (batch, steps, O) as a trajectory of consecutive steps."""
    return Trajectory(observations=rows, actions=rows[..., :0], times=torch.arange(rows.shape[1]))


def still(observation: Tensor) -> Trajectory:
    """Staying at observations (batch, 1, O)."""
    pair = observation.expand(-1, 2, -1)
    return Trajectory(observations=pair, actions=pair[..., :0], times=torch.tensor([0, 1]))


def join(pieces: Sequence[Trajectory]) -> Trajectory:
    """Dense pieces one after the other; each begins where the one before ends."""
    rows = [pieces[0].observations, *(piece.observations[:, 1:] for piece in pieces[1:])]
    return dense(torch.cat(rows, dim=1))


def watch(plan: Plan, step: int) -> tuple[tuple[int, int], bool]:
    """Environment steps and rows of the plan since it was last judged, and whether it advances."""
    steps, rows = plan.stats.get("watched", (0, 0))
    steps, rows = steps + plan.elapsed, rows + step
    if steps < WATCHED:
        return (steps, rows), True
    return (0, 0), rows >= ADVANCE * steps


def remainder(plan: Plan, step: int) -> Plan:
    """What is left of a dense plan from ``step`` on, at least two rows."""
    step = min(step, plan.trajectory.horizon - 2)
    left = [int(at) - step for at in plan.stats["waypoint_steps"]]
    return Plan(
        trajectory=dense(plan.trajectory.observations[:, step:]),
        stats={
            **plan.stats,
            "arrival": plan.stats["arrival"] - step,
            "network_calls": 0,
            "waypoint_steps": [at for at in left if at > 0],
            "waypoints_passed": plan.stats["waypoints_passed"] + sum(at <= 0 for at in left),
        },
    )
