"""Hard constraints on the interpolated plan: rows are moved until every step between them complies.

A step x(t) = sum_j W_tj r_j of the plan lies between rows. To move it by d, its two neighboring
rows (those that are not pinned) move by the smallest d_j with sum_j h_tj d_j = d, where h are the
weights of linear interpolation:

    d_j = h_tj d / sum_k h_tk^2.

A stretch of steps inside a region is pushed out in one direction, that of its middle for a disc
and that of the cheapest face for a box: pushing each step its own nearest way out would tear a path
through the middle apart and never end. Rounds repeat on what is left.
A path that is too fast keeps its shape and gets a new timing along its arc length.
Background: alternating projections (Bauschke and Borwein 1996); successive convexification, which
linearizes an obstacle along one direction a run (Schulman et al. 2014).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forethought.data.splines import interpolate_rows, stride_of
from forethought.types import Trajectory

ROUNDS = 40
SLACK = 1e-3  # environment units beyond the border, so that rounding does not count as inside
REACH = 4.0  # a row moves at most this many times as far as the step it carries must


class Region(ABC):
    """A set of points to keep out of."""

    @abstractmethod
    def grow(self, margin: float) -> Region:
        """The region with ``margin`` around it."""

    @abstractmethod
    def depth(self, points: Tensor) -> Tensor:
        """(...): how far inside points (..., P) are, negative outside."""

    @abstractmethod
    def ways_out(self, points: Tensor, run: Tensor, n_runs: int) -> Tensor:
        """(n, P): the displacement that moves each point (n, P) to the border, in one direction
        for all points with the same number in ``run`` (n,)."""


@dataclass(frozen=True)
class Disc(Region):
    """A disc, or a ball; in environment units."""

    center: tuple[float, ...]
    radius: float

    def grow(self, margin: float) -> Disc:
        return Disc(self.center, self.radius + margin)

    def depth(self, points: Tensor) -> Tensor:
        offset = points - points.new_tensor(self.center)
        return self.radius - (offset.square().sum(dim=-1) + 1e-12).sqrt()

    def ways_out(self, points: Tensor, run: Tensor, n_runs: int) -> Tensor:
        offset = points - points.new_tensor(self.center)
        middle = _mean_by(offset, run, n_runs)
        size = middle.norm(dim=-1, keepdim=True)
        middle = torch.where(size > 1e-4 * self.radius, middle, _across(offset, run, n_runs))
        direction = (middle / middle.norm(dim=-1, keepdim=True))[run]
        along = (offset * direction).sum(dim=-1)
        rest = self.radius**2 - offset.square().sum(dim=-1)
        return direction * ((along.square() + rest).clamp(min=0).sqrt() - along)[:, None]


@dataclass(frozen=True)
class Box(Region):
    """An axis-aligned box; in environment units."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def grow(self, margin: float) -> Box:
        low, high = (x - margin for x in self.low), (x + margin for x in self.high)
        return Box(tuple(low), tuple(high))

    def depth(self, points: Tensor) -> Tensor:
        return self._to_faces(points).amin(dim=-1)

    def ways_out(self, points: Tensor, run: Tensor, n_runs: int) -> Tensor:
        to_faces = self._to_faces(points)  # (n, 2 P)
        faces, width = to_faces.shape[-1], points.shape[-1]
        worst = to_faces.new_zeros(n_runs, faces)
        worst = worst.scatter_reduce(0, run[:, None].expand(-1, faces), to_faces, "amax")
        face = worst.argmin(dim=-1)[run]
        distance = to_faces.gather(1, face[:, None])[:, 0]
        out = torch.zeros_like(points)
        sign = torch.where(face < width, -1.0, 1.0)
        return out.scatter(1, (face % width)[:, None], (sign * distance)[:, None])

    def _to_faces(self, points: Tensor) -> Tensor:
        """(..., 2 P): distances to the low faces, then to the high ones."""
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        return torch.cat([points - low, high - points], dim=-1)


def _mean_by(values: Tensor, run: Tensor, n_runs: int) -> Tensor:
    total = values.new_zeros(n_runs, values.shape[1]).index_add(0, run, values)
    return total / torch.bincount(run, minlength=n_runs)[:, None]


