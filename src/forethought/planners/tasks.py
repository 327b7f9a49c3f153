"""Plans for tasks made at test time: terms, waypoints, and ways around new obstacles.

    1. Legs: from the observation through the waypoints to the goal; the arrival classifier times
       each, unless times are given.
    2. For each leg, draw candidates under the terms' guides, project them onto the hard terms, and
       keep the best of those that meet them and that the model calls plausible.
    3. If there is none, look for a way around (``planners.routes``) and plan its pieces.
    4. A term that later arrival can meet (a speed limit) is met by slowing down the finished plan.

The plan has a row for every environment step, so what was checked is what is tracked. When asked
again, the planner keeps a plan that it is still on: a new one could choose the other side of an
obstacle every time. A plan along which nothing advances any more, as at a wall, is not kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from forethought.data.splines import interpolate
from forethought.guides.terms import Term, guide_of, project_onto, report_violations
from forethought.models.base import (
    ArrivalEstimator,
    Generator,
    GuidanceConfig,
    Model,
    TrajectorySampler,
    require,
)
from forethought.planners.base import Planner
from forethought.planners.dense import dense, join, remainder, still, watch
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.planners.routes import Routes, Support, imagine_states
from forethought.types import Pin, Plan, Trajectory

SUPPORTED = 0.2  # environment units: farther from imagined states a path counts as implausible
SPACING = 1.5  # environment units between the states of a way around
PLAUSIBLE = -4.0  # least sum of one-row log-probabilities of a leg; see ``ArrivalEstimator``


class TaskPlanner(Planner):
    """Plans with any model that samples trajectories and estimates arrival times.

    config: sampler, candidates a leg and arrival threshold are used; its length and slack are not
    terms: from ``guides.terms``; hard ones hold at every step of a plan or it is reported
    waypoints: observations (n, O) to pass through in this order, each pinned exactly
    times: (n,) environment steps at which to be there, multiples of the model's rows
    detours: look for ways around where no candidate meets the hard terms
    keep_within: largest distance, over all dimensions, at which an earlier plan is kept; 0 = never
    """

    chooses_arrival = True

    def __init__(
        self,
        model: Model,
        config: DiffusionPlannerConfig,
        *,
        terms: Sequence[Term] = (),
        waypoints: Tensor | None = None,
        times: Sequence[int] | None = None,
        detours: bool = True,
        keep_within: float = 1.5,
    ) -> None:
        self._sampler = require(model, TrajectorySampler, needed_by="TaskPlanner")
        self._estimator = require(model, ArrivalEstimator, needed_by="TaskPlanner")
        self.config, self.terms, self.detours = config, tuple(terms), detours
        self.keep_within = keep_within
        self._row_steps = int(self._sampler.plan_times(1).diff()[0])
        self._waypoints = torch.zeros(0, 0) if waypoints is None else waypoints
        self._times = None if times is None else tuple(times)
        self._check_times()
        self.states: Tensor | None = None
        self._support: Support | None = None
        self._routes: Routes | None = None
        self._calls = 0

    def _check_times(self) -> None:
        times = self._times
        if times is None:
            return
        if len(times) != len(self._waypoints) or list(times) != sorted({t for t in times if t > 0}):
            raise ValueError(
                f"times {times} for {len(self._waypoints)} waypoints: give one positive "
                "environment step a waypoint, increasing"
            )
        if any(t % self._row_steps for t in times):
            raise ValueError(
                f"waypoint times {times} must be multiples of {self._row_steps}, the environment "
                "steps between two rows of this model's plans"
            )

    @torch.no_grad()
    def plan(
        self,
        observation: Tensor,
        *,
        goal: Tensor | None = None,
        history: Trajectory | None = None,
        previous: Plan | None = None,
        remaining: Tensor | None = None,
        generator: Generator = None,
    ) -> Plan:
        """One environment at a time: observation and goal are (1, O).

        previous: with ``elapsed``, the environment steps since it was returned

        Raises ValueError for a goal or waypoint, or a first observation, that breaks a hard term.
        """
        began = time.perf_counter()
        if goal is None or len(observation) != 1:
            raise ValueError(
                f"TaskPlanner plans to a goal for one environment at a time; got "
                f"{len(observation)} observations and {'no' if goal is None else 'a'} goal"
            )
        passed, begun, kept = 0, 0, None
        if previous is not None:
            begun = previous.stats["begun"] + previous.elapsed
            step, apart = self._step_of(previous, observation)
            passed = sum(int(at) <= step for at in previous.stats["waypoint_steps"])
            passed += int(previous.stats["waypoints_passed"])
            watched, advances = watch(previous, step)
            if apart <= self.keep_within and previous.stats["is_met"] and advances:
                kept = remainder(previous, step)
                kept = replace(kept, stats={**kept.stats, "watched": watched, "begun": begun})
        else:
            self._refuse_broken(observation, "start")
        self._refuse_broken(goal, "goal")
        if kept is not None:
            return replace(kept, stats={**kept.stats, "seconds": time.perf_counter() - began})
        self._calls = 0
        stops = [*self._waypoints[passed:, None], goal]
        dims = sorted({d for term in self.terms if term.is_hard for d in term.region_dims})
        if dims and self.detours and self._support is None:
            self._support = Support(self._imagine(observation, goal, generator), dims)
        legs, met, here, clock = [], True, observation, begun
        for index, stop in enumerate(stops):
            steps = None
            if self._times and index < len(stops) - 1:
                rows = round((self._times[passed + index] - clock) / self._row_steps)
                steps = self._row_steps * max(1, rows)
            pieces, good = self._leg(here, stop, steps, generator)
            legs.append(join(pieces))
            clock, here, met = clock + legs[-1].horizon - 1, stop, met and good
        plan = self._finish(legs, passed, met, time.perf_counter() - began)
        return replace(plan, stats={**plan.stats, "begun": begun})

    def _step_of(self, plan: Plan, observation: Tensor) -> tuple[int, float]:
        """Row of an earlier plan at which the system is, and how far from it: by the clock where
        waypoints have times, else the nearest row up to it. A later row may look alike, and a
        controller that looks ahead would run ever faster along a plan that is kept from there."""
        apart = (plan.trajectory.observations[0, : plan.elapsed + 1] - observation).norm(dim=-1)
        step = len(apart) - 1 if self._times else int(apart.argmin())
        return step, float(apart[step])

    def _refuse_broken(self, observation: Tensor, name: str) -> None:
        broken = {k: float(v[0]) for k, v in self._at_rest(observation).items() if v[0] > 0}
        if broken:
            raise ValueError(
                f"the {name} {[round(x, 3) for x in observation[0].tolist()]} breaks hard terms "
                f"by {broken} (environment units); move it or the term"
            )

    def _at_rest(self, observation: Tensor) -> dict[str, Tensor]:
        """Violation of the hard terms by staying at an observation (1, O)."""
        return report_violations(
            still(observation[:, None]), [term for term in self.terms if term.is_hard]
        )

    def _leg(
        self, here: Tensor, stop: Tensor, steps: int | None, generator: Generator
    ) -> tuple[list[Trajectory], bool]:
        """Dense pieces (1, steps, O) from here to stop (1, O), and whether all hard terms hold."""
        piece, score = self._pieces(here, stop, steps, self.config.candidates, generator)
        if score[0] >= PLAUSIBLE or not self.detours or steps is not None:
            return piece, bool(score[0] > _BROKEN)
        detour, worst = self._detour(here, stop, generator)
        if worst <= score[0]:
            return piece, bool(score[0] > _BROKEN)
        return detour, True

    def _detour(
        self, here: Tensor, stop: Tensor, generator: Generator
    ) -> tuple[list[Trajectory], float]:
        """Pieces along a way around and the worst of their scores: each goes to the farthest state
        that a plausible piece reaches, or else to the one reached best."""
        pieces: list[Trajectory] = []
        if self._support is None:
            return pieces, 2 * _BROKEN
        if self._routes is None:
            self._routes = Routes(self._estimator, self._support, self.terms)
        route = self._routes.find(here, stop, SPACING)
        if route is None:
            return pieces, 2 * _BROKEN
        worst = 0.0
        while len(route):
            chosen = torch.linspace(0, len(route) - 1, min(len(route), 8)).round().long()
            starts = here.expand(len(chosen), -1)
            legs, scores = self._pieces(starts, route[chosen], None, 8, generator)
            good = (scores >= PLAUSIBLE).nonzero()[:, 0].tolist()
            best = good[-1] if good else int(scores.argmax())
            worst = min(worst, float(scores[best]))
            pieces.append(legs[best])
            here, route = route[chosen[best]][None], route[chosen[best] + 1 :]
        return pieces, worst

    def _imagine(self, here: Tensor, stop: Tensor, generator: Generator) -> Tensor:
        """(n, O) states the model imagines, once a planner; set ``states`` to share them."""
        if self.states is None:
            self.states = imagine_states(
                self._sampler,
                self._estimator,
                torch.cat([here, stop]),
                threshold=self.config.threshold,
                sampler=replace(self.config.sampler, guidance=GuidanceConfig()),
                generator=_single(generator),
            )
        return self.states

    def _pieces(
        self,
        here: Tensor,
        stop: Tensor,
        steps: int | None,
        n_candidates: int,
        generator: Generator,
    ) -> tuple[list[Trajectory], Tensor]:
        """For each of n pairs (n, O) the best piece (1, steps, O), and scores (n,)."""
        n = len(here)
        if steps is None:
            arrival = self._estimator.arrival_time(here, stop, threshold=self.config.threshold)
            arrival = arrival.cpu()
        else:
            arrival = torch.full((n,), steps)
        times = self._sampler.plan_times(int(arrival.max()))
        fixed = (times == 0) | (times >= arrival[:, None])
        now = [term for term in self.terms if steps is not None or term.delay is None]
        hard = [term for term in now if term.is_hard]
        drawn = self._sampler.sample(
            [Pin(0, here), Pin(arrival, stop, hold=True)],
            times=times,
            n_candidates=n_candidates,
            guide=guide_of(now),
            projection=project_onto(hard, fixed) if hard else None,
            sampler=self.config.sampler,
            generator=_single(generator),
            on_step=self._count,
        )
        best, score = self._choose(drawn, arrival, hard, now)
        pieces = []
        for i in range(n):
            rows = interpolate(drawn[i : i + 1, int(best[i])])
            pieces.append(dense(rows[:, : int(arrival[i]) + 1]))
        return pieces, score

    def _count(self, level: int, estimate: Trajectory, sample: Trajectory | None = None) -> None:
        self._calls += 1
        if self.on_step is not None:
            self.on_step(level, estimate, sample)

    def _choose(
        self, drawn: Trajectory, arrival: Tensor, hard: Sequence[Term], terms: Sequence[Term]
    ) -> tuple[Tensor, Tensor]:
        """Best candidate (n,) and its score (n,): plausibility, far below any where a hard term is
        broken. Among plausible candidates the one that soft terms like best is chosen."""
        shape = drawn.observations.shape[:2]
        flat = Trajectory(
            observations=drawn.observations.flatten(0, 1),
            actions=drawn.actions.flatten(0, 1),
            times=drawn.times,
        )
        score = self._estimator.plausibility(drawn, arrival)
        score = torch.zeros(shape) if score is None else score.clamp(min=_BROKEN / 2)
        for term in hard:
            # a plan cannot undo that it begins inside: only what it adds counts
            begun = term.violation(still(drawn.observations[:, 0, :1]))[:, None]
            excess = term.violation(flat).unflatten(0, shape)
            score = torch.where(excess > begun + 1e-6 * (begun > 0), 2 * _BROKEN - excess, score)
        score = self._doubt_unsupported(score, flat, arrival)
        soft = guide_of([term for term in terms if not term.is_hard])
        key = score
        if soft is not None:
            value = soft(flat, torch.zeros(len(flat.observations))).unflatten(0, shape)
            value = value - value.amin(dim=1, keepdim=True)
            key = torch.where(score >= PLAUSIBLE, value, score)
        best = key.argmax(dim=1)
        return best, score.gather(1, best[:, None])[:, 0]

    def _doubt_unsupported(self, score: Tensor, flat: Trajectory, arrival: Tensor) -> Tensor:
        """Call paths implausible that are far from every imagined state, as inside a wall."""
        if self._support is None:
            return score
        path = interpolate(flat)[:, : int(arrival.max()) + 1 : 4]
        lonely = self._support.distance(path).unflatten(0, score.shape)
        doubted = torch.minimum(score, PLAUSIBLE - 10 * lonely)
        return torch.where(lonely > SUPPORTED, doubted, score)

    def _finish(self, legs: list[Trajectory], passed: int, met: bool, seconds: float) -> Plan:
        steps, whole = [], None
        for leg in legs:
            for term in self.terms:
                if term.delay is not None and self._times is None:
                    leg = term.delay(leg)
            whole = leg if whole is None else join([whole, leg])
            steps.append(whole.horizon - 1)
        assert whole is not None, "there is always a leg to the goal"
        violations = report_violations(whole, self.terms)
        hard = [term.name for term in self.terms if term.is_hard]
        return Plan(
            trajectory=whole,
            stats={
                "arrival": torch.tensor([steps[-1]]),
                "network_calls": self._calls,
                "violations": violations,
                "is_met": met and all(float(violations[name][0]) <= 0 for name in hard),
                "waypoint_steps": steps[:-1],
                "waypoints_passed": passed,
                "seconds": seconds,
            },
        )


_BROKEN = -1e3  # scores at or below this break a hard term


def _single(generator: Generator) -> torch.Generator | None:
    return generator[0] if isinstance(generator, Sequence) else generator
