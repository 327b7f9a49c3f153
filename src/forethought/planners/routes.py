"""Ways around: a road map over states that the model itself imagines.

A trajectory model trained on the shortest ways hardly ever draws another one when an obstacle
closes the usual way. Its pieces still compose. States along many of its plans are the nodes of a
graph in the dimensions that the keep-out regions are about; near ones are joined; nodes that break
a hard term, or lie where few states are, are left out. The shortest way through it gives waypoints,
and legs between them are drawn from the model as usual. Neither the walls nor the simulator are
known to it. A path pushed to where no imagined states are is recognized by the same states.
References: search on states with a learned distance (Eysenbach et al. 2019, arXiv 1906.05253);
probabilistic road maps (Kavraki et al. 1996).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.data.splines import interpolate
from forethought.guides.terms import Term
from forethought.models.base import ArrivalEstimator, SamplerConfig, TrajectorySampler
from forethought.types import Pin, Trajectory

HOP = 0.25  # environment units: nodes this near are joined
NEIGHBORS = 5  # some imagined states are wrong: one alone supports nothing
POINTS = 6000  # states kept, thinned out where there are many
EVERY = 3  # environment steps between the states that are kept of a plan
LIKELY = -3.0  # least plausibility of plans whose states are kept
PLANS = 128  # imagined in each of the rounds


def imagine_states(
    model: TrajectorySampler,
    estimator: ArrivalEstimator,
    ends: Tensor,
    *,
    threshold: float,
    sampler: SamplerConfig,
    generator: torch.Generator | None,
    rounds: int = 7,
) -> Tensor:
    """(n, O): states along plans between states of earlier plans; first, between ``ends`` (2, O).

    Those of the first round arrive late on purpose, so that they wander; they only serve as ends.
    """
    owners, kept = ends, [ends]
    longest = int(model.plan_times(1)[-1])
    for turn in range(rounds):
        rare = _rarity(owners, generator) if turn > 1 else torch.ones(len(owners))
        pick = torch.multinomial(rare, 2 * PLANS, replacement=True, generator=generator)
        pick = pick.view(2, PLANS)
        start, goal = owners[pick[0]], owners[pick[1]]
        if turn == 0:
            start, goal = ends[:1].expand(PLANS, -1), ends[1:].expand(PLANS, -1)
        arrival = estimator.arrival_time(start, goal, threshold=threshold)
        if turn == 0:
            arrival = (arrival * torch.linspace(1, 3, PLANS)).long().clamp(max=longest)
        plans = model.sample(
            [Pin(0, start), Pin(arrival, goal, hold=True)],
            times=model.plan_times(int(arrival.max())),
            sampler=sampler,
            generator=generator,
        )
        score = estimator.plausibility(plans, arrival)
        likely = torch.ones(PLANS, dtype=torch.bool) if score is None else score[:, 0] > LIKELY
        path = interpolate(plans[:, 0])[:, ::EVERY]
        moving = torch.arange(path.shape[1]) * EVERY < arrival[:, None]
        states = path[moving & likely[:, None]]
        owners = torch.cat([owners, states])
        if turn:
            kept.append(states)
    found = torch.cat(kept)
    few = min(POINTS, len(found))
    return found[torch.multinomial(_rarity(found, generator), few, generator=generator)]


def _rarity(states: Tensor, generator: torch.Generator | None) -> Tensor:
    """(n,) weights that even out where states are: squared distance to the NEIGHBORS-th nearest of
    a sample of them, each dimension in units of its standard deviation."""
    scaled = states / states.std(dim=0).clamp(min=1e-6)
    sample = torch.randint(len(states), (min(1000, len(states)),), generator=generator)
    near = torch.cdist(scaled, scaled[sample])
    kth = near.topk(min(NEIGHBORS, near.shape[1]), dim=1, largest=False).values[:, -1]
    return kth.square() + 1e-6


class Support:
    """Where the model's imagined states are: a path pushed elsewhere is pushed into the unknown.

    states: (n, O);  dims: those that are compared
    """

    def __init__(self, states: Tensor, dims: Sequence[int]) -> None:
        self.states, self.dims = states, list(dims)
        self.points = self.states[:, self.dims]

    def distance(self, paths: Tensor) -> Tensor:
        """(batch,): how far the loneliest step of paths (batch, steps, O) is from the NEIGHBORS-th
        nearest imagined state, in environment units."""
        points = paths[..., self.dims]
        apart = torch.cdist(points.flatten(0, 1), self.points)
        near = apart.topk(min(NEIGHBORS, len(self.points)), dim=1, largest=False).values[:, -1]
        return near.unflatten(0, points.shape[:2]).amax(dim=1)


class Routes:
    """Shortest ways over supported states that meet the hard terms."""

    def __init__(
        self, estimator: ArrivalEstimator, support: Support, terms: Sequence[Term]
    ) -> None:
        self._estimator, self._dims = estimator, support.dims
        pairs = support.states[:, None].expand(-1, 2, -1)
        still = Trajectory(observations=pairs, actions=pairs[..., :0], times=torch.tensor([0, 1]))
        free = support.distance(support.states[:, None]) < HOP
        for term in terms:
            if term.is_hard and term.region_dims:
                free &= term.violation(still) <= 0
        self.states = support.states[free]
        self._points = support.points[free]
        apart = torch.cdist(self._points, self._points)
        self._near = [(row < HOP).nonzero()[:, 0].tolist() for row in apart]
        self._apart = apart

    def find(self, start: Tensor, goal: Tensor, spacing: float) -> Tensor | None:
        """(n, O) states about ``spacing`` apart from start (1, O), left out, to goal (1, O), kept;
        None: no way found."""
        ends = [
            (self._points - end[:, self._dims]).norm(dim=1).argmin().item() for end in (start, goal)
        ]
        path = self._shortest(int(ends[0]), int(ends[1]))
        if path is None:
            return None
        points = self._points[path]
        along = torch.cat([torch.zeros(1), points.diff(dim=0).norm(dim=1).cumsum(0)])
        count = int(along[-1] / spacing)
        marks = torch.arange(1, count + 1) * along[-1] / (count + 1)
        places = [path[int(i)] for i in torch.searchsorted(along, marks)]
        chosen, here = [], start
        for place, following in zip(places, [*places[1:], None][: len(places)], strict=True):
            ahead = goal if following is None else self._beside(following)
            here = self._smoothest(here, self._beside(place), ahead)
            chosen.append(here)
        return torch.cat([*chosen, goal])

    def _shortest(self, first: int, last: int) -> list[int] | None:
        """Dijkstra over hops between near nodes."""
        cost, back, queue = {first: 0.0}, {first: first}, [(0.0, first)]
        while queue and queue[0][1] != last:
            spent, node = heapq.heappop(queue)
            if spent > cost[node]:
                continue
            hops = self._apart[node]
            for other in self._near[node]:
                total = spent + float(hops[other])
                if total < cost.get(other, float("inf")):
                    cost[other], back[other] = total, node
                    heapq.heappush(queue, (total, other))
        if last not in back:
            return None
        path = [last]
        while path[-1] != first:
            path.append(back[path[-1]])
        return path[::-1]

    def _beside(self, node: int) -> Tensor:
        """(m, O): the states nearest to a node; they pass it in different directions."""
        return self.states[self._apart[node].topk(min(24, len(self.states)), largest=False).indices]

    def _smoothest(self, here: Tensor, options: Tensor, ahead: Tensor) -> Tensor:
        """The option (1, O) that is soonest reached and from which what lies ahead is."""
        n, m = len(options), len(ahead)
        to = self._estimator.arrival_time(here.expand(n, -1), options, threshold=0.0)
        onward = self._estimator.arrival_time(
            options.repeat_interleave(m, dim=0), ahead.repeat(n, 1), threshold=0.0
        )
        best = (to + onward.unflatten(0, (n, m)).amin(dim=1)).argmin()
        return options[best][None]