def _across(offset: Tensor, run: Tensor, n_runs: int) -> Tensor:
    """(n_runs, P): for runs right through the center, a direction at right angles to them."""
    index = torch.arange(len(run), device=run.device)
    last = torch.zeros(n_runs, dtype=torch.long, device=run.device).scatter_reduce(
        0, run, index, "amax"
    )
    chord = offset[last]
    turned = torch.zeros_like(chord)
    turned[:, 0], turned[:, 1] = -chord[:, 1], chord[:, 0]
    unit = torch.zeros_like(chord)
    unit[:, 0] = 1.0
    return torch.where(turned.norm(dim=-1, keepdim=True) > 1e-9, turned, unit)


def push_out(
    trajectory: Trajectory, fixed: Tensor, region: Region, dims: Sequence[int]
) -> Trajectory:
    """Move rows until no interpolated step is in ``region``; fixed rows (batch, horizon) stay.

    At most ``ROUNDS`` rounds; a plan that cannot comply (a pinned row inside) comes back as it got.
    """
    stride, columns = stride_of(trajectory), list(dims)
    rows = trajectory.observations[..., columns].clone()
    target = region.grow(SLACK)
    broken = torch.arange(len(rows), device=rows.device)
    for _ in range(ROUNDS):
        path = interpolate_rows(rows[broken], stride)
        left = (region.depth(path) > 0).any(dim=1)
        if not bool(left.any()):
            break
        broken, path = broken[left], path[left]
        inside = target.depth(path) > 0
        run, n_runs = _runs(inside)
        moves = target.ways_out(path[inside], run, n_runs)
        rows[broken] += _spread(moves, inside, stride, fixed[broken])
    observations = trajectory.observations.clone()
    observations[..., columns] = rows
    return replace(trajectory, observations=observations)


def _runs(inside: Tensor) -> tuple[Tensor, int]:
    """The number (n,) of the contiguous run that each of the n True entries of (B, T) is in."""
    before = torch.cat([torch.zeros_like(inside[:, :1]), inside[:, :-1]], dim=1)
    number = (inside & ~before).flatten().cumsum(0) - 1
    run = number[inside.flatten()]
    return run, int(run[-1]) + 1


