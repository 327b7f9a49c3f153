"""Laws of planners, policies, controllers and guides."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from forethought.config import ControlConfig, PursuitConfig
from forethought.controllers import (
    FollowActions,
    PursuePath,
    TrackObservations,
    make_controller,
)
from forethought.data.splines import interpolate
from forethought.data.views import Windows
from forethought.guides import weighted_sum
from forethought.guides.goals import reach
from forethought.guides.obstacles import avoid
from forethought.models.base import (
    ArrivalEstimator,
    GuidanceConfig,
    Model,
    SamplerConfig,
    TrajectorySampler,
    require,
)
from forethought.planners.base import Planner
from forethought.planners.diffusion import (
    DOUBT_CANDIDATES,
    MOST_DOUBT,
    DiffusionPlanner,
    DiffusionPlannerConfig,
)
from forethought.policy import PlanningPolicy
from forethought.rollout import rollout
from forethought.types import Pin, Plan, Spaces, Trajectory

QUICK = SamplerConfig(kind="ddpm", steps=3)


def path(observations: Tensor, stride: int = 1, actions: Tensor | None = None) -> Trajectory:
    """A trajectory from (batch, rows, O)."""
    actions = observations[..., :0] if actions is None else actions
    return Trajectory(
        observations=observations,
        actions=actions,
        times=torch.arange(observations.shape[1]) * stride,
    )


class StraightLines(Planner):
    """Plans a straight line to the goal in ``length`` steps and records everything it is given."""

    def __init__(self, length: int = 12, chooses_arrival: bool = False) -> None:
        self.length, self.chooses_arrival = length, chooses_arrival
        self.calls: list[dict] = []

    def plan(
        self,
        observation,
        *,
        goal=None,
        history=None,
        previous=None,
        remaining=None,
        generator=None,
    ) -> Plan:
        self.calls.append(
            {
                "observation": observation,
                "goal": goal,
                "history": history,
                "previous": previous,
                "remaining": remaining,
            }
        )
        steps = self.length if remaining is None else int(remaining)
        share = torch.linspace(0, 1, steps + 1)[None, :, None]
        noise = 0.1 * torch.randn(1, 1, observation.shape[-1], generator=generator[0])
        points = observation[:, None] + share * (goal - observation)[:, None] + noise
        return Plan(
            trajectory=path(points), stats={"arrival": torch.tensor([steps]), "seconds": 0.0}
        )


def run(policy: PlanningPolicy, steps: int, n: int = 1, seeds=None) -> Tensor:
    """(steps, n, A) actions at fixed observations."""
    policy.reset(n, seeds)
    observation = torch.arange(n * 2.0).reshape(n, 2)
    return torch.stack([policy(observation, observation + 5) for _ in range(steps)])


def tracker(look_ahead: float = 1.0) -> TrackObservations:
    return TrackObservations([[1.0, 0.0], [0.0, 1.0]], look_ahead)


# ------------------------------------------------------------------------------- DiffusionPlanner


@pytest.fixture
def exact_model(tiny_model):
    """Statistics that are powers of two, so that encoding and decoding a pin is exact."""
    tiny_model.observation_normalizer.shift.fill_(0.5)
    tiny_model.observation_normalizer.scale.fill_(2.0)
    return tiny_model


def test_plan_starts_at_the_observation_and_holds_the_goal_from_its_time_on(exact_model):
    planner = DiffusionPlanner(exact_model, DiffusionPlannerConfig(sampler=QUICK, candidates=3))
    observation = torch.tensor([[0.25, -1.0, 0.5], [0.0, 0.75, -0.5]])
    goal = torch.tensor([[1.5, 0.25, -0.75], [-1.0, 0.5, 0.125]])
    plan = planner.plan(observation, goal=goal, remaining=torch.tensor([3, 9]))
    rows = plan.trajectory.observations
    assert plan.trajectory.times.tolist() == list(range(10))  # a multiple of 2 that covers step 9
    for candidate in [rows, *plan.candidates.observations.unbind(dim=1)]:
        assert torch.equal(candidate[:, 0], observation)
        assert torch.equal(candidate[0, 3:], goal[:1].expand(7, -1))
        assert torch.equal(candidate[1, 9:], goal[1:].expand(1, -1))
        assert not bool((candidate[0, 1:3] == goal[0]).any())
        assert not bool((candidate[1, 1:9] == goal[1]).any())


def test_an_arrival_that_does_not_come_nearer_is_put_off_and_more_candidates_are_drawn(tiny_model):
    planner = DiffusionPlanner(tiny_model, DiffusionPlannerConfig(sampler=QUICK, patience=0.5))
    observation, goal = torch.zeros(1, 3), torch.ones(1, 3)
    estimate = int(tiny_model.arrival_time(observation, goal, threshold=1.0))
    plan = planner.plan(observation, goal=goal)
    assert int(plan.stats["doubt"]) == 0 and plan.candidates.observations.shape[1] == 1
    for times in range(1, 20):  # ten steps later nothing has moved, again and again
        plan = planner.plan(observation, goal=goal, previous=replace(plan, elapsed=10))
        doubt = min(times, MOST_DOUBT)
        assert int(plan.stats["doubt"]) == doubt
        assert int(plan.stats["arrival"]) == round(estimate * (1 + 0.5 * doubt))
        assert plan.candidates.observations.shape[1] == DOUBT_CANDIDATES
    # half of what has passed is progress enough: the doubt is gone
    nearer = replace(
        plan, elapsed=10, stats={**plan.stats, "estimate": torch.tensor([estimate + 5])}
    )
    plan = planner.plan(observation, goal=goal, previous=nearer)
    assert int(plan.stats["doubt"]) == 0 and int(plan.stats["arrival"]) == estimate
    believing = DiffusionPlanner(tiny_model, DiffusionPlannerConfig(sampler=QUICK, patience=0.0))
    plan = believing.plan(observation, goal=goal, previous=replace(plan, elapsed=10))
    assert int(plan.stats["doubt"]) == 0


def test_arrival_is_the_models_plus_slack_or_the_fixed_length(tiny_model):
    observation, goal = torch.zeros(2, 3), torch.ones(2, 3)
    estimated = tiny_model.arrival_time(observation, goal, threshold=1.0)
    plan = DiffusionPlanner(tiny_model, DiffusionPlannerConfig(sampler=QUICK, slack=2)).plan(
        observation, goal=goal
    )
    assert plan.stats["arrival"].tolist() == (estimated + 2).tolist()
    fixed = DiffusionPlanner(tiny_model, DiffusionPlannerConfig(sampler=QUICK, length=7))
    assert fixed.plan(observation, goal=goal).stats["arrival"].tolist() == [7, 7]
    assert not fixed.chooses_arrival
    assert fixed.plan(observation).trajectory.horizon == 8, "no goal: a plan of the fixed length"


@pytest.mark.parametrize(("steps", "calls"), [(3, 3), (0, 8)])
def test_network_calls_are_counted(tiny_model, steps, calls):
    config = DiffusionPlannerConfig(sampler=SamplerConfig(steps=steps))
    seen = []
    tiny_model.network.register_forward_hook(lambda *_: seen.append(1))
    plan = DiffusionPlanner(tiny_model, config).plan(torch.zeros(1, 3), goal=torch.ones(1, 3))
    assert plan.stats["network_calls"] == len(seen) == calls


def test_planner_keeps_the_candidate_with_the_best_value(tiny_model):
    goal = reach([2.0, 2.0, 2.0], time=3)
    planner = DiffusionPlanner(
        tiny_model, DiffusionPlannerConfig(sampler=QUICK, length=7, candidates=5), guide=goal
    )
    plan = planner.plan(torch.zeros(2, 3), generator=torch.Generator().manual_seed(0))
    values = torch.stack(
        [goal(plan.candidates[:, k], torch.zeros(2)) for k in range(5)], dim=1
    )  # (2, 5)
    torch.testing.assert_close(plan.value, values.max(dim=1).values)
    best = plan.candidates[torch.arange(2), values.argmax(dim=1)]
    torch.testing.assert_close(plan.trajectory.observations, best.observations, rtol=0, atol=0)


def test_projection_holds_in_the_result_except_at_pins(exact_model):
    def below_zero(trajectory: Trajectory) -> Trajectory:
        return path(
            trajectory.observations.clamp(max=0.0),
            actions=trajectory.actions.clamp(-0.5, 0.5),
        )

    planner = DiffusionPlanner(
        exact_model,
        DiffusionPlannerConfig(sampler=QUICK, length=7, candidates=4),
        projection=below_zero,
    )
    start = torch.tensor([[0.25, -1.0, 0.5]])
    plan = planner.plan(start, generator=torch.Generator().manual_seed(0))
    free = plan.candidates.observations[:, :, 1:]
    assert float(free.max()) <= 0 and bool((free == 0).any()), "the constraint should bind"
    assert float(plan.candidates.actions.abs().max()) <= 0.5 + 1e-6
    assert torch.equal(plan.candidates.observations[0, :, 0], start.expand(4, -1))


def test_projection_has_the_last_word_over_a_guide(exact_model):
    """Without the variance's factor a guide at the mean still pushes after the last estimate."""

    def up(trajectory: Trajectory, level: Tensor) -> Tensor:
        return trajectory.observations.sum(dim=(-1, -2))

    def below_zero(trajectory: Trajectory) -> Trajectory:
        return path(trajectory.observations.clamp(max=0.0), actions=trajectory.actions)

    guidance = GuidanceConfig(at="mean", scale=5.0, scale_by_variance=False)
    config = DiffusionPlannerConfig(sampler=replace(QUICK, guidance=guidance), length=7)
    planner = DiffusionPlanner(exact_model, config, guide=up, projection=below_zero)
    plan = planner.plan(torch.full((1, 3), -1.0))
    assert float(plan.trajectory.observations.max()) <= 0


