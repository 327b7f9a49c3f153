"""Laws of amortized policies: what the student says, and when its policy plans instead."""

import numpy as np
import pytest
import torch
from torch import Tensor

from forethought.agents.amortized import Amortized, AmortizedConfig
from forethought.controllers import TrackObservations
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.views import TransitionView
from forethought.distillation import (
    AmortizedPolicy,
    _relabel,
    _until_rest,
    fresh_actions,
    goals_of,
    situations,
)
from forethought.planners.base import Planner
from forethought.policy import PlanningPolicy
from forethought.types import Plan, Spaces, Trajectory

SPACES = Spaces(observation_dim=2, action_dim=2)


class StraightLines(Planner):
    """A straight line to the goal in 8 steps; counts its plans."""

    chooses_arrival = True

    def __init__(self) -> None:
        self.starts: list[Tensor] = []

    def plan(self, observation, *, goal=None, **_) -> Plan:
        self.starts.append(observation)
        share = torch.linspace(0, 1, 9)[None, :, None]
        points = observation[:, None] + share * (goal - observation)[:, None]
        path = Trajectory(observations=points, actions=points[..., :0], times=torch.arange(9))
        arrival = torch.full((len(observation),), 8)
        return Plan(trajectory=path, stats={"arrival": arrival, "seconds": 0.0})


def planning_policy(**settings) -> PlanningPolicy:
    controller = TrackObservations([[8.0, 0.0], [0.0, 8.0]], look_ahead=1.0)
    given = {"replan_every": 3, "goal_time": "receding", **settings}
    return PlanningPolicy(StraightLines(), controller, **given)


def student(seed: int = 0) -> Amortized:
    torch.manual_seed(seed)
    model = AmortizedConfig(width=16, members=4, octaves=2).build(SPACES)
    return model.eval().requires_grad_(False)


