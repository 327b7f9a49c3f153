"""Laws of terms: projections on the interpolated plan, violations, guides, combinations."""

import pytest
import torch
from torch import Tensor

from forethought.data.splines import interpolate
from forethought.guides import weighted_sum
from forethought.guides.projection import Box, Disc, slow_down
from forethought.guides.terms import (
    guide_of,
    keep_out,
    keep_out_box,
    project_onto,
    report_violations,
    reward,
    speed_limit,
    speeds,
    visit,
)
from forethought.types import Trajectory

LEVEL = torch.zeros(1)


def path(rows: Tensor, stride: int = 1) -> Trajectory:
    """A trajectory from (batch, rows, O)."""
    return Trajectory(
        observations=rows, actions=rows[..., :0], times=torch.arange(rows.shape[1]) * stride
    )


def random_paths(n: int, rows: int, seed: int) -> Tensor:
    """(n, rows, 4): random walks with velocities of their own, starting at (-3, -3)."""
    generator = torch.Generator().manual_seed(seed)
    steps = 0.35 * torch.randn(n, rows, 2, generator=generator) + 0.12
    steps[:, 0] = -3.0
    return torch.cat([steps.cumsum(dim=1), torch.randn(n, rows, 2, generator=generator)], dim=-1)


def nothing_fixed(trajectory: Trajectory) -> Tensor:
    return torch.zeros(trajectory.observations.shape[:2], dtype=torch.bool)


# ------------------------------------------------------------------------------------ projections


def test_one_step_leaves_a_disc_along_its_radius_and_a_box_by_the_nearest_face():
    points, run = torch.tensor([[0.3, 0.4]]), torch.zeros(1, dtype=torch.long)
    out = points + Disc((0.0, 0.0), 1.0).ways_out(points, run, 1)
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8]]))
    box = Box((0.0, 0.0), (1.0, 1.0))
    torch.testing.assert_close(points + box.ways_out(points, run, 1), torch.tensor([[0.0, 0.4]]))


def test_run_through_the_very_center_is_pushed_sideways_as_a_whole():
    points = torch.stack([torch.linspace(-0.8, 0.8, 9), torch.zeros(9)], dim=1)
    moves = Disc((0.0, 0.0), 1.0).ways_out(points, torch.zeros(9, dtype=torch.long), 1)
    torch.testing.assert_close(moves[:, 0], torch.zeros(9))
    torch.testing.assert_close((points + moves).norm(dim=1), torch.ones(9))
    assert len({bool(side) for side in moves[:, 1] > 0}) == 1


def test_depth_is_the_distance_to_the_border():
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(Disc((0.0, 0.0), 1.0).depth(points), torch.tensor([1.0, 0.5, -1.0]))
    box = Box((-1.0, -2.0), (1.0, 2.0))
    torch.testing.assert_close(box.depth(points), torch.tensor([1.0, 0.5, -1.0]))


@pytest.mark.parametrize("stride", [1, 5, 12])
@pytest.mark.parametrize(
    "term",
    [keep_out((0.0, 0.0), 0.9, margin=0.1), keep_out_box((-0.5, -1.0), (1.0, 0.8), margin=0.1)],
    ids=["disc", "box"],
)
def test_projected_plans_keep_out_at_every_interpolated_step(term, stride):
    plans = path(random_paths(100, 40, seed=stride), stride)
    fixed = nothing_fixed(plans)
    fixed[:, 0] = True
    before = term.violation(plans)
    assert int((before > 0).sum()) > 20, "the constraint should bind"
    after = project_onto([term], fixed)(plans)
    assert float(term.violation(after).max()) == 0
    assert torch.equal(after.observations[:, 0], plans.observations[:, 0])
    untouched = keep_out((0.0, 0.0), 2.5).violation(plans) == 0
    assert bool(untouched.any())
    assert torch.equal(after.observations[untouched], plans.observations[untouched])
    again = project_onto([term], fixed)(after)
    torch.testing.assert_close(again.observations, after.observations, rtol=0, atol=0)


def test_rows_alone_would_not_be_enough():
    """Both rows are outside, the spline between them is not."""
    rows = torch.tensor([[[-3.0, 0.0], [-1.0, 0.1], [1.0, 0.1], [3.0, 0.0]]])
    term = keep_out((0.0, 0.0), 0.8)
    assert float(keep_out((0.0, 0.0), 0.8).violation(path(rows, 1))) == 0
    assert float(term.violation(path(rows, 10))) > 0.5
    fixed = torch.tensor([[True, False, False, True]])
    after = project_onto([term], fixed)(path(rows, 10))
    assert float(term.violation(after)) == 0
    assert torch.equal(after.observations[:, [0, 3]], rows[:, [0, 3]])


def test_several_hard_terms_hold_together():
    terms = [
        keep_out((0.0, 0.0), 0.8, name="disc"),
        keep_out_box((1.5, 0.0), (2.5, 1.0), name="box"),
        speed_limit(9.0, time_step=0.01),
    ]
    plans = path(random_paths(60, 40, seed=3), 12)
    fixed = nothing_fixed(plans)
    fixed[:, 0] = True
    after = project_onto(terms, fixed)(plans)
    start = {name: float(v.amax()) for name, v in report_violations(plans, terms).items()}
    assert min(start.values()) > 0, "all three should bind"
    left = torch.stack(list(report_violations(after, terms).values())).amax(dim=0)
    assert float((left > 0).float().mean()) <= 0.05, "what is left is reported, and rare"


