"""Rows at growing distances mean the same everywhere: window, plan, arrival, path between rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.config import PursuitConfig
from forethought.controllers import FollowActions, PursuePath
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.splines import interpolate, interpolate_rows, stride_of
from forethought.data.views import Windows, row_times
from forethought.guides.terms import keep_out
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import DiffuserConfig
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.types import Trajectory

GROWING = DiffuserConfig(
    horizon=8,
    stride=2,
    growth=0.3,
    actions="none",
    pad="repeat",
    denoising_steps=8,
    condition_in_training="start_and_goal_time",
    mark_pins=True,
    dim=16,
    dim_mults=(1, 2),
    blocks_per_level=1,
    reach_pairs=512,
    reach_width=64,
)


def moving_right() -> EpisodeDataset:
    """A point on a line at speed 1, from random places."""
    generator, steps = np.random.default_rng(0), np.arange(61, dtype=np.float32)[:, None]
    starts = generator.uniform(-40, 40, size=40).astype(np.float32)
    taken, nothing = np.ones((60, 1), np.float32), np.zeros(60, np.float32)
    return EpisodeDataset.from_episodes([Episode(s + steps, taken, nothing) for s in starts])


def path_at(times: torch.Tensor, rows: torch.Tensor) -> Trajectory:
    return Trajectory(observations=rows, actions=torch.zeros(*rows.shape[:2], 0), times=times)


def test_rows_start_at_zero_and_each_gap_is_at_least_as_long_as_the_stride():
    for stride, growth in ((1, 0.05), (1, 0.5), (3, 0.1), (4, 0.135), (8, 1.0)):
        times = row_times(40, stride, growth)
        gaps = np.diff(times)
        assert times[0] == 0 and gaps[0] == stride and gaps.min() >= stride
        # the real gap after row k is stride (1 + growth k); rounding moves it by less than one
        assert (np.abs(gaps - stride * (1 + growth * np.arange(39))) < 1).all()
    np.testing.assert_array_equal(row_times(5, 3), [0, 3, 6, 9, 12])


def test_windows_hold_what_happened_at_their_times():
    dataset, times = moving_right(), row_times(6, 2, 0.5)
    view = Windows(dataset, 6, stride=2, growth=0.5, actions="none", pad="none")
    assert len(view) == 40 * (61 - times[-1])
    batch = view[np.arange(len(view))]
    since = batch.observations[..., 0] - batch.observations[:, :1, 0]
    torch.testing.assert_close(since, torch.from_numpy(times).float().expand_as(since))
    assert batch.times.tolist() == times.tolist()
    padded = Windows(dataset, 6, stride=2, growth=0.5, actions="none")[np.array([59])]
    assert padded.observation_mask is not None and padded.action_mask is not None
    assert padded.observation_mask.sum() == 1 and not padded.action_mask.any()


def test_a_plan_has_the_fewest_rows_that_reach_the_time_but_a_window_at_least():
    model = GROWING.build(moving_right().spaces)
    window = row_times(8, 2, 0.3)
    for last in (1, 7, int(window[-1])):
        assert model.plan_times(last).tolist() == window.tolist()
    for last in range(int(window[-1]) + 1, 120, 7):
        times = model.plan_times(last)
        multiple = model.network.multiple
        assert len(times) % multiple == 0 and int(times[-1]) >= last
        assert int(times[-1 - multiple]) < last, "one step of the horizon less is too short"


def test_arrival_and_judge_count_environment_steps():
    dataset = moving_right()
    torch.manual_seed(0)
    model = GROWING.build(dataset.spaces)
    model.fit_statistics(dataset)
    view, order = GROWING.view(dataset), np.random.default_rng(0)
    noise, reach = torch.Generator().manual_seed(0), model.reachability
    assert reach is not None
    optimizer = torch.optim.Adam(reach.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 300)
    for _ in range(300):
        batch = view[order.integers(len(view), size=64)]
        z = model.observation_normalizer.normalize(batch.observations)
        optimizer.zero_grad()
        reach.loss(z, batch.observation_mask, 512, noise).backward()
        optimizer.step()
        decay.step()
    times = torch.from_numpy(row_times(8, 2, 0.3))
    steps = times[1:].repeat_interleave(20)
    start = torch.linspace(-30, 30, 20).repeat(7)[:, None]
    arrival = model.arrival_time(start, start + steps[:, None], threshold=1.0)
    gap = times.diff()[torch.searchsorted(times, steps) - 1]
    assert bool(((arrival - steps).abs() <= gap).all()), "within a row of the true one"
    moves = torch.stack([times.float(), torch.arange(8) * 6.0, -times.float()])[None, :, :, None]
    plans = Trajectory(observations=moves - 10, actions=torch.zeros(1, 3, 8, 0), times=times)
    judged = model.plausibility(plans, times[-1:])
    assert judged is not None and int(judged.argmax()) == 0, "the true speed is the likeliest"


def test_pairs_belong_to_the_nearest_time():
    reach = GROWING.build(moving_right().spaces).reachability
    assert reach is not None
    times = row_times(8, 2, 0.3)
    gaps = np.arange(1, 2 * times[-1])
    nearest = np.abs(times[1:] - gaps[:, None])
    found = reach.output_of(torch.from_numpy(gaps)).numpy()
    np.testing.assert_array_equal(nearest[np.arange(len(gaps)), found], nearest.min(axis=1))


def test_path_between_rows_is_exact_on_lines_and_parabolas_and_equals_the_uniform_one():
    times = torch.from_numpy(row_times(7, 2, 0.4))
    steps = torch.arange(int(times[-1]) + 1, dtype=torch.float64)[None, :, None]
    line, parabola = 3 - 2 * steps, 0.1 * steps**2 - steps
    torch.testing.assert_close(interpolate(path_at(times, line[:, times])), line)
    inner = slice(int(times[1]), int(times[-2]) + 1)
    curve = interpolate(path_at(times, parabola[:, times]))
    torch.testing.assert_close(curve[:, inner], parabola[:, inner])
    rows = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(interpolate(path_at(times, rows))[:, times], rows)
    # one gap longer than the rest: the part before is as with equal gaps
    nearly = torch.tensor([0, 3, 6, 9, 12, 15, 19])
    curve = interpolate(path_at(nearly, rows))
    torch.testing.assert_close(curve[:, :13], interpolate_rows(rows, 3)[:, :13])


def test_planner_and_pursuit_run_on_growing_rows_and_what_cannot_says_so():
    dataset = moving_right()
    torch.manual_seed(0)
    model = GROWING.build(dataset.spaces)
    model.fit_statistics(dataset)
    model.eval().requires_grad_(False)
    config = DiffusionPlannerConfig(candidates=2, sampler=SamplerConfig(steps=2))
    planner = DiffusionPlanner(model, config)
    start, goal = torch.zeros(1, 1), torch.full((1, 1), 9.0)
    plan = planner.plan(start, goal=goal, generator=torch.Generator().manual_seed(0))
    times, arrival = plan.trajectory.times, int(plan.stats["arrival"][0])
    assert times.tolist() == row_times(len(times), 2, 0.3).tolist() and arrival in times.tolist()
    held = plan.trajectory.observations[0, times >= arrival]
    torch.testing.assert_close(held, goal.expand_as(held))
    rows = PursuePath(PursuitConfig(position=(0,), velocity=(0,))).prepare(plan.trajectory)
    assert rows.shape == (1, int(times[-1]) + 1, 2)
    with pytest.raises(ValueError, match="equally spaced rows.*model.growth 0"):
        FollowActions(1).prepare(plan.trajectory)
    with pytest.raises(ValueError, match="equally spaced"):
        stride_of(plan.trajectory)
    disc = keep_out((5.0,), 1.0, dims=(0,))
    assert disc.violation(plan.trajectory).shape == (1,)


def test_growth_with_blocks_of_actions_is_refused():
    with pytest.raises(ValueError, match="growth 0.3 needs model.actions none"):
        replace(GROWING, actions="block")
    with pytest.raises(ValueError, match="growth 0.3 needs .* no mixed_horizons"):
        replace(GROWING, mixed_horizons=(4,))
    with pytest.raises(ValueError, match="growth 0.5 with actions 'block'"):
        Windows(moving_right(), 4, growth=0.5)
