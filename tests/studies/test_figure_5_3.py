"""Figure 5.3's measures, with tiny settings: what counts as feasible, and a run of every part."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.models.base import SamplerConfig
from forethought.nn.unet1d import TemporalUnet
from forethought.registry import studies
from forethought.studies import figure_5_3_plans as plans
from forethought.studies import figure_5_3_rewards as rewards
from forethought.studies import figure_5_3_stitching as stitching
from forethought.studies.base import StudySettings
from forethought.studies.figure_5_3_tables import long_horizon
from forethought.studies.figure_5_3_tables import stitching as pool
from forethought.studies.shooting_rows import SETTINGS, shooting_policy


def test_only_way_is_the_datas_line_or_two_halves_of_lines():
    generator = np.random.default_rng(0)
    step = torch.tensor([stitching.STEP, stitching.STEP])
    for turns in (False, True):
        tasks = stitching.draw_tasks(50, turns, generator)
        ways = stitching.only_ways(tasks)
        torch.testing.assert_close(ways[:, [0, -1]], tasks)
        moves = ways.diff(dim=1)
        at_corner = (moves.abs() - step).norm(dim=-1) > 1e-5
        assert int(at_corner.sum(dim=1).max()) <= turns, "only a step round a corner is shorter"
        corners = (moves[:, 1:, 1].sign() != moves[:, :-1, 1].sign()).sum(dim=1)
        assert bool((corners == 0).all()) != turns
        # between the corner and the straight way that cuts it lies more than the tolerance
        share = torch.linspace(0, 1, stitching.ROWS)[:, None]
        straight = tasks[:, :1] + share * (tasks[:, 1:] - tasks[:, :1])
        assert bool((stitching.are_feasible(straight[:, None], tasks) != turns).all())
        assert bool(stitching.are_feasible(ways[:, None], tasks).all())


def test_plans_are_feasible_up_to_the_tolerance_in_units():
    tasks = stitching.draw_tasks(4, True, np.random.default_rng(0))
    plans = stitching.only_ways(tasks)[:, None].repeat(1, 2, 1, 1)
    plans[:, 0, 7] += torch.tensor([0.0, stitching.TOLERANCE - 1e-4])
    plans[:, 1, 7] += torch.tensor([0.0, stitching.TOLERANCE + 1e-4])
    assert stitching.are_feasible(plans, tasks).tolist() == [[True, False]] * 4
    late = stitching.only_ways(tasks)[:, None].roll(2, dims=2)  # the right path, two steps late
    assert not bool(stitching.are_feasible(late, tasks).any())
    inside = late[:, :, 2:-2]  # but for the rows that rolled over the ends
    assert float(stitching.path_deviations(inside, tasks).max()) < 1e-5, "the path is right"
    data = torch.from_numpy(stitching.draw_lines(200, np.random.default_rng(1)))
    own = stitching.deviations(data[:, None], data[:, [0, -1]])
    assert float(own.max()) < 1e-5, "the data's lines are their own only ways"


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
    monkeypatch.setattr(rewards, "GUIDED", replace(rewards.GUIDED, kind="ddim", steps=2))
    settings = StudySettings(episodes=2, runs=tmp_path)
    networks = (stitching.Network(dim_mults=(1,), kernel_size=3, dim=16, middle_blocks=0),)
    stitched = stitching.compute_stitching(settings, networks=networks, steps=4, samples=6)
    monkeypatch.setattr(rewards, "EVERY_LEVEL", SamplerConfig(kind="ddim", steps=2))
    monkeypatch.setattr(rewards, "SWEEP", rewards.SWEEP[::13])
    parts = {
        "guidance": rewards.compute_guidance(settings, samples=3),
        "stitching-0": stitched,
        "stitching-2": stitched,
        "horizons": plans.compute_horizons(settings, samples=1),
        "rewards": rewards.compute_rewards(settings, samples=1),
    }
    study = studies["figure-5-3"]()
    assert set(study.plot(parts)) == {
        "b-stitching",
        "c-horizons",
        "d-rewards",
        "d-guidance",
    }
    text = study.markdown(parts)
    assert "| 7 of 24 rows |" in text and "by reward among the plausible half" in text
    assert "| none |" in text and "within 0.075" in text
    assert "training seeds 0, 0 of 4 steps" in text
    assert study.plot({}) == {} and study.markdown({}) == ""


def test_reward_of_passing_by_is_minus_the_distance_of_the_nearest_row():
    from forethought.types import Trajectory

    path = torch.tensor([[[0.0, 0.0, 0, 0], [5.0, 0.0, 0, 0], [9.0, 0.0, 0, 0]]])
    guide = rewards.pass_by(torch.tensor([[5.0, 2.0]]))
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


def test_candidates_are_kept_by_reward_by_the_judge_or_by_reward_among_the_plausible():
    reward = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    plausible = torch.tensor([[-9.0, -2.0, -3.0, -1.0]])
    kept = {way: int(index) for way, index in rewards.choices(reward, plausible).items()}
    assert list(kept.values()) == [0, 3, 1]


def test_plans_are_useful_where_they_are_feasible_and_pass_both_places():
    rows = torch.linspace(0, 1, 13)[:, None]
    along = torch.tensor([0.8, 0.8]) + rows * torch.tensor([0.0, 3.0])  # a corridor of Large
    through = torch.tensor([0.8, 0.8]) + rows * torch.tensor([1.5, 3.0])
    places = torch.tensor([[[0.8, 1.8], [0.8, 2.8]]])
    found = rewards.measure(torch.stack([along, through])[None], places, seconds=0.12)
    assert found["visits_both"].tolist()[0][0] == 1 and found["useful"].tolist() == [[1, 0]]
    torch.testing.assert_close(found["reward_a"][0, 0], torch.tensor(0.0), atol=0.05, rtol=0)


def test_training_seeds_are_pooled_by_task():
    def part(seed, by_task):
        kind = {"by_task": by_task, "by_tolerance": {"0.15": 0.5}}
        kind |= {"median_deviation": 0.1 * seed, "path_within": 1.0}
        rows = [{"turning": kind, "straight": kind, "receptive_field": 7}]
        return {"rows": rows, "protocol": {"training_seed": seed}}

    pooled = pool({"stitching-1": part(1, [0.0, 1.0]), "stitching-2": part(2, [0.5, 1.0])})
    assert pooled is not None and pooled["protocol"]["seeds"] == [1, 2] and pool({}) is None
    row = pooled["rows"][0]["turning"]
    assert row["mean"] == pytest.approx(0.625) and row["by_seed"] == [0.5, 0.75]
    assert row["median_deviation"] == pytest.approx(0.15) and row["interval"][1] == 1.0


def test_long_horizon_rows_of_both_kinds_stand_together():
    hard = {"start": [1, 1], "goal": [7, 9], "cells": 14}
    parts = {
        f"{kind}-large": {
            "layout": "#",
            "rows": {name: {}},
            "hard_start": {**hard, "paths": {name: [kind]}},
        }
        for kind, name in (("long-horizon", "mppi"), ("diffuser", "Diffuser"))
    }
    both = long_horizon(parts, "large")
    assert both is not None and list(both["rows"]) == ["Diffuser", "mppi"]
    assert both["hard_start"]["paths"] == {"Diffuser": ["diffuser"], "mppi": ["long-horizon"]}
    assert long_horizon(parts, "medium") is None
