"""Figure 5.3's measures, with tiny settings: what counts as feasible, and a run of every part."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.nn.unet1d import TemporalUnet
from forethought.registry import studies
from forethought.studies import figure_5_3_plans as plans
from forethought.studies import figure_5_3_stitching as stitching
from forethought.studies.base import StudySettings
from forethought.studies.shooting_rows import SETTINGS, shooting_policy


def v_shape(task: torch.Tensor) -> torch.Tensor:
    """(ROWS, 2): from the start down to a corner and up to the goal, at the data's directions."""
    start, goal = task.numpy()
    span = goal - start
    t = np.linspace(0, 1, stitching.ROWS)
    turn = 0.5 * (1 - span[1] / span[0])  # share of the way that goes down
    y = np.where(t < turn, -t, t - 2 * turn) * span[0]
    return torch.tensor(np.stack([start[0] + t * span[0], start[1] + y], axis=1))


def test_lines_are_feasible_and_tasks_need_what_they_say():
    generator = np.random.default_rng(0)
    lines = torch.tensor(stitching.draw_lines(200, generator))
    assert bool(stitching.are_feasible(lines).all())
    assert float(lines.abs().max()) <= 1 + 1e-6
    steps = torch.linspace(0, 1, stitching.ROWS)[:, None]
    for turns in (True, False):
        tasks = stitching.draw_tasks(50, turns, generator)
        straight = tasks[:, :1] + steps * (tasks[:, 1:] - tasks[:, :1])
        assert bool((stitching.are_feasible(straight) != turns).all())
    tasks = stitching.draw_tasks(50, True, generator)
    assert bool(stitching.are_feasible(torch.stack([v_shape(task) for task in tasks])).all())


@pytest.mark.parametrize("network", stitching.NETWORKS)
def test_receptive_field_of_one_level_is_what_its_convolutions_say(network):
    built = TemporalUnet(
        2,
        2,
        dim=16,
        dim_mults=network.dim_mults,
        kernel_size=network.kernel_size,
        blocks_per_level=1,
        middle_blocks=network.middle_blocks,
    )
    x = torch.randn(1, 16, 2)
    before = built(x, torch.zeros(1))
    field = stitching.measure_receptive_field(built)
    torch.testing.assert_close(built(x, torch.zeros(1)), before)  # measuring leaves no trace
    if len(network.dim_mults) == 1:
        convolutions = 3 + 2 * network.middle_blocks
        assert field == 1 + convolutions * (network.kernel_size - 1)
    else:
        assert field >= 2 * stitching.ROWS - 1, "every row sees every row"


def test_plans_through_walls_or_too_fast_are_not_feasible():
    rows = torch.linspace(0, 1, 13)[:, None]
    along = torch.tensor([1.0, 1.0]) + rows * torch.tensor([0.0, 3.0])  # a corridor of Large
    across = torch.tensor([1.0, 1.0]) + rows * torch.tensor([3.0, 1.5])
    seconds = 0.12
    found = plans.are_feasible(torch.stack([along, across]), seconds)
    assert found.tolist() == [True, False]
    assert not bool(plans.are_feasible(along[::4], seconds)), "0.75 cells in 0.12 s is too fast"


def test_tiny_parts_draw_and_print(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "HORIZONS", (20, 32))
    monkeypatch.setattr(plans, "DISTANCES", (2, 10))
    monkeypatch.setattr(plans, "GUIDED", replace(plans.GUIDED, kind="ddim", steps=2))
    settings = StudySettings(episodes=2, runs=tmp_path)
    networks = (stitching.Network(dim_mults=(1,), kernel_size=3, dim=16, middle_blocks=0),)
    stitched = stitching.compute_stitching(settings, networks=networks, steps=4, samples=6)
    parts = {
        "stitching": stitched,
        "horizons": plans.compute_horizons(settings, samples=1),
        "rewards": plans.compute_rewards(settings, samples=1),
    }
    study = studies["figure-5-3"]()
    assert set(study.plot(parts)) == {"b-stitching", "c-horizons", "d-rewards"}
    text = study.markdown(parts)
    assert "| 7 of 24 rows |" in text
    assert study.plot({}) == {} and study.markdown({}) == ""


def test_reward_of_passing_by_is_minus_the_distance_of_the_nearest_row():
    from forethought.types import Trajectory

    path = torch.tensor([[[0.0, 0.0, 0, 0], [5.0, 0.0, 0, 0], [9.0, 0.0, 0, 0]]])
    guide = plans.pass_by(torch.tensor([[5.0, 2.0]]))
    trajectory = Trajectory(observations=path, actions=torch.zeros(1, 3, 0), times=torch.arange(3))
    torch.testing.assert_close(guide(trajectory, torch.zeros(1)), torch.tensor([-2.0]))


def test_shooting_policy_arrives_where_its_samples_find_the_reward(tmp_path):
    """From the goal's neighborhood every method stays near it; the batch changes nothing."""
    observation = torch.tensor([[1.0, 1.6, 0.0, 0.0], [1.0, 1.8, 0.0, 0.0]])
    goal = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2)
    for method in SETTINGS:
        policy = shooting_policy("forethought/maze2d-umaze-v0", method, samples=32, horizon=48)
        policy.reset(2, [5, 6])
        both = policy(observation, goal, torch.tensor([0, 1]))
        policy.reset(1, [6])
        alone = policy(observation[1:], goal[1:], torch.tensor([0]))
        assert torch.equal(both[1:], alone)
        assert float(both.abs().max()) <= 1
    with pytest.raises(ValueError, match="methods are mppi"):
        shooting_policy("forethought/maze2d-umaze-v0", "mpc")  # pyright: ignore[reportArgumentType]
