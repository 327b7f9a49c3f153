"""Planning within a wall-clock budget: what fits is measured, and the clock has the last word.

The time of a plan is before + calls * call + after, where ``call`` grows with the number of
candidates. A planner measures these on its first plan, takes as many of the wanted denoising steps
and then of the wanted candidates as fit, and looks at the clock after every network call: where the
next one would end too late, the present estimate of the clean plan is the result. One network call
is the least, however small the budget.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from forethought.models.base import OnStep, SamplerConfig, WarmStart
from forethought.types import Trajectory

MARGIN = 1.25  # on every estimated time; a call's own spread on an idle machine is about 10 %
RATE = 0.1  # of the running averages, so that they follow the machine's load
REPEATS = 3


@dataclass
class PlanCost:
    """Seconds: up to the first network call, for each call, and after the last."""

    before: float
    call: float
    after: float

    def plan(self, calls: int) -> float:
        """Estimate for a whole plan, margin included."""
        return MARGIN * (self.before + calls * self.call + self.after)

    def follow(self, seen: PlanCost) -> None:
        """Move toward a new measurement; one odd pause counts as no more than twice the usual."""
        for name in ("before", "call", "after"):
            usual = vars(self)[name]
            step = min(vars(seen)[name], 2 * usual) - usual
            setattr(self, name, usual + RATE * step)


class Stopwatch:
    """Times one plan from inside: pass it as ``on_step``; it stops the sampler at the deadline.

    began: ``time.perf_counter()`` at the plan's start
    deadline: same clock, None = none;  cost: what the next call and the rest would take
    """

    def __init__(
        self,
        began: float,
        *,
        on_step: OnStep | None = None,
        deadline: float | None = None,
        cost: PlanCost | None = None,
    ) -> None:
        self._began, self._on_step, self._deadline = began, on_step, deadline
        self._reserve = 0.0 if cost is None else MARGIN * (cost.call + cost.after)
        self._usual_call = 0.0 if cost is None else cost.call
        self._marks: list[float] = []

    def __call__(
        self, level: int, estimate: Trajectory, sample: Trajectory | None = None, /
    ) -> bool:
        stop = bool(self._on_step and self._on_step(level, estimate, sample))
        now = time.perf_counter()
        self._marks.append(now)
        return stop or (self._deadline is not None and now + self._reserve > self._deadline)

    @property
    def calls(self) -> int:
        return len(self._marks)

    def cost(self) -> PlanCost:
        """What this plan took until now; a single call is not told apart from what is before it."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        gaps = [after - before for before, after in pairs]
        if not self._marks:
            return PlanCost(time.perf_counter() - self._began, self._usual_call, 0.0)
        first = self._marks[0] - self._began
        call = statistics.median(gaps) if gaps else self._usual_call
        return PlanCost(max(first - call, 0.0), call, time.perf_counter() - self._marks[-1])


class Calibration:
    """Costs by number of candidates, for one shape of plan; measured when it is built.

    run: makes a plan of two or more network calls with so many candidates and returns its cost
    seconds: the budget. Numbers of candidates are tried in powers of two while one call fits it
    """

    def __init__(
        self, run: Callable[[int], PlanCost], most_candidates: int, seconds: float
    ) -> None:
        powers = [2**k for k in range(most_candidates.bit_length())]
        self._seconds = seconds
        self._costs: dict[int, PlanCost] = {}
        for candidates in sorted({*powers, most_candidates}):
            run(candidates)  # warm-up
            runs = [run(candidates) for _ in range(REPEATS)]
            self._costs[candidates] = PlanCost(
                *(statistics.median(vars(each)[name] for each in runs) for name in vars(runs[0]))
            )
            if self._costs[candidates].plan(1) > seconds:
                break
        self.built = time.perf_counter()

    def choose(
        self, wanted: SamplerConfig, start: WarmStart | None
    ) -> tuple[SamplerConfig, int, PlanCost]:
        """Sampler, candidates and their cost that fit: of the steps wanted first, then candidates.

        The cost is this calibration's own, to be corrected by what is seen.
        """
        share = 1.0 if start is None else start.share
        calls = max(1, round(share * wanted.steps))
        one = self._costs[1]
        spare = self._seconds / MARGIN - one.before - one.after
        affordable = max(1, min(calls, int(spare / one.call)))
        fitting = [k for k, cost in self._costs.items() if cost.plan(affordable) <= self._seconds]
        candidates = max(fitting, default=1)
        if affordable < calls:
            wanted = replace(wanted, steps=max(1, int(affordable / share)))
        return wanted, candidates, self._costs[candidates]
