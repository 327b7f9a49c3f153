"""Tasks made at test time, from terms: what to keep to, what to prefer, how much a plan fails.

A term may have three faces, all functions of a trajectory in environment units, all evaluated at
every interpolated environment step, not only at the plan's rows:

    guide      higher is better; bends the sampling (soft)
    project    the nearest trajectory found that meets the term (hard)
    violation  by how much a plan breaks the term, 0 = met

Terms are combined by putting them in a list: guides add up, projections alternate until all are
met. The list goes to ``planners.tasks.TaskPlanner``, which plans under them, or to
``DiffusionPlanner``, which guides by them and reports them.
Thesis Section 5.3 (guides and inpainting as perturbations h(tau) of one learned model).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forethought.data.splines import interpolate, steps_per_row
from forethought.guides import weighted_sum
from forethought.guides.projection import Box, Disc, Region, limit_speed, push_out, slow_down
from forethought.types import Guide, Projection, Trajectory

RowProjection = Callable[[Trajectory, Tensor], Trajectory]
"""(trajectory, fixed (batch, horizon) bool) -> trajectory; fixed rows must not move."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One wish or rule of a task; made by the functions of this module.

    name: in reports;  violation: trajectory -> (batch,), in environment units, 0 = met
    guide: None = no gradient to follow;  project: None = a soft term
    delay: meets the term by arriving later, on plans with a row for every environment step
    region_dims: the dimensions that a keep-out region is about
    depth: observations (..., O) -> (...), how far inside what is forbidden, negative outside; for
        rules about single observations, which ``safety.SafetyFilter`` can enforce
    """

    name: str
    violation: Callable[[Trajectory], Tensor]
    guide: Guide | None = None
    project: RowProjection | None = None
    delay: Callable[[Trajectory], Trajectory] | None = None
    region_dims: tuple[int, ...] = ()
    depth: Callable[[Tensor], Tensor] | None = None

    @property
    def is_hard(self) -> bool:
        """Whether a plan that breaks it is refused."""
        return self.project is not None


def keep_out(
    center: Sequence[float],
    radius: float,
    *,
    name: str = "keep out",
    margin: float = 0.0,
    dims: Sequence[int] = (0, 1),
    hard: bool = True,
) -> Term:
    """Stay out of a disc (a ball in more dimensions).

    center: (len(dims),), radius: in environment units;  dims: the observation's position
    margin: plans stay this much farther away, for the controller's error; not part of the violation
    """
    if radius <= 0 or len(center) != len(dims):
        raise ValueError(
            f"radius is {radius} and must be positive; the center has {len(center)} numbers and "
            f"must have one for each of the dims {tuple(dims)}"
        )
    return _region(Disc(tuple(map(float, center)), radius), name, margin, dims, hard)


def keep_out_box(
    low: Sequence[float],
    high: Sequence[float],
    *,
    name: str = "keep out",
    margin: float = 0.0,
    dims: Sequence[int] = (0, 1),
    hard: bool = True,
) -> Term:
    """Stay out of an axis-aligned box from corner ``low`` to corner ``high``; else as keep_out."""
    if not len(low) == len(high) == len(dims) or any(
        a >= b for a, b in zip(low, high, strict=True)
    ):
        raise ValueError(
            f"a box needs low < high in each of the dims {tuple(dims)}; got {list(low)} to "
            f"{list(high)}"
        )
    box = Box(tuple(map(float, low)), tuple(map(float, high)))
    return _region(box, name, margin, dims, hard)


def _region(region: Region, name: str, margin: float, dims: Sequence[int], hard: bool) -> Term:
    if margin < 0:
        raise ValueError(f"margin is {margin}; it must not be negative")
    columns, grown = list(dims), region.grow(margin)

    def depths(trajectory: Trajectory, where: Region) -> Tensor:
        return where.depth(interpolate(trajectory)[..., columns]).clamp(min=0)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        # over rows, not steps: the same weight means the same push at any stride
        return -depths(trajectory, grown).square().sum(dim=-1) / steps_per_row(trajectory)

    def project(trajectory: Trajectory, fixed: Tensor) -> Trajectory:
        return push_out(trajectory, fixed, grown, columns)

    return Term(
        name=name,
        violation=lambda trajectory: depths(trajectory, region).amax(dim=-1),
        guide=guide,
        project=project if hard else None,
        region_dims=tuple(dims),
        depth=lambda observations: region.depth(observations[..., columns]),
    )


def speed_limit(
    limit: float,
    *,
    time_step: float,
    name: str = "speed",
    position: Sequence[int] = (0, 1),
    velocity: Sequence[int] = (2, 3),
    margin: float = 0.0,
    hard: bool = True,
) -> Term:
    """Go no faster than ``limit``, by the planned velocities and by the planned positions.

    limit, margin: environment units per second;  time_step: seconds an environment step
    position, velocity: dimensions of the observation; velocity may be empty
    A plan that arrives too early for the limit cannot be repaired; ``TaskPlanner`` arrives later.
    """
    if limit <= 0 or time_step <= 0 or not 0 <= margin < limit:
        raise ValueError(
            f"limit {limit} and time_step {time_step} must be positive, margin {margin} in "
            f"[0, {limit})"
        )

    def excess(trajectory: Trajectory, cap: float) -> Tensor:
        return (speeds(trajectory, position, velocity, time_step) - cap).clamp(min=0)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        return -excess(trajectory, limit - margin).square().sum(dim=-1) / steps_per_row(trajectory)

    def project(trajectory: Trajectory, fixed: Tensor) -> Trajectory:
        return limit_speed(
            trajectory,
            fixed,
            limit - margin,
            time_step=time_step,
            position=list(position),
            velocity=list(velocity),
        )

    def delay(trajectory: Trajectory) -> Trajectory:
        return slow_down(trajectory, 0.999 * (limit - margin), time_step, position, velocity)

    return Term(
        name=name,
        violation=lambda trajectory: excess(trajectory, limit).amax(dim=-1),
        guide=guide,
        project=project if hard else None,
        delay=delay if hard else None,
        depth=(lambda observations: _norm(observations[..., list(velocity)]) - limit)
        if velocity
        else None,
    )


def speeds(
    trajectory: Trajectory, position: Sequence[int], velocity: Sequence[int], time_step: float
) -> Tensor:
    """(batch, steps): the larger of planned velocity and change of planned position per second."""
    dense = interpolate(trajectory)
    moved = _norm(dense[..., list(position)].diff(dim=1)) / time_step
    if not velocity:
        return moved
    return torch.maximum(moved, _norm(dense[:, 1:][..., list(velocity)]))


def visit(
    points: Sequence[Sequence[float]],
    *,
    within: float,
    times: Sequence[int] | None = None,
    name: str = "waypoints",
    dims: Sequence[int] = (0, 1),
) -> Term:
    """Come ``within`` environment units of every point: in this order, or at these times (soft).

    The violation is the largest distance left, less ``within``. To pin waypoints exactly, give
    them to ``TaskPlanner(waypoints=...)`` or as a ``Pin``.
    """
    if not points or within < 0 or (times is not None and len(times) != len(points)):
        raise ValueError(
            f"visit needs points, within >= 0 and one time a point; got {len(points)} points, "
            f"within {within}, times {times}"
        )
    targets = torch.as_tensor(points, dtype=torch.float32)

    def distances(trajectory: Trajectory) -> Tensor:
        """(batch, points), each at its time, or at its best step after the point before."""
        path = interpolate(trajectory)[..., list(dims)]
        apart = _norm(path[:, :, None] - targets.to(path))  # (B, T, points)
        if times is not None:
            if max(times) >= apart.shape[1]:
                raise ValueError(
                    f"a waypoint at step {max(times)} lies outside the plan, which ends at step "
                    f"{apart.shape[1] - 1}"
                )
            return apart[:, list(times)].diagonal(dim1=1, dim2=2)
        return torch.stack(_visit_in_order(apart, within), dim=1)

    return Term(
        name=name,
        violation=lambda trajectory: (distances(trajectory) - within).clamp(min=0).amax(dim=1),
        guide=lambda trajectory, level: -distances(trajectory).square().sum(dim=1),
    )


def _visit_in_order(apart: Tensor, within: float) -> list[Tensor]:
    """Distances (batch,) at the first close step to each point after the visit before it, or at
    the closest one."""
    steps = torch.arange(apart.shape[1], device=apart.device)
    earliest, found = torch.zeros(len(apart), dtype=torch.long, device=apart.device), []
    for k in range(apart.shape[2]):
        now = apart[:, :, k].masked_fill(steps < earliest[:, None], torch.inf)
        near = now <= within
        earliest = torch.where(near.any(dim=1), near.int().argmax(dim=1), now.argmin(dim=1))
        found.append(now.gather(1, earliest[:, None])[:, 0])
    return found


def reward(
    function: Callable[[Tensor], Tensor], *, at_least: float = 0.0, name: str = "reward"
) -> Term:
    """Prefer plans by any differentiable function of their observations (batch, horizon, O) ->
    (batch,); the violation is what is missing to ``at_least``."""
    return Term(
        name=name,
        violation=lambda trajectory: (at_least - function(trajectory.observations)).clamp(min=0),
        guide=lambda trajectory, level: function(trajectory.observations),
    )


def report_violations(trajectory: Trajectory, terms: Sequence[Term]) -> dict[str, Tensor]:
    """Violation (batch,) of each term by its name, at every interpolated step; 0 = met."""
    names = [term.name for term in terms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"terms share the names {repeated}; give each a name of its own")
    return {term.name: term.violation(trajectory) for term in terms}


def guide_of(terms: Sequence[Term]) -> Guide | None:
    """The sum of the terms' guides, None if there is none."""
    guides = [(1.0, term.guide) for term in terms if term.guide is not None]
    return weighted_sum(*guides) if guides else None