def trained(inside: Tensor) -> Amortized:
    """A student taught to push toward the origin from ``inside`` (n, 2)."""
    torch.manual_seed(0)
    model = AmortizedConfig(width=32, members=4, octaves=0).build(SPACES)
    actions = -inside.numpy()
    rewards = np.zeros(len(inside), np.float32)
    episode = Episode(np.concatenate([inside, inside[-1:]]), actions, rewards)
    dataset = EpisodeDataset.from_episodes([episode])
    model.fit_statistics(dataset)
    view = TransitionView(dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(view[np.arange(len(view))])[0].backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def test_student_learns_the_actions_and_doubts_itself_elsewhere():
    inside = 2 * torch.rand(400, 2, generator=torch.Generator().manual_seed(1)) - 1
    model = trained(inside)
    actions, novelty = model.act_and_judge(inside)
    assert float((actions + inside).square().mean().sqrt()) < 0.1
    _, far = model.act_and_judge(inside * 0.5 + torch.tensor([4.0, -4.0]))
    assert float(far.median()) > 3 * float(novelty.median())
    assert bool((model.act(10 * inside).abs() <= 1.001).all()), "never beyond the data's actions"


def test_calibration_puts_the_quantile_at_the_threshold():
    model = student()
    observations = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    assert float(model.threshold) == float("inf"), "an uncalibrated student never plans"
    model.calibrate(observations, 0.9)
    _, novelty = model.act_and_judge(observations)
    assert float((novelty > model.threshold).float().mean()) == pytest.approx(0.1, abs=2e-3)


def test_novelty_is_the_spread_of_the_members():
    model = student()
    observation = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    members = model.action_normalizer.denormalize(model._members(observation, None))
    actions, novelty = model.act_and_judge(observation)
    torch.testing.assert_close(actions, members.clamp(-1, 1).mean(dim=0))
    torch.testing.assert_close(novelty, members.var(dim=0, correction=0).mean(dim=1).sqrt())


def run(policy, steps: int, n: int = 2) -> Tensor:
    policy.reset(n, list(range(n)))
    observation = torch.arange(2.0 * n).reshape(n, 2)
    return torch.stack([policy(observation, observation + 1) for _ in range(steps)])


def test_zero_threshold_is_the_planner_and_infinity_the_student():
    model, observation = student(), torch.arange(4.0).reshape(2, 2)
    always = AmortizedPolicy(model, planning_policy(), 0.0)
    torch.testing.assert_close(run(always, 7), run(planning_policy(), 7), rtol=0, atol=0)
    assert always.planned == always.steps == 14
    never = AmortizedPolicy(model, planning_policy(), float("inf"))
    expected = model.act(observation).expand(7, -1, -1)
    torch.testing.assert_close(run(never, 7), expected, rtol=0, atol=0)
    assert never.planned == 0 and not never.planner_policy.planner.starts


def test_only_novel_environments_plan_and_they_hold_on_to_the_plan():
    model = student()
    familiar, novel = torch.zeros(1, 2), torch.tensor([[0.7, -0.9]])
    spreads = [float(model.act_and_judge(o)[1]) for o in (familiar, novel)]
    if spreads[0] > spreads[1]:
        familiar, novel = novel, familiar
    policy = AmortizedPolicy(model, planning_policy(), sum(spreads) / 2)
    policy.reset(2)
    goal, rows = torch.ones(2, 2), torch.tensor([0, 1])
    policy(torch.cat([familiar, novel]), goal, rows)
    planner = policy.planner_policy.planner
    assert len(planner.starts) == 1 and torch.equal(planner.starts[0], novel)
    for _ in range(2):  # familiar again, but the plan is held for replan_every = 3 steps
        policy(torch.cat([familiar, familiar]), goal, rows)
    assert policy.planned == 3 and len(planner.starts) == 1
    policy(torch.cat([familiar, familiar]), goal, rows)
    assert policy.planned == 3, "then the student acts again"
    policy(torch.cat([familiar, novel]), goal, rows)
    assert len(planner.starts) == 2, "and a new plan is made, not the old one resumed"


def test_a_planner_that_plans_once_cannot_be_fallen_back_on():
    with pytest.raises(ValueError, match="Set control.replan_every"):
        AmortizedPolicy(student(), planning_policy(replan_every=0, goal_time="fixed"))


def test_fresh_actions_are_those_of_a_plan_made_now_and_hold_the_goal_when_near():
    policy = planning_policy(settled_within=(0.2, 0.2))
    observation = torch.tensor([[0.0, 0.0], [0.95, 0.9]])
    actions = fresh_actions(policy, observation, torch.ones(2, 2))
    torch.testing.assert_close(actions[0], 8 * torch.tensor([1 / 8, 1 / 8]))  # one step along
    torch.testing.assert_close(actions[1], 8 * torch.tensor([0.05, 0.1]))  # all the way


def test_episodes_are_cut_some_steps_after_the_arrival():
    successes = np.zeros(20, bool)
    successes[6:] = True
    episode = Episode(
        np.arange(42.0).reshape(21, 2), np.zeros((20, 2)), np.zeros(20), successes=successes
    )
    assert len(_until_rest(episode, 3)) == 10 and len(_until_rest(episode, 100)) == 20


def test_relabeled_episodes_pair_situations_with_the_planners_answers():
    observations = np.arange(22.0, dtype=np.float32).reshape(11, 2)
    episode = Episode(observations, np.zeros((10, 2)), np.zeros(10), goal=np.ones(2, np.float32))
    labeled = _relabel(episode, lambda o, g: o * 10 + g, 4)
    np.testing.assert_array_equal(labeled.observations[:-1], observations[[0, 4, 8]])
    np.testing.assert_array_equal(labeled.actions, 10 * observations[[0, 4, 8]] + 1)


def test_a_student_with_goals_learns_to_heed_them_and_refuses_to_do_without():
    generator = torch.Generator().manual_seed(2)
    here = 2 * torch.rand(600, 2, generator=generator) - 1
    goals = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    episodes, half = [], 300
    for part, goal in zip(here.split(half), goals, strict=True):
        rows = torch.cat([part, part[-1:]]).numpy()
        rewards = np.zeros(half, np.float32)
        episodes.append(Episode(rows, (goal - part).numpy(), rewards, goal=goal.numpy()))
    dataset = EpisodeDataset.from_episodes(episodes, goals=goals_of(episodes))
    torch.manual_seed(0)
    config = AmortizedConfig(width=32, members=2, octaves=0, goal_dims=(0, 1))
    model = config.build(SPACES)
    model.fit_statistics(dataset)
    view = config.view(dataset)
    batch = view[np.array([0, half - 1, half, 2 * half - 1])]
    torch.testing.assert_close(batch.goal, goals.repeat_interleave(2, dim=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(view[np.arange(len(view))])[0].backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    for goal in goals:
        actions = model.act(here, goal.expand_as(here))
        assert float((actions - (goal - here)).square().mean().sqrt()) < 0.15
    with pytest.raises(ValueError, match="was given none"):
        model.act(here)
    with pytest.raises(ValueError, match="one goal for each of the 2 episodes"):
        config.view(EpisodeDataset.from_episodes(episodes))


def test_situations_pair_every_action_with_its_episodes_goal():
    observations = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    goals = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    episodes = [Episode(observations, np.zeros((4, 2)), np.zeros(4), goal=goal) for goal in goals]
    found, aims = situations(episodes)
    np.testing.assert_array_equal(found, np.concatenate([observations[:-1]] * 2))
    np.testing.assert_array_equal(aims, goals.repeat(4, axis=0))
    assert situations([Episode(observations, np.zeros((4, 2)), np.zeros(4))])[1] is None
