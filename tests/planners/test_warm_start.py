"""Laws of warm starts: where they begin, when they are refused, what they cost."""

from dataclasses import replace

import pytest
import torch

from forethought.controllers import TrackObservations
from forethought.models.base import SamplerConfig, WarmStart
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.planners.warm_start import shift, warm_start
from forethought.policy import PlanningPolicy
from forethought.types import Pin, Plan, Trajectory

SAMPLER = SamplerConfig(kind="ddim", steps=4)


def line(rows: int, stride: int, elapsed: int = 0, arrival: int | None = None) -> Plan:
    """A plan whose observation is its own time."""
    times = torch.arange(rows) * stride
    observations = times.float()[None, :, None].expand(1, -1, 3)
    trajectory = Trajectory(observations=observations, actions=torch.zeros(1, rows, 2), times=times)
    stats = {} if arrival is None else {"arrival": torch.tensor([arrival])}
    return Plan(trajectory=trajectory, stats=stats, elapsed=elapsed)


@pytest.mark.parametrize("elapsed", [0, 3, 8, 13])
def test_shifted_plan_shows_its_own_future(elapsed):
    times = torch.arange(10) * 4
    shifted = shift(line(6, 8, elapsed), times)
    expected = (times + elapsed).clamp(max=40).float()
    torch.testing.assert_close(shifted.observations[0, :, 0], expected)
    assert torch.equal(shifted.times, times)


def test_warm_start_is_refused_where_the_old_plan_is_over_or_too_optimistic():
    times = torch.arange(6) * 8

    def begin(elapsed: int, arrival: int) -> WarmStart | None:
        return warm_start(line(6, 8, elapsed, arrival=32), times, torch.tensor([arrival]), 0.5)

    assert begin(elapsed=8, arrival=24) is not None
    assert begin(elapsed=8, arrival=32) is not None, "a row later is no surprise"
    assert begin(elapsed=8, arrival=33) is None, "more than a row late: the plan does not hold"
    assert begin(elapsed=32, arrival=1) is None, "it has arrived"


def sample(model, share: float | None, trajectory: Trajectory, pins: list[Pin], **settings):
    start = None if share is None else WarmStart(trajectory=trajectory, share=share)
    generator = torch.Generator().manual_seed(1)
    return model.sample(
        pins, times=trajectory.times, sampler=SAMPLER, generator=generator, start=start, **settings
    )


@pytest.fixture
def old(tiny_model) -> Trajectory:
    """A plan of the tiny model from one point to another."""
    pins = [Pin(0, torch.zeros(1, 3)), Pin(5, torch.ones(1, 3), hold=True)]
    generator = torch.Generator().manual_seed(7)
    return tiny_model.sample(pins, times=torch.arange(8), generator=generator)[:, 0]


def test_share_zero_returns_the_trajectory_but_for_the_pins(tiny_model, old):
    pins = [Pin(0, torch.full((1, 3), 0.5)), Pin(6, torch.ones(1, 3), hold=True)]
    kept = sample(tiny_model, 0.0, old, pins, n_candidates=2)
    for candidate in kept.observations.unbind(dim=1):
        torch.testing.assert_close(candidate[:, 1:6], old.observations[:, 1:6])
        torch.testing.assert_close(candidate[:, 0], torch.full((1, 3), 0.5))


def test_share_one_is_a_cold_start_with_the_same_noise(tiny_model, old):
    pins = [Pin(0, torch.zeros(1, 3))]
    cold, warm = (sample(tiny_model, share, old, pins) for share in (None, 1.0))
    torch.testing.assert_close(warm.observations, cold.observations, rtol=0, atol=0)


def test_less_noise_stays_closer_to_the_old_plan(tiny_model, old):
    """Along the noising itself: the untrained network's opinion is taken out of the result."""
    seen = {}
    tiny_model.network.register_forward_hook(lambda *_: seen.setdefault("calls", []).append(1))
    distances = []
    for share in (0.0, 0.25, 0.5, 1.0):
        seen["calls"] = []
        plan = sample(tiny_model, share, old, [Pin(0, old.observations[:, 0])])
        assert len(seen["calls"]) == round(4 * share), "the same share of the sampler's steps"
        distances.append(float((plan.observations[:, 0] - old.observations).abs().mean()))
    assert distances[0] < 1e-5 and min(distances[1:]) > 1e-3


def test_a_share_outside_zero_to_one_is_refused(old):
    with pytest.raises(ValueError, match="use 0 to 1"):
        WarmStart(trajectory=old, share=1.5)


def test_policy_tells_the_planner_how_much_of_the_plan_has_passed(tiny_model):
    config = DiffusionPlannerConfig(length=7, sampler=SAMPLER, warm_start=0.5)
    planner = DiffusionPlanner(tiny_model, config)
    calls, plan = [], planner.plan

    def record(observation, **given) -> Plan:
        calls.append(given["previous"])
        return plan(observation, **given)

    planner.plan = record  # type: ignore[method-assign]
    controller = TrackObservations([[1.0, 0.0, 0.0]])
    policy = PlanningPolicy(planner, controller, replan_every=3)
    policy.reset(1)
    seen = [
        (policy(torch.zeros(1, 3), torch.ones(1, 3)), policy.plans[0].stats["network_calls"])[1]
        for _ in range(7)
    ]
    assert calls[0] is None and [previous.elapsed for previous in calls[1:]] == [3, 3]
    assert seen == [4, 4, 4, 2, 2, 2, 2], "warm plans take half of the steps"


def test_planner_without_warm_start_ignores_the_previous_plan(tiny_model):
    config = DiffusionPlannerConfig(length=7, sampler=SAMPLER)
    observation, goal = torch.zeros(1, 3), torch.ones(1, 3)

    def plan(config: DiffusionPlannerConfig, previous: Plan | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        planner = DiffusionPlanner(tiny_model, config)
        made = planner.plan(observation, goal=goal, previous=previous, generator=generator)
        return made.trajectory.observations

    before = line(8, 1, elapsed=2, arrival=9)
    cold = plan(config, None)
    torch.testing.assert_close(plan(config, before), cold, rtol=0, atol=0)
    assert not torch.equal(plan(replace(config, warm_start=0.5), before), cold)