def project_onto(terms: Sequence[Term], fixed: Tensor, *, rounds: int = 8) -> Projection:
    """Projection onto all hard terms at once: alternating projections, at most ``rounds`` each.

    fixed: (batch, horizon) bool, rows that are pinned; for several candidates of each environment,
        side by side, it is repeated
    What could not be met shows in ``report_violations``.
    """
    hard = [(term, term.project) for term in terms if term.project is not None]

    def projection(trajectory: Trajectory) -> Trajectory:
        copies = len(trajectory.observations) // len(fixed)
        pinned = fixed.to(trajectory.observations.device).repeat_interleave(copies, dim=0)
        observations = trajectory.observations.clone()
        broken = torch.arange(len(pinned), device=pinned.device)
        for _ in range(rounds):
            part = replace(trajectory[broken], observations=observations[broken])
            for _, project in hard:
                part = project(part, pinned[broken])
            observations[broken] = part.observations
            if len(hard) == 1:
                break
            left = torch.stack([term.violation(part) > 0 for term, _ in hard]).any(dim=0)
            broken = broken[left]
            if not len(broken):
                break
        return replace(trajectory, observations=observations)

    return projection


def _norm(vectors: Tensor) -> Tensor:
    return (vectors.square().sum(dim=-1) + 1e-12).sqrt()  # finite slope at zero
