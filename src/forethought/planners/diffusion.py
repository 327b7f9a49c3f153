"""Planning as inpainting: sample trajectories between the observation and the goal.

The start is pinned at step 0 and the goal at the arrival time and after it (thesis Section 5.3,
"Goal-conditioned reinforcement learning as inpainting"). The arrival time is fixed (``length``,
the thesis), or the earliest one that the model's arrival-time classifier calls likely.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from forethought.config import PlannerConfig
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
from forethought.planners.warm_start import remaining as remaining_of
from forethought.planners.warm_start import shift
from forethought.registry import planners
from forethought.types import Guide, Pin, Plan, Projection, Trajectory


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
    warm_start: float = 0.0
    """share of the noise levels to noise the rest of the previous plan to, and of the sampler's
    steps to denoise it with; 0 = every plan starts from noise alone"""

    def build(self, model: Model) -> DiffusionPlanner:
        return DiffusionPlanner(model, self)


class DiffusionPlanner(Planner):
    """Plans with any ``TrajectorySampler``; sees the observation and the goal, nothing else.

    model: also an ``ArrivalEstimator`` if ``config.length`` is 0
    guide: soft preferences, (trajectory, noise level) -> (batch,), higher is better
    projection: hard constraints, applied to every clean estimate and to the result
    """

    def __init__(
        self,
        model: Model,
        config: DiffusionPlannerConfig = DiffusionPlannerConfig(),
        *,
        guide: Guide | None = None,
        projection: Projection | None = None,
    ) -> None:
        self.config = config
        self.guide, self.projection = guide, projection
        self._sampler = require(model, TrajectorySampler, needed_by="DiffusionPlanner")
        self._estimator: ArrivalEstimator | None = None
        if min(config.length, config.slack) < 0 or config.candidates < 1:
            raise ValueError(
                f"planner.length {config.length} must be 0 (earliest arrival) or positive, "
                f"planner.slack {config.slack} not negative, and planner.candidates "
                f"{config.candidates} at least 1"
            )
        if not config.length:
            needed_by = "DiffusionPlanner with length 0"
            self._estimator = require(model, ArrivalEstimator, needed_by=needed_by)
        # slack would be added anew by every replanning, and the goal never reached
        self.chooses_arrival = self._estimator is not None and not config.slack
        self._judge = model if isinstance(model, ArrivalEstimator) else None

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
        pins = [Pin(0, observation)]
        import os

        V = os.environ.get("WARMV", "B")
        if V == "A" and self.config.warm_start and previous is not None and remaining is None:
            left = remaining_of(previous)
            if int(left.min()) >= 8:
                remaining = left
        arrival = self._arrival(observation, goal, remaining)
        if goal is not None:
            pins.append(Pin(arrival, goal, hold=True))
        calls = 0

        def count(level: int, estimate: Trajectory) -> None:
            nonlocal calls
            calls += 1
            if self.on_step is not None:
                self.on_step(level, estimate)

        times = self._sampler.plan_times(int(arrival.max()))
        candidates = self._sampler.sample(
            pins,
            times=times,
            start=self._start(previous, times, arrival),
            n_candidates=self.config.candidates,
            guide=self.guide,
            projection=self.projection,
            sampler=self.config.sampler,
            generator=generator,
            on_step=count,
        )
        value = self._score(candidates, arrival)
        best = value.argmax(dim=1)
        rows = torch.arange(len(best), device=best.device)
        stats = {
            "arrival": arrival,
            "network_calls": calls,
            "seconds": time.perf_counter() - began,
        }
        return Plan(
            trajectory=candidates[rows, best],
            value=value[rows, best],
            candidates=candidates,
            stats=stats,
        )

    def _arrival(
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

    def _start(self, previous: Plan | None, times: Tensor, arrival) -> WarmStart | None:
        """The rest of the previous plan, unless it has arrived already."""
        if previous is None or not self.config.warm_start:
            return None
        left = remaining_of(previous)
        if left is not None and int(left.min()) < 1:
            return None
        import os

        V = os.environ.get("WARMV", "B")
        if V[0] == "C":
            if int((arrival - left).max()) > int(V[1:]) * int(times[1]):
                return None
        if V[0] == "D":
            if int((arrival - left).abs().max()) > int(V[1:]) * int(times[1]):
                return None
        return WarmStart(trajectory=shift(previous, times), share=self.config.warm_start)

    def _score(self, candidates: Trajectory, arrival: Tensor) -> Tensor:
        """(batch, candidates): the guide's value, the model's judgment, or minus squared steps."""
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
