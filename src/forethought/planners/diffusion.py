"""Planning as inpainting: sample trajectories between the observation and the goal.

The start is pinned at step 0 and the goal at the arrival time and after it (thesis Section 5.3,
"Goal-conditioned reinforcement learning as inpainting"). The arrival time is fixed (``length``,
the thesis), or the earliest one that the model's arrival-time classifier calls likely.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forethought.config import PlannerConfig
from forethought.guides.terms import Term, guide_of, report_violations
from forethought.models.base import (
    ArrivalEstimator,
    Generator,
    Model,
    SamplerConfig,
    TrajectorySampler,
    WarmStart,
    require,
)
from forethought.planners.base import Planner
from forethought.planners.budget import Calibration, PlanCost, Stopwatch
from forethought.planners.warm_start import warm_start
from forethought.registry import planners
from forethought.types import Guide, Pin, Plan, Projection, Trajectory

DOUBT_CANDIDATES = 8  # drawn when the last plan has led nowhere
MOST_DOUBT = 16  # times in a row that put an arrival off further: plans stay bounded


@planners.register("diffusion")
@dataclass(frozen=True, kw_only=True)
class DiffusionPlannerConfig(PlannerConfig):
    """Settings of ``DiffusionPlanner``."""

    length: int = 0
    """environment steps from start to goal; 0 = the earliest likely arrival"""
    threshold: float = 1.0
    """log density ratio above which an arrival time counts as likely (length 0 only)"""
    slack: int = 0
    """environment steps added to the earliest likely arrival; not with goal_time receding"""
    candidates: int = 1
    """plans drawn; with a guide the best by its value is kept, else the smoothest path (least sum
    of squared steps, in environment units)"""
    sampler: SamplerConfig = SamplerConfig()
    patience: float = 0.25
    """when an arrival is chosen anew though the last estimate of it has not come nearer, something
    is in the way: put it off by this share, more each time in a row, and draw DOUBT_CANDIDATES at
    least; 0 = believe every estimate"""
    warm_start: float = 0.0
    """share of the noise levels to noise the rest of the previous plan to, and of the sampler's
    steps to denoise it with; 0 = every plan starts from noise alone"""
    budget_ms: float = 0.0
    """wall-clock time a plan may take; sampler.steps and candidates are then the most it uses, the
    steps coming first. The first plan of a shape also measures what fits. 0 = no limit"""

    def build(self, model: Model) -> DiffusionPlanner:
        return DiffusionPlanner(model, self)


@dataclass(frozen=True)
class _Task:
    """One call's arguments for the sampler."""

    pins: list[Pin]
    times: Tensor
    arrival: Tensor
    estimate: Tensor
    doubt: Tensor
    start: WarmStart | None


