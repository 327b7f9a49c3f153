"""Laws of the task planner: waypoints, hard terms, keeping a plan, errors, reports."""

from dataclasses import replace

import pytest
import torch

from forethought.guides.terms import keep_out, keep_out_box
from forethought.models.base import SamplerConfig
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.planners.routes import Support
from forethought.planners.tasks import TaskPlanner
from forethought.types import Plan

CONFIG = DiffusionPlannerConfig(sampler=SamplerConfig(kind="ddpm", steps=3), candidates=3)
START, GOAL = torch.tensor([[0.25, -1.0, 0.5]]), torch.tensor([[1.5, 0.25, -0.75]])


@pytest.fixture
def exact_model(tiny_model):
    """Statistics that are powers of two, so that encoding and decoding a pin is exact."""
    tiny_model.observation_normalizer.shift.fill_(0.5)
    tiny_model.observation_normalizer.scale.fill_(2.0)
    return tiny_model


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_waypoints_are_passed_exactly_in_order_or_at_their_times(exact_model):
    waypoints = torch.tensor([[0.5, 0.5, 0.0], [-1.0, 0.25, 0.5]])
    for times in (None, (3, 7)):
        planner = TaskPlanner(exact_model, CONFIG, waypoints=waypoints, times=times)
        plan = planner.plan(START, goal=GOAL, generator=generator())
        rows, steps = plan.trajectory.observations[0], plan.stats["waypoint_steps"]
        assert torch.equal(rows[0], START[0]) and torch.equal(rows[-1], GOAL[0])
        assert torch.equal(rows[steps], waypoints)
        assert steps == sorted(steps) and (times is None or tuple(steps) == times)
        assert plan.trajectory.times.tolist() == list(range(len(rows)))
        assert int(plan.stats["arrival"]) == len(rows) - 1


def test_hard_terms_hold_and_are_reported(exact_model):
    free = TaskPlanner(exact_model, CONFIG, detours=False)
    middle = free.plan(START, goal=GOAL, generator=generator()).trajectory.observations[0, 1, :2]
    apart = min(float((end[0, :2] - middle).norm()) for end in (START, GOAL))
    term = keep_out(middle.tolist(), 0.5 * apart, margin=0.05)
    planner = TaskPlanner(exact_model, CONFIG, terms=[term], detours=False)
    plan = planner.plan(START, goal=GOAL, generator=generator())
    assert plan.stats["violations"]["keep out"].tolist() == [0.0]
    assert plan.stats["is_met"]
    assert torch.equal(plan.trajectory.observations[0, 0], START[0])


def test_a_plan_that_is_still_followed_is_kept_from_where_it_is(exact_model):
    planner = TaskPlanner(exact_model, CONFIG, waypoints=torch.tensor([[0.5, 0.5, 0.0]]))
    plan = planner.plan(START, goal=GOAL, generator=generator())
    rows = plan.trajectory.observations[0]
    due = replace(plan, elapsed=3)
    later = planner.plan(rows[2:3], goal=GOAL, previous=due, generator=generator())
    step = 2
    assert torch.equal(later.trajectory.observations[0], rows[step:])
    assert later.stats["network_calls"] == 0
    passed = int(plan.stats["waypoint_steps"][0]) <= step
    assert later.stats["waypoints_passed"] == int(passed)
    far = planner.plan(rows[2:3] + 50.0, goal=GOAL, previous=due, generator=generator())
    assert far.stats["network_calls"] > 0


def test_a_plan_along_which_nothing_advances_is_not_kept(exact_model):
    waypoints = torch.tensor([[0.5, 0.5, 0.0], [-1.0, 0.25, 0.5]])  # for a long plan
    planner = TaskPlanner(exact_model, CONFIG, waypoints=waypoints, detours=False)
    plan = planner.plan(START, goal=GOAL, generator=generator())
    rows = plan.trajectory.observations[0]

    def after(step: int, plan: Plan) -> Plan:
        due = replace(plan, elapsed=7)
        return planner.plan(rows[step : step + 1], goal=GOAL, previous=due, generator=generator())

    first = after(0, plan)  # too early to tell: the system may have had to accelerate
    assert first.stats["network_calls"] == 0
    assert after(0, first).stats["network_calls"] > 0
    assert after(6, first).stats["network_calls"] == 0


def test_a_new_plan_keeps_the_times_of_its_waypoints_from_the_first_one(exact_model):
    waypoints = torch.tensor([[0.5, 0.5, 0.0], [-1.0, 0.25, 0.5]])
    planner = TaskPlanner(exact_model, CONFIG, waypoints=waypoints, times=(3, 7))
    plan = planner.plan(START, goal=GOAL, generator=generator())
    rows = plan.trajectory.observations[0]
    for start, calls in ((rows[4:5], False), (rows[4:5] + 50.0, True)):
        due = replace(plan, elapsed=4)
        later = planner.plan(start, goal=GOAL, previous=due, generator=generator())
        assert (later.stats["network_calls"] > 0) == calls
        assert later.stats["waypoint_steps"] == [3] and later.stats["waypoints_passed"] == 1


def test_ends_inside_an_obstacle_are_refused_with_their_depth(exact_model):
    for end, name in ((START, "start"), (GOAL, "goal")):
        low = (end[0, :2] - 0.125).tolist()
        box = keep_out_box(low, (end[0, :2] + 0.125).tolist(), name="crate")
        planner = TaskPlanner(exact_model, CONFIG, terms=[box], detours=False)
        with pytest.raises(ValueError, match=f"the {name} .* breaks hard terms by .*crate.*0.125"):
            planner.plan(START, goal=GOAL)


def test_waypoint_times_that_do_not_fit_are_refused(exact_model):
    waypoints = torch.zeros(2, 3)
    for times in ((3,), (5, 3), (0, 3)):
        with pytest.raises(ValueError, match="one positive environment step a waypoint"):
            TaskPlanner(exact_model, CONFIG, waypoints=waypoints, times=times)
    with pytest.raises(ValueError, match="one environment at a time; got 2 observations"):
        TaskPlanner(exact_model, CONFIG).plan(START.expand(2, -1), goal=GOAL.expand(2, -1))


def test_diffusion_planner_reports_the_violation_of_each_term(exact_model):
    terms = [keep_out((0.25, -1.0), 0.5, name="here"), keep_out((99.0, 99.0), 1.0, name="far")]
    planner = DiffusionPlanner(exact_model, CONFIG, terms=terms)
    found = planner.plan(START, goal=GOAL).stats["violations"]
    assert float(found["here"]) == pytest.approx(0.5, abs=1e-5)
    assert float(found["far"]) == 0
    assert "violations" not in DiffusionPlanner(exact_model, CONFIG).plan(START, goal=GOAL).stats


def test_support_is_the_distance_of_the_loneliest_step():
    states = torch.zeros(20, 3)
    paths = torch.tensor([[[0.0, 0.0, 7.0], [0.3, 0.4, 0.0]], [[0.0, 0.1, 0.0]] * 2])
    torch.testing.assert_close(Support(states, (0, 1)).distance(paths), torch.tensor([0.5, 0.1]))