def test_projection_repeats_what_is_fixed_for_candidates():
    plans = path(random_paths(6, 20, seed=4), 5)
    fixed = torch.zeros(2, 20, dtype=torch.bool)
    fixed[0, 7], fixed[1, 11] = True, True
    moved = project_onto([keep_out((-1.0, -1.0), 1.5)], fixed)(plans).observations
    assert torch.equal(moved[:3, 7], plans.observations[:3, 7])
    assert torch.equal(moved[3:, 11], plans.observations[3:, 11])


# ------------------------------------------------------------------------------------------ speed


def test_too_fast_a_plan_is_evened_out_along_its_own_path():
    x = torch.tensor([0.0, 0.0, 0.0, 2.0, 4.0, 4.0, 4.0])
    rows = torch.stack([x, torch.zeros(7), torch.zeros(7), torch.zeros(7)], dim=-1)[None]
    fixed = torch.zeros(1, 7, dtype=torch.bool)
    fixed[0, [0, 6]] = True
    term = speed_limit(9.0, time_step=0.01)
    plan = path(rows, 10)  # 4 units in 0.6 s; the middle runs at 20 units/s
    assert float(term.violation(plan)) > 10
    after = project_onto([term], fixed)(plan)
    assert float(term.violation(after)) == 0
    torch.testing.assert_close(after.observations[..., 1], rows[..., 1])
    assert torch.equal(after.observations[:, [0, 6]], rows[:, [0, 6]])


def test_arriving_later_meets_any_speed_limit_on_the_same_path():
    rows = random_paths(1, 30, seed=5)
    dense = path(interpolate(path(rows, 12)))
    slow = slow_down(dense, 1.2, 0.01, (0, 1), (2, 3))
    beyond = speeds(slow, (0, 1), (2, 3), 0.01)[:, 1:]  # the velocity now is given
    assert float(beyond.max()) <= 1.2 + 1e-3
    apart = torch.cdist(slow.observations[0, :, :2], dense.observations[0, :, :2])
    assert float(apart.amin(dim=1).max()) < 0.07 and float(apart.amin(dim=0).max()) < 0.07
    assert slow.horizon > dense.horizon
    torch.testing.assert_close(slow.observations[:, -1, :2], dense.observations[:, -1, :2])
    fast = slow_down(dense, 1e3, 0.01, (0, 1), (2, 3))
    torch.testing.assert_close(fast.observations, dense.observations, atol=1e-4, rtol=1e-4)


# --------------------------------------------------------------------------- violations and guides


@pytest.mark.parametrize("term", [keep_out((0.0, 0.0), 1.0), keep_out_box((-1, -1), (1, 1))])
def test_keep_out_guides_point_out(term):
    rows = torch.tensor([[[0.5, 0.1, 0.0, 0.0]] * 4]).requires_grad_()
    (gradient,) = torch.autograd.grad(term.guide(path(rows, 3), LEVEL).sum(), rows)
    assert bool((gradient[..., 0] > 0).all())
    assert float(gradient[..., 2:].abs().max()) == 0
    outside = torch.full((1, 4, 4), 5.0).requires_grad_()
    assert term.guide(path(outside, 3), LEVEL).tolist() == [0.0]


def test_waypoints_are_judged_in_order_or_at_their_times():
    x = torch.arange(6.0)
    forward = path(torch.stack([x, 0 * x], dim=-1)[None])
    points = [(1.0, 0.0), (4.0, 0.5)]
    assert float(visit(points, within=0.1).violation(forward)) == pytest.approx(0.4)
    assert float(visit(points, within=0.6).violation(forward)) == 0
    assert float(visit(points[::-1], within=0.6).violation(forward)) == pytest.approx(2.4, abs=1e-3)
    assert float(visit(points, within=0.6, times=[1, 4]).violation(forward)) == 0
    assert float(visit(points, within=0.0, times=[2, 4]).violation(forward)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="step 9 lies outside the plan, which ends at step 5"):
        visit(points, within=0.1, times=[1, 9]).violation(forward)


def test_reward_is_followed_and_reported_as_what_is_missing():
    high = reward(lambda observations: observations[..., 1].mean(dim=1), at_least=2.0)
    rows = torch.zeros(2, 4, 2)
    rows[1, :, 1] = 3.0
    assert high.violation(path(rows)).tolist() == [2.0, 0.0]
    assert not high.is_hard


def test_guides_of_terms_add_up_as_a_weighted_sum():
    terms = [keep_out((0.0, 0.0), 1.0), reward(lambda observations: observations.sum(dim=(1, 2)))]
    plan = path(0.1 * random_paths(3, 5, seed=1))
    level = torch.zeros(3)
    both = weighted_sum((1.0, terms[0].guide), (1.0, terms[1].guide))
    torch.testing.assert_close(guide_of(terms)(plan, level), both(plan, level))
    assert guide_of([]) is None


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="radius is 0"):
        keep_out((0.0, 0.0), 0)
    with pytest.raises(ValueError, match="low < high"):
        keep_out_box((0.0, 2.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="must be positive"):
        speed_limit(0.0, time_step=0.01)
    with pytest.raises(ValueError, match="one time a point"):
        visit([(0.0, 0.0)], within=0.1, times=[1, 2])
    twice = [keep_out((0.0, 0.0), 1.0), keep_out((3.0, 3.0), 1.0)]
    with pytest.raises(ValueError, match=r"share the names \['keep out'\]"):
        report_violations(path(torch.zeros(1, 3, 2)), twice)
    with pytest.raises(ValueError, match="one plan with a row for every environment step"):
        slow_down(path(torch.zeros(1, 3, 4), 12), 1.0, 0.01, (0, 1), (2, 3))