def test_pin_outside_the_plan_or_of_the_wrong_width_is_refused(tiny_model):
    times, start = tiny_model.plan_times(7), Pin(0, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="step 8 lies outside the plan, which covers steps 0 to 7"):
        tiny_model.sample([start, Pin(8, torch.zeros(1, 3))], times=times, sampler=QUICK)
    with pytest.raises(ValueError, match=r"value shape \(1, 2\); expected \(1, 3\)"):
        tiny_model.sample([Pin(0, torch.zeros(1, 2))], times=times, sampler=QUICK)
    with pytest.raises(ValueError, match="at least one pin"):
        tiny_model.sample([], times=times, sampler=QUICK)


def test_pin_on_some_dimensions_or_on_actions_leaves_the_rest_free(exact_model):
    exact_model.action_normalizer.shift.fill_(0.0)
    exact_model.action_normalizer.scale.fill_(1.0)
    pins = [
        Pin(0, torch.zeros(2, 3)),
        Pin("last", torch.tensor([[0.25], [0.5]]), dims=(1,)),
        Pin(2, torch.tensor([[0.5, -0.5]] * 2), field="actions"),
    ]
    drawn = exact_model.sample(pins, times=exact_model.plan_times(7), sampler=QUICK)
    last = drawn.observations[:, 0, -1]
    assert last[:, 1].tolist() == [0.25, 0.5]
    assert not bool((last[:, [0, 2]] == 0).any())
    assert drawn.actions[:, 0, 2].tolist() == [[0.5, -0.5]] * 2


