"""Ways around: a graph over states that the model itself imagines, joined by short arrival times.

A trajectory model trained on the shortest ways hardly ever draws another one when an obstacle
closes the usual way. Its short pieces still compose: states from many of its plans are the nodes,
and an edge joins two of them if the arrival classifier calls k rows likely for a small k and the
straight way between them breaks no term. The least sum of arrival times is the way around; plans
from one of its nodes to another, drawn by the model as usual, are the legs of the detour.
Neither the walls nor the simulator are known to it.
Reference: search on states joined by a learned distance (Eysenbach et al. 2019, arXiv 1906.05253).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.guides.terms import Term
from forethought.models.base import ArrivalEstimator, SamplerConfig, TrajectorySampler
from forethought.types import Pin, Trajectory

REACH_ROWS = 3  # edges are at most this many rows long
NODES = 500
PLANS = 64  # imagined in each of the rounds


def imagine_states(
    model: TrajectorySampler,
    estimator: ArrivalEstimator,
    ends: Tensor,
    *,
    threshold: float,
    sampler: SamplerConfig,
    generator: torch.Generator | None,
    rounds: int = 3,
) -> Tensor:
    """(NODES, O): states of plans between ``ends`` (2, O) and, in later rounds, between states of
    earlier plans. Plans arrive late on purpose in the first round, so that they wander."""
    found, owners = ends, ends
    for turn in range(rounds):
        pick = torch.randint(len(owners), (2, PLANS), generator=generator)
        start, goal = owners[pick[0]], owners[pick[1]]
        if turn == 0:
            start, goal = ends[:1].expand(PLANS, -1), ends[1:].expand(PLANS, -1)
        arrival = estimator.arrival_time(start, goal, threshold=threshold)
        longest = int(model.plan_times(1)[-1])
        if turn == 0:
            stretch = torch.linspace(1, 3, PLANS)
            arrival = (arrival * stretch).long()
        arrival = arrival.clamp(max=max(longest, int(arrival.min())))
        times = model.plan_times(int(arrival.max()))
        plans = model.sample(
            [Pin(0, start), Pin(arrival, goal, hold=True)],
            times=times,
            sampler=sampler,
            generator=generator,
        )
        score = estimator.plausibility(plans, arrival)
        likely = torch.ones(PLANS, dtype=torch.bool) if score is None else score[:, 0] > -3.0
        moving = (times < arrival[:, None]) & likely[:, None]
        owners = torch.cat([owners, plans.observations[:, 0][moving]])
    order = torch.randperm(len(owners), generator=generator)
    return torch.cat([found, owners[order[: NODES - len(found)]]])


class Routes:
    """Shortest ways over imagined states, for one set of terms.

    states: (n, O) from ``imagine_states``;  row_steps: environment steps a row
    """

    def __init__(
        self,
        estimator: ArrivalEstimator,
        states: Tensor,
        terms: Sequence[Term],
        *,
        threshold: float,
        row_steps: int,
    ) -> None:
        self._estimator, self._terms = estimator, [term for term in terms if term.is_hard]
        self._threshold, self._row_steps = threshold, row_steps
        self.states = states
        self._cost = self._edges(states, states)

    def find(self, start: Tensor, goal: Tensor) -> Tensor | None:
        """(n, O) states from start (1, O), left out, to goal (1, O), kept; None: no way found."""
        away, home = self._edges(start, self.states), self._edges(self.states, goal)
        to_go = home[:, 0].clone()  # least cost from each node to the goal
        for _ in range(len(to_go)):
            better = torch.minimum(to_go, (self._cost + to_go).amin(dim=1))
            if torch.equal(better, to_go):
                break
            to_go = better
        if not bool(torch.isfinite(away[0] + to_go).any()):
            return None
        path = [int((away[0] + to_go).argmin())]
        while home[path[-1], 0] > to_go[path[-1]]:
            path.append(int((self._cost[path[-1]] + to_go).argmin()))
        return torch.cat([self.states[path], goal])

    def _edges(self, first: Tensor, second: Tensor) -> Tensor:
        """(n, m) environment steps; infinite where there is no short, likely, allowed way."""
        n, m = len(first), len(second)
        cost = torch.full((n, m), torch.inf)
        for i, row in enumerate(first):
            logits = self._estimator.arrival_logits(row.expand(m, -1), second)[:, :REACH_ROWS]
            likely = logits > self._threshold
            rows = likely.int().argmax(dim=1) + 1
            cost[i] = torch.where(likely.any(dim=1), rows.float() * self._row_steps, torch.inf)
        owner, other = torch.isfinite(cost).nonzero(as_tuple=True)
        if len(owner) and self._terms:
            pairs = torch.stack([first[owner], second[other]], dim=1)
            straight = Trajectory(
                observations=pairs, actions=pairs[..., :0], times=torch.tensor([0, self._row_steps])
            )
            met = torch.ones(len(owner), dtype=torch.bool)
            for term in self._terms:
                if term.delay is None:
                    met &= term.violation(straight) <= 0
            cost[owner[~met], other[~met]] = torch.inf
        return cost