class DiffusionPlanner(Planner):
    """Plans with any ``TrajectorySampler``; sees the observation and the goal, nothing else.

    model: also an ``ArrivalEstimator`` if ``config.length`` is 0
    guide: soft preferences, (trajectory, noise level) -> (batch,), higher is better
    projection: hard constraints, applied to every clean estimate and to the result
    terms: reported in ``stats["violations"]``; without a ``guide`` their guides bend the plan. For
        plans that must meet hard terms see ``planners.tasks.TaskPlanner``
    """

    def __init__(
        self,
        model: Model,
        config: DiffusionPlannerConfig = DiffusionPlannerConfig(),
        *,
        guide: Guide | None = None,
        projection: Projection | None = None,
        terms: Sequence[Term] = (),
    ) -> None:
        self.config, self.terms = config, tuple(terms)
        self.guide = guide_of(terms) if guide is None else guide
        self.projection = projection
        self._sampler = require(model, TrajectorySampler, needed_by="DiffusionPlanner")
        self._estimator: ArrivalEstimator | None = None
        if min(config.length, config.slack) < 0 or config.candidates < 1:
            raise ValueError(
                f"planner.length {config.length} must be 0 (earliest arrival) or positive, "
                f"planner.slack {config.slack} not negative, and planner.candidates "
                f"{config.candidates} at least 1"
            )
        if config.budget_ms < 0 or (config.budget_ms and not config.sampler.steps):
            raise ValueError(
                f"planner.budget_ms {config.budget_ms} must not be negative, and with a budget "
                f"planner.sampler.steps ({config.sampler.steps}) says how many steps are wanted"
            )
        if not config.length:
            needed_by = "DiffusionPlanner with length 0"
            self._estimator = require(model, ArrivalEstimator, needed_by=needed_by)
        # slack would be added anew by every replanning, and the goal never reached
        self.chooses_arrival = self._estimator is not None and not config.slack
        self._judge = model if isinstance(model, ArrivalEstimator) else None
        self._calibrations: dict[tuple[int, int], Calibration] = {}  # by batch and rows

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
        began = time.perf_counter()
        task = self._pose(observation, goal, previous, remaining)
        sampler, n_candidates = self.config.sampler, self.config.candidates
        if bool(task.doubt.any()):
            n_candidates = max(n_candidates, DOUBT_CANDIDATES)
        watch = Stopwatch(began, on_step=self.on_step)
        cost = None
        if self.config.budget_ms:
            costs = self._costs_of(task, lambda: self._pose(observation, goal, previous, remaining))
            began = max(began, costs.built)
            sampler, n_candidates, cost = costs.choose(sampler, task.start)
            deadline = began + self.config.budget_ms / 1e3
            watch = Stopwatch(began, on_step=self.on_step, deadline=deadline, cost=cost)
        candidates = self._draw(task, sampler, n_candidates, generator, watch)
        best, values = self._choose(candidates, task.arrival)
        if cost is not None:
            cost.follow(watch.cost())
        stats = {
            "arrival": task.arrival,
            "network_calls": watch.calls,
            "seconds": time.perf_counter() - began,
            "estimate": task.estimate,
            "doubt": task.doubt,
        }
        rows, value = torch.arange(len(best), device=best.device), None
        if values is not None:
            stats["values"], value = values, values[rows, best]
        trajectory = candidates[rows, best]
        if self.terms:
            stats["violations"] = report_violations(trajectory, self.terms)
        return Plan(trajectory=trajectory, value=value, candidates=candidates, stats=stats)

    def _pose(
        self,
        observation: Tensor,
        goal: Tensor | None,
        previous: Plan | None,
        remaining: Tensor | None,
    ) -> _Task:
        """What to sample: pins at the start and the goal, rows up to the arrival, a first guess."""
        estimate = self._estimate(observation, goal, remaining)
        doubt = self._doubt(estimate, previous)
        arrival = (estimate * (1 + self.config.patience * doubt)).round().long()
        pins = [Pin(0, observation)]
        if goal is not None:
            pins.append(Pin(arrival, goal, hold=True))
        times = self._sampler.plan_times(int(arrival.max()))
        start = None
        if self.config.warm_start and previous is not None:
            start = warm_start(previous, times, arrival, self.config.warm_start)
        return _Task(pins, times, arrival, estimate, doubt, start)

    def _draw(
        self,
        task: _Task,
        sampler: SamplerConfig,
        n_candidates: int,
        generator: Generator,
        watch: Stopwatch,
    ) -> Trajectory:
        return self._sampler.sample(
            task.pins,
            times=task.times,
            n_candidates=n_candidates,
            guide=self.guide,
            projection=self.projection,
            sampler=sampler,
            generator=generator,
            on_step=watch,
            start=task.start,
        )

    def _costs_of(self, task: _Task, pose: Callable[[], _Task]) -> Calibration:
        """What plans of this task's shape cost, measured the first time."""
        shape = (len(task.arrival), len(task.times))
        if shape not in self._calibrations:
            # two calls at least, so that one can be told from the rest
            sampler = replace(self.config.sampler, steps=max(2, min(3, self.config.sampler.steps)))

            def run(n_candidates: int) -> PlanCost:
                watch = Stopwatch(time.perf_counter())
                again = replace(pose(), start=None)
                noise = torch.Generator().manual_seed(0)
                self._choose(self._draw(again, sampler, n_candidates, noise, watch), task.arrival)
                return watch.cost()

            seconds = self.config.budget_ms / 1e3
            self._calibrations[shape] = Calibration(run, self.config.candidates, seconds)
        return self._calibrations[shape]

    def _doubt(self, estimate: Tensor, previous: Plan | None) -> Tensor:
        """(batch,) how often in a row the time to go, half of what has passed at least, has not
        shrunk."""
        known = None if previous is None else previous.stats.get("estimate")
        if known is None or previous is None or not (self.chooses_arrival and self.config.patience):
            return torch.zeros_like(estimate)
        held_up = estimate > known - previous.elapsed / 2
        return (previous.stats["doubt"] + 1).clamp(max=MOST_DOUBT) * held_up

    def _estimate(
        self, observation: Tensor, goal: Tensor | None, remaining: Tensor | None
    ) -> Tensor:
        """(batch,) environment steps until the goal."""
        if remaining is not None:
            return remaining.clamp(min=1)
        if self._estimator is None or goal is None:
            length = self.config.length
            if not length:
                raise ValueError("planning without a goal needs planner.length, the plan's steps")
            return torch.full((len(observation),), length)
        arrival = self._estimator.arrival_time(observation, goal, threshold=self.config.threshold)
        return arrival.cpu() + self.config.slack

    def _choose(self, candidates: Trajectory, arrival: Tensor) -> tuple[Tensor, Tensor | None]:
        """The best candidate of each environment, and (batch, candidates) values if there is
        something to judge: the guide's, else (of several) the model's judgment or minus the squared
        steps."""
        if self.guide is None and candidates.observations.shape[1] == 1:
            return torch.zeros(len(arrival), dtype=torch.int64), None
        values = self._values(candidates, arrival)
        return values.argmax(dim=1), values

    def _values(self, candidates: Trajectory, arrival: Tensor) -> Tensor:
        """(batch, candidates), higher is better."""
        observations = candidates.observations
        if self.guide is None:
            judged = self._judge.plausibility(candidates, arrival) if self._judge else None
            if judged is not None:
                return judged
            return -observations.diff(dim=-2).square().sum(dim=(-1, -2))
        flat = Trajectory(
            observations=observations.flatten(0, 1),
            actions=candidates.actions.flatten(0, 1),
            times=candidates.times,
        )
        level = torch.zeros(len(flat.observations), device=observations.device)
        return self.guide(flat, level).unflatten(0, observations.shape[:2])