class Plain(Model):
    """A model with no planning capability."""

    def fit_statistics(self, dataset) -> None: ...

    def loss(self, batch, generator=None):
        return torch.zeros(()), {}


class OnlySamples(Plain, TrajectorySampler):
    """A model that samples but knows no arrival times."""

    def plan_times(self, last_time: int) -> Tensor:
        return torch.arange(last_time + 1)

    def sample(self, pins, *, times, **settings) -> Trajectory:
        raise NotImplementedError


def test_capability_error_names_what_the_model_offers():
    spaces = Spaces(observation_dim=1, action_dim=1)
    with pytest.raises(
        ValueError, match="needs a model that is a TrajectorySampler; Plain offers no planning"
    ):
        DiffusionPlanner(Plain(spaces))
    with pytest.raises(ValueError, match="ArrivalEstimator; OnlySamples offers TrajectorySampler"):
        DiffusionPlanner(OnlySamples(spaces))
    DiffusionPlanner(OnlySamples(spaces), DiffusionPlannerConfig(length=5))
    with pytest.raises(ValueError, match="X needs a model that is a ArrivalEstimator"):
        require(OnlySamples(spaces), ArrivalEstimator, needed_by="X")


# --------------------------------------------------------------------------------- PlanningPolicy


def test_plan_once_calls_the_planner_once_per_episode():
    planner = StraightLines()
    policy = PlanningPolicy(planner, tracker())
    run(policy, steps=30, n=2)
    assert len(planner.calls) == 2
    run(policy, steps=30, n=2)
    assert len(planner.calls) == 4, "a reset forgets the plan"


