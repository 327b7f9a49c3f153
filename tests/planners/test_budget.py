"""Laws of planning within a budget: what it may cut, and that a plan always comes out."""

from dataclasses import replace

import pytest
import torch

from forethought.guides.goals import reach
from forethought.models.base import SamplerConfig, WarmStart
from forethought.planners.budget import MARGIN, Calibration, PlanCost, Stopwatch
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.types import Trajectory

WANTED = DiffusionPlannerConfig(sampler=SamplerConfig(kind="ddim", steps=4), candidates=3)


def plan(model, config: DiffusionPlannerConfig, guide=None, on_step=None):
    planner = DiffusionPlanner(model, config, guide=guide)
    planner.on_step = on_step
    generator = torch.Generator().manual_seed(0)
    return planner.plan(torch.zeros(2, 3), goal=torch.ones(2, 3), generator=generator)


@pytest.mark.parametrize("guided", [False, True])
def test_a_huge_budget_changes_nothing(tiny_model, guided):
    guide = reach([0.5, 0.5, 0.5], time=3) if guided else None
    free = plan(tiny_model, WANTED, guide)
    timed = plan(tiny_model, replace(WANTED, budget_ms=1e6), guide)
    assert timed.stats["network_calls"] == 4
    torch.testing.assert_close(
        timed.candidates.observations, free.candidates.observations, rtol=0, atol=0
    )
    torch.testing.assert_close(timed.value, free.value, rtol=0, atol=0)


@pytest.mark.parametrize("guided", [False, True])
def test_an_impossible_budget_still_gives_a_plan_that_meets_its_pins(tiny_model, guided):
    guide = reach([0.5, 0.5, 0.5], time=3) if guided else None
    made = plan(tiny_model, replace(WANTED, budget_ms=1e-6), guide)
    assert made.stats["network_calls"] == 1 and made.candidates.observations.shape[1] == 1
    rows = made.trajectory.observations
    assert bool(rows.isfinite().all())
    torch.testing.assert_close(rows[:, 0], torch.zeros(2, 3), atol=1e-6, rtol=0)
    for env, arrival in enumerate(made.stats["arrival"].tolist()):
        torch.testing.assert_close(rows[env, arrival], torch.ones(3))


def test_a_chain_that_is_stopped_returns_its_last_estimate(tiny_model):
    estimates: list[Trajectory] = []

    def stop_at_third(level: int, estimate: Trajectory, sample: Trajectory | None = None) -> bool:
        estimates.append(estimate)
        return len(estimates) == 3

    made = plan(tiny_model, replace(WANTED, candidates=1), on_step=stop_at_third)
    assert made.stats["network_calls"] == 3
    torch.testing.assert_close(made.trajectory.observations, estimates[-1].observations)


def test_stopwatch_stops_when_the_next_call_would_end_too_late():
    cost = PlanCost(before=0.0, call=100.0, after=0.0)
    estimate = Trajectory(
        observations=torch.zeros(1, 2, 1), actions=torch.zeros(1, 2, 0), times=torch.arange(2)
    )
    import time

    now = time.perf_counter()
    assert Stopwatch(now, deadline=now + 99, cost=cost)(0, estimate)
    assert not Stopwatch(now, deadline=now + 1e4, cost=cost)(0, estimate)
    assert not Stopwatch(now)(0, estimate), "no deadline"


def calibration(milliseconds: float, most: int = 16) -> Calibration:
    """Of a machine where a call takes 2 ms, and 1 ms more for each further candidate."""
    return Calibration(lambda k: PlanCost(1e-3, 1e-3 * (1 + k), 0.0), most, milliseconds / 1e3)


@pytest.mark.parametrize(
    ("milliseconds", "steps", "candidates"),
    [
        (1, 1, 1),  # nothing fits: the least there is
        (5 * MARGIN, 2, 1),
        (9 * MARGIN, 4, 1),  # all steps wanted
        (13 * MARGIN, 4, 2),  # then candidates
        (500, 4, 16),
    ],
)
def test_a_budget_buys_steps_first_and_candidates_with_the_rest(milliseconds, steps, candidates):
    sampler, n, cost = calibration(milliseconds * 1.0001).choose(SamplerConfig(steps=4), None)
    assert (sampler.steps, n) == (steps, candidates)
    assert cost.call == pytest.approx(1e-3 * (1 + candidates))


def test_a_warm_start_is_charged_for_the_calls_it_makes():
    trajectory = Trajectory(
        observations=torch.zeros(1, 2, 1), actions=torch.zeros(1, 2, 0), times=torch.arange(2)
    )
    half = WarmStart(trajectory=trajectory, share=0.5)
    tight = calibration(5.001 * MARGIN)  # two calls
    assert tight.choose(SamplerConfig(steps=4), half)[0].steps == 4
    assert tight.choose(SamplerConfig(steps=4), None)[0].steps == 2


def test_costs_follow_the_load_and_forgive_one_pause():
    cost = PlanCost(1.0, 1.0, 1.0)
    cost.follow(PlanCost(1.0, 100.0, 0.5))
    assert cost.call == pytest.approx(1.1), "counted as twice the usual"
    for _ in range(200):
        cost.follow(PlanCost(1.0, 3.0, 0.5))
    assert cost.call == pytest.approx(3.0, rel=1e-3) and cost.after == pytest.approx(0.5, rel=1e-3)


def test_bad_budgets_are_refused(tiny_model):
    with pytest.raises(ValueError, match="must not be negative"):
        DiffusionPlanner(tiny_model, replace(WANTED, budget_ms=-1.0))
    with pytest.raises(ValueError, match="how many steps are wanted"):
        DiffusionPlanner(tiny_model, replace(WANTED, budget_ms=5.0, sampler=SamplerConfig(steps=0)))