def _spread(moves: Tensor, inside: Tensor, stride: int, fixed: Tensor) -> Tensor:
    """(B, H, P) displacements of rows that carry those wanted of steps, (n, P); of several that a
    row is asked for, the largest."""
    batch, horizon = fixed.shape
    owner, step = inside.nonzero(as_tuple=True)
    row = (step // stride).clamp(max=horizon - 2)
    u = step / stride - row
    pair = torch.stack([row, row + 1], dim=1)  # (n, 2)
    free = torch.stack([1 - u, u], dim=1) * ~fixed[owner[:, None], pair]
    share = free / free.square().sum(dim=1, keepdim=True).clamp(min=1e-9)
    wanted = moves[:, None] * share.clamp(max=REACH)[..., None]  # (n, 2, P)
    size = wanted.norm(dim=-1).flatten()
    index = (owner[:, None] * horizon + pair).flatten()
    largest = size.new_zeros(batch * horizon).scatter_reduce(0, index, size, "amax")
    chosen = (size >= largest[index]) & (size > 0)
    total = moves.new_zeros(batch * horizon, moves.shape[1])
    total = total.index_add(0, index[chosen], wanted.flatten(0, 1)[chosen])
    ties = torch.bincount(index[chosen], minlength=batch * horizon)
    return (total / ties.clamp(min=1)[:, None]).unflatten(0, (batch, horizon))


def limit_speed(
    trajectory: Trajectory,
    fixed: Tensor,
    limit: float,
    *,
    time_step: float,
    position: Sequence[int],
    velocity: Sequence[int],
) -> Trajectory:
    """New timing along the same path, so that no interpolated step is faster than ``limit``.

    The spline may be up to 1.5 times as fast as the steps between its rows, so the cap on those is
    lowered until the spline complies. A plan that must cover too much way between two fixed rows
    comes back at even speed, too fast.
    """
    stride = stride_of(trajectory)
    result = trajectory.observations
    for share in (0.999, 0.97, 0.93, 0.88, 0.8, 0.66):
        broken = _fastest(result, stride, time_step, position, velocity) > limit
        if not bool(broken.any()):
            break
        cap = share * limit
        timed = _retime(
            trajectory.observations[broken], fixed[broken], stride, cap * time_step, position
        )
        free = ~fixed[broken][..., None]
        if velocity:
            columns = list(velocity)
            fast = timed[..., columns]
            slow = fast * (cap / fast.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
            timed[..., columns] = torch.where(free, slow, fast)
        result = result.clone()
        result[broken] = torch.where(free, timed, trajectory.observations[broken])
    return replace(trajectory, observations=result)


def _fastest(
    rows: Tensor, stride: int, time_step: float, position: Sequence[int], velocity: Sequence[int]
) -> Tensor:
    dense = interpolate_rows(rows, stride)
    fastest = dense[..., list(position)].diff(dim=1).norm(dim=-1).amax(dim=1) / time_step
    if not velocity:
        return fastest
    return torch.maximum(fastest, dense[:, 1:][..., list(velocity)].norm(dim=-1).amax(dim=1))


def _retime(
    rows: Tensor, fixed: Tensor, stride: int, per_step: float, position: Sequence[int]
) -> Tensor:
    """(n, H, O): rows moved along their own interpolated path, at most ``per_step`` a step."""
    dense = interpolate_rows(rows, stride)
    moved = dense[..., list(position)].diff(dim=1).norm(dim=-1)
    along = torch.cat([torch.zeros_like(moved[:, :1]), moved.cumsum(dim=1)], dim=1)  # (n, T)
    timed = rows.clone()
    cap = per_step * stride
    for b in range(len(rows)):
        stops = [0, *(fixed[b].nonzero()[:, 0].tolist()), rows.shape[1] - 1]
        for first, last in zip(stops[:-1], stops[1:], strict=True):
            if last - first < 2:
                continue
            marks = along[b, first * stride : last * stride + 1 : stride]
            wanted = marks[0] + _even_out(marks.diff(), cap).cumsum(0)[:-1]
            step = torch.searchsorted(along[b].contiguous(), wanted).clamp(
                first * stride + 1, last * stride
            )
            low, high = along[b, step - 1], along[b, step]
            u = ((wanted - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)[:, None]
            timed[b, first + 1 : last] = torch.lerp(dense[b, step - 1], dense[b, step], u)
    return timed


def _even_out(lengths: Tensor, cap: float) -> Tensor:
    """Lengths with the same sum, none above ``cap`` if that is possible, else all equal."""
    clipped = lengths.clamp(max=cap)
    room = cap - clipped
    missing, available = (lengths - clipped).sum(), room.sum()
    if missing >= available:
        return lengths.mean().expand_as(lengths)
    return clipped + room * (missing / available.clamp(min=1e-12))


def slow_down(
    trajectory: Trajectory,
    limit: float,
    time_step: float,
    position: Sequence[int],
    velocity: Sequence[int],
) -> Trajectory:
    """The same path, each part of it as much slower as ``limit`` asks; ends later.

    trajectory: (1, steps, O), a row for every environment step
    """
    if stride_of(trajectory) != 1 or len(trajectory.observations) != 1:
        raise ValueError("slow_down takes one plan with a row for every environment step")
    rows = trajectory.observations[0]
    moved = rows[:, list(position)].diff(dim=0).norm(dim=-1) / time_step
    speed = rows[:, list(velocity)].norm(dim=-1) if velocity else torch.zeros_like(rows[:, 0])
    factor = (torch.maximum(moved, torch.maximum(speed[1:], speed[:-1])) / limit).clamp(min=1)
    arrivals = torch.cat([factor.new_zeros(1), factor.double().cumsum(0).to(factor)])
    steps = torch.arange(int(arrivals[-1].ceil()) + 1, device=rows.device)
    here = torch.searchsorted(arrivals, steps.to(arrivals)).clamp(1, len(factor))
    u = ((steps - arrivals[here - 1]) / factor[here - 1]).clamp(0, 1)[:, None]
    slowed = torch.lerp(rows[here - 1], rows[here], u)
    if velocity:
        later = factor[here - 1][:, None].clone()
        later[0] = 1.0  # the velocity now is what it is
        slowed[:, list(velocity)] /= later
    return Trajectory(observations=slowed[None], actions=slowed[None, :, :0], times=steps.cpu())