def test_fixed_goal_time_shrinks_by_replan_every_until_arrival():
    planner = StraightLines(length=12)
    run(PlanningPolicy(planner, tracker(), replan_every=5), steps=40)
    remaining = [call["remaining"] for call in planner.calls]
    assert remaining[0] is None
    assert [int(r) for r in remaining[1:]] == [7, 2]
    assert planner.calls[0]["previous"] is None and planner.calls[1]["previous"] is not None


def test_receding_goal_time_always_chooses_anew():
    planner = StraightLines(chooses_arrival=True)
    run(PlanningPolicy(planner, tracker(), replan_every=5, goal_time="receding"), steps=40)
    assert [call["remaining"] for call in planner.calls] == [None] * 8


def test_receding_goal_with_fixed_length_is_refused():
    with pytest.raises(ValueError, match="never arrives"):
        PlanningPolicy(StraightLines(), tracker(), replan_every=5, goal_time="receding")
    with pytest.raises(ValueError, match="replan_every is -1"):
        PlanningPolicy(StraightLines(), tracker(), replan_every=-1)


@pytest.mark.parametrize("replan_every", [0, 3])
def test_actions_do_not_depend_on_the_neighbors_nor_on_the_rows_asked(tiny_model, replan_every):
    planner = DiffusionPlanner(tiny_model, DiffusionPlannerConfig(sampler=QUICK))
    policy = PlanningPolicy(planner, FollowActions(2), replan_every=replan_every)
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(5, 3, generator=generator)
    goal, seeds = -observation, [3, 1, 4, 1, 5]
    policy.reset(5, seeds)
    together = torch.stack([policy(observation, goal) for _ in range(7)])  # (7, 5, A)
    for env in range(5):
        here = slice(env, env + 1)
        policy.reset(1, seeds[here])
        alone = torch.cat([policy(observation[here], goal[here]) for _ in range(7)])
        torch.testing.assert_close(alone, together[:, env], rtol=0, atol=0)
    policy.reset(5, seeds)
    for step in range(7):
        rows = torch.tensor([4, 1] if step < 5 else [1])  # 4 ends early, the others never ask
        asked = policy(observation[rows], goal[rows], rows)
        torch.testing.assert_close(asked, together[step, rows], rtol=0, atol=0)


class Secretive(gymnasium.Env):
    """Shows a noisy 2-D observation and a goal; hides a state, a layout and rich infos."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    goal_observation = np.array([3.0, 4.0], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.secret = self.np_random.normal(size=7)
        self.shown = [self.np_random.normal(size=2).astype(np.float32)]
        return self.shown[-1], {"secret": self.secret}

    def step(self, action):
        self.shown.append(self.np_random.normal(size=2).astype(np.float32))
        info = {"secret": self.secret, "success": False}
        return self.shown[-1], 0.0, False, len(self.shown) > 20, info


def test_policy_and_planner_are_given_observations_and_goals_only():
    planner, envs, given = StraightLines(), [], []

    def make_env() -> gymnasium.Env:
        envs.append(Secretive())
        return envs[-1]

    class Recording:
        def __init__(self) -> None:
            self.policy = PlanningPolicy(planner, tracker(), replan_every=4)

        def reset(self, n_envs, seeds=None) -> None:
            self.policy.reset(n_envs, seeds)

        def __call__(self, *args) -> Tensor:
            given.append(args)
            return self.policy(*args)

    episodes = rollout(Recording(), make_env, 3, seed=0, n_parallel=3)
    shown = np.stack([env.shown for env in envs])  # (3, 21, 2)
    for step, (observation, goal, rows) in enumerate(given):
        np.testing.assert_array_equal(observation, shown[:, step])
        np.testing.assert_array_equal(goal, np.tile(Secretive.goal_observation, (3, 1)))
        assert rows.tolist() == [0, 1, 2]
    assert len(given) == len(episodes[0]) == 20
    for index, call in enumerate(planner.calls):  # plans at steps 0, 4, 8 of three environments
        assert call["observation"].shape == call["goal"].shape == (1, 2)
        env, step = index % 3, 4 * (index // 3)
        np.testing.assert_array_equal(call["observation"][0], shown[env, step])
        np.testing.assert_array_equal(call["goal"][0], Secretive.goal_observation)
        assert call["history"] is None
    assert len(planner.calls) == 9


# ------------------------------------------------------------------------------------ controllers


def test_follow_actions_replays_the_actions_of_blocks(dataset):
    view = Windows(dataset, 6, stride=2)
    window = view[np.array([8])]  # inside the second episode, of 30 steps
    replayed = FollowActions(2).prepare(window)
    assert replayed.shape == (1, 12, 2)
    first = 6 + 3  # the first episode has 5 steps: 6 rows and windows 0 to 4
    np.testing.assert_array_equal(replayed[0], dataset.actions[first : first + 12])
    np.testing.assert_array_equal(
        FollowActions(2)(replayed[:, 4], torch.zeros(1, 3)), replayed[:, 4]
    )


def test_follow_actions_refuses_a_stride_without_blocks():
    follow = FollowActions(2)
    for actions in (torch.zeros(1, 4, 0), torch.zeros(1, 4, 2)):
        with pytest.raises(ValueError, match="stride 3, 6 numbers a row; this one has"):
            follow.prepare(path(torch.zeros(1, 4, 1), 3, actions))


def test_tracking_is_gains_times_planned_minus_observed():
    gains = [[2.0, 0.0, 0.5], [-1.0, 3.0, 0.0]]
    controller = TrackObservations(gains)
    planned, observed = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 3.0, 1.0]])
    # errors 0.5, -1, 2: actions 2 * 0.5 + 0.5 * 2 and -0.5 - 3
    torch.testing.assert_close(controller(planned, observed), torch.tensor([[2.0, -3.5]]))


def test_tracking_refuses_gains_that_do_not_fit():
    with pytest.raises(ValueError, match="needs control.gains"):
        make_controller(ControlConfig(), 2)
    with pytest.raises(ValueError, match="has 2 columns; the observations have 3"):
        tracker().prepare(path(torch.zeros(1, 4, 3)))


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_interpolation_is_exact_at_the_rows_and_on_straight_lines(stride):
    points = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    curve = interpolate(path(points, stride))
    assert curve.shape == (2, 5 * stride + 1, 3)
    torch.testing.assert_close(curve[:, ::stride], points, rtol=0, atol=0)
    start, slope = points[:, :1], points[:, 1:2]
    line = start + slope * torch.arange(6)[:, None] * stride
    steps = start + slope * torch.arange(5 * stride + 1)[:, None]
    torch.testing.assert_close(interpolate(path(line, stride)), steps)


def test_interpolation_has_no_kinks_and_is_exact_on_parabolas_inside():
    """Central-difference slopes are exact for a parabola, and a cubic with exact slopes is it."""
    steps = torch.arange(5 * 4 + 1, dtype=torch.float64)[None, :, None]
    parabola = 0.1 * steps**2 - steps
    curve = interpolate(path(parabola[:, ::4], 4))
    torch.testing.assert_close(curve[:, 4:-4], parabola[:, 4:-4])


@pytest.mark.parametrize("look_ahead", [0.0, 0.5, 3.0])
def test_plan_is_read_look_ahead_steps_ahead_and_its_last_row_is_held(look_ahead):
    policy = PlanningPolicy(StraightLines(length=4), tracker(look_ahead))
    actions = run(policy, steps=9)[:, 0]
    points = policy.plans[0].trajectory.observations[0]
    position = (torch.arange(9) + look_ahead).clamp(max=4)
    low = position.floor().long().clamp(max=3)
    planned = torch.lerp(points[low], points[low + 1], (position - low)[:, None])
    torch.testing.assert_close(actions, planned - torch.tensor([0.0, 1.0]))


def pursuer(distance: float = 1.0, speed: float = 5.0) -> PursuePath:
    """Of a double integrator with steps of 0.01 s that changes its velocity by 0.2 a step."""
    config = PursuitConfig(
        position=(0, 1),
        velocity=(2, 3),
        distance=distance,
        speed=speed,
        acceleration=0.2,
        step_seconds=0.01,
    )
    return PursuePath(config)


def test_pursuit_drives_each_coordinate_in_least_time_to_the_end_and_rests_there():
    """Bang-bang control takes 2 sqrt(d / a) from rest to rest; a tenth of the braking is kept."""
    controller, end = pursuer(speed=100.0), torch.tensor([3.0, -1.0, 0.0, 0.0])
    rows = controller.prepare(path(torch.stack([end, end])[None], 1))[0]
    state, progress, errors = torch.zeros(4), 0.0, []
    for _ in range(200):
        row, progress = controller.read(rows, progress, state)
        push = controller(row[None], state[None])[0].clamp(-1, 1)
        state[2:] += 0.2 * push
        state[:2] += 0.01 * state[2:]
        errors.append((state[:2] - end[:2]).abs())
    least = 2 * (end[:2].abs() / 20).sqrt() / 0.01  # acceleration 0.2 / 0.01 = 20
    for axis in range(2):
        arrived = torch.stack(errors)[:, axis] < 0.05
        first = int(arrived.long().argmax())
        assert least[axis] * 0.75 < first < least[axis] * 1.15
        assert bool(arrived[first:].all()), "it stays"


def test_pursuit_aims_a_distance_ahead_and_never_jumps_to_another_branch():
    """A path up and down two lanes 0.1 apart: progress grows along it though the lanes touch."""
    up = torch.stack([torch.arange(0, 5, 0.05), torch.zeros(100)], dim=1)
    down = torch.stack([torch.arange(5, 0, -0.05), torch.full((100,), 0.1)], dim=1)
    lanes = torch.cat([up, down])
    rows_in = torch.cat([lanes, torch.zeros_like(lanes)], dim=1)[None]
    controller, progress, aims = pursuer(distance=0.5), 0.0, []
    rows = controller.prepare(path(rows_in, 1))[0]
    for point in rows_in[0]:
        row, progress = controller.read(rows, progress, point + torch.tensor([0, 0.05, 0, 0]))
        aims.append(float(row[-1]))
    along = rows[:, -1]
    ahead = torch.tensor(aims) - along
    torch.testing.assert_close(ahead[:80], torch.full((80,), 0.5), atol=0.06, rtol=0)
    assert bool((torch.tensor(aims).diff() >= -1e-6).all())


def test_pursuit_refuses_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="one observation dimension each per action"):
        make_controller(ControlConfig(controller="pursue_path"), 2)
    with pytest.raises(ValueError, match="needs positive numbers"):
        pursuer(distance=0.0)


# ----------------------------------------------------------------------------------------- guides


def gradient_of(guide, observations: Tensor, stride: int = 1) -> Tensor:
    observations = observations.clone().requires_grad_()
    guide(path(observations, stride), torch.zeros(len(observations))).sum().backward()
    return observations.grad


def test_weighted_sum_adds_values_and_gradients():
    first, second = reach([1.0, 2.0]), avoid([0.0, 0.0], 3.0)
    both = weighted_sum((2.0, first), (0.5, second))
    points = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    level = torch.zeros(4)
    expected = 2 * first(path(points), level) + 0.5 * second(path(points), level)
    torch.testing.assert_close(both(path(points), level), expected)
    expected = 2 * gradient_of(first, points) + 0.5 * gradient_of(second, points)
    torch.testing.assert_close(gradient_of(both, points), expected)
    with pytest.raises(ValueError, match="at least one"):
        weighted_sum()


@pytest.mark.parametrize(("time", "row"), [(None, 4), (0, 0), (5, 2), (6, 2), (99, 4)])
def test_reach_pulls_its_row_straight_to_the_point(time, row):
    points = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1.0, -2.0])
    guide = reach(target.tolist(), dims=(0, 2), time=time)
    expected = torch.zeros_like(points)
    expected[:, row, [0, 2]] = 2 * (target - points[:, row, [0, 2]])
    torch.testing.assert_close(gradient_of(guide, points, stride=3), expected)


def test_avoid_pushes_rows_inside_the_disc_straight_out_and_no_others():
    points = torch.tensor([[[0.3, 0.4, 9.0], [3.0, 0.0, 9.0], [0.0, 0.0, 9.0]]])
    guide = avoid([0.0, 0.0], 1.0)
    value = guide(path(points), torch.zeros(1))
    torch.testing.assert_close(value, torch.tensor([-(0.5**2) - 1.0]))
    gradient = gradient_of(guide, points)[0]
    torch.testing.assert_close(gradient[0], torch.tensor([0.6, 0.8, 0.0]))  # 2 * depth, outward
    assert not bool(gradient[1].any())
    assert bool(gradient[2].isfinite().all()), "the center has a finite slope"
    with pytest.raises(ValueError, match="must be positive"):
        avoid([0.0, 0.0], 0.0)
