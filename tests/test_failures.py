"""Failures have a measured cause, are kept by an evaluation and drawn in the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from forethought.checkpoint import load_config
from forethought.config import ControlConfig
from forethought.data.episodes import Episode
from forethought.envs.maze_layout import LAYOUTS
from forethought.evaluation import EvaluationSettings, evaluate_checkpoint
from forethought.failures import cause_of_failure, failed_examples, touches_wall
from forethought.report import write_html

LAYOUT = LAYOUTS["umaze"]
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained/diffuser/maze-umaze"
GOAL = np.array([0.8, 0.8, 0, 0], np.float32)


def episode(path, successes=None) -> Episode:
    """A run through the U-Maze, by its positions."""
    path = np.asarray(path, np.float32)
    observations = np.concatenate([path, np.zeros_like(path)], axis=1)
    reached = np.zeros(len(path) - 1, bool) if successes is None else successes
    zeros = np.zeros((len(path) - 1, 2), np.float32)
    return Episode(observations, zeros, zeros[:, 0], successes=reached, goal=GOAL, seed=7)


def to(points, steps):
    """Positions on the way along ``points``, the last one held for 150 steps."""
    where = np.linspace(0, len(points) - 1, steps)
    moving = [np.interp(where, range(len(points)), np.array(points)[:, k]) for k in (0, 1)]
    path = np.stack(moving, axis=1)
    return np.concatenate([path, np.repeat(path[-1:], 150, axis=0)])


def test_causes_are_told_apart():
    # cell (row 1, column 0) of the U is a wall: its edge is at row 1.3, the ball's radius is 0.1
    at_wall = cause_of_failure(episode(to([[2.8, 0.8], [2.41, 0.8]], 40)), LAYOUT)
    assert at_wall is not None and at_wall["cause"] == "stuck at a wall"
    assert at_wall["distance"] == pytest.approx(1.61, abs=1e-3)
    in_the_open = cause_of_failure(episode(to([[2.8, 0.8], [2.8, 2.0]], 40)), LAYOUT)
    assert in_the_open is not None and in_the_open["cause"] == "stands still"
    moving = cause_of_failure(episode(to([[2.8, 0.8], [2.8, 2.8], [1.2, 2.8]], 300)[:290]), LAYOUT)
    assert moving is not None and moving["cause"] == "still under way"
    successes = np.zeros(189, bool)
    successes[50:80] = True
    left = cause_of_failure(episode(to([[0.8, 0.8], [0.8, 2.8]], 40), successes), LAYOUT)
    assert left is not None and left["cause"] == "arrived and left"
    assert "arrived at step 51, left for good at step 81" in left["text"]
    assert cause_of_failure(episode(to([[0.8, 0.8]] * 2, 40), ~np.zeros(189, bool)), LAYOUT) is None
    assert cause_of_failure(replace(episode(to([[0.8, 0.8]] * 2, 40)), goal=None), LAYOUT) is None


def test_contact_is_a_rim_within_reach_of_a_wall():
    points = np.array([[2.8, 0.8], [2.41, 0.8], [2.44, 0.8]])
    assert touches_wall(points, LAYOUT).tolist() == [False, True, False]


def test_first_failures_are_kept_with_their_plans():
    good = episode(to([[0.8, 0.8]] * 2, 40), ~np.zeros(189, bool))
    bad = episode(to([[2.8, 0.8], [2.8, 2.0]], 40))
    plan = np.zeros((10, 5))
    kept = failed_examples([good, bad, bad, bad], [None, None, plan, plan], LAYOUT, 2)
    assert len(kept) == 2 and kept[0]["imagined"] is None and len(kept[1]["imagined"]) == 5
    assert kept[0]["seed"] == 7 and not kept[0]["success"]


def test_an_evaluation_of_a_bad_planner_shows_its_failures(tmp_path):
    """One plan of a fixed, short length, read by the clock: most starts are too far away."""
    planner = replace(load_config(SHIPPED)["experiment"].planner, length=24)
    control = ControlConfig(gains=((10.0, 0.0, 1.0, 0.0), (0.0, 10.0, 0.0, 1.0)), look_ahead=4.0)
    settings = EvaluationSettings(episodes=5, parallel=2, references=False)
    data = evaluate_checkpoint(
        SHIPPED, settings, planner, control, tmp_path / "bad.json", Console(quiet=True)
    )
    failed = [record for record in data["episodes"] if not record["success"]]
    assert failed and sum(data["causes"].values()) == len(failed)
    assert [f["seed"] for f in data["failures"]] == [record["seed"] for record in failed]
    for failure in data["failures"]:
        ends = np.array([failure["executed"][0], failure["imagined"][0]])
        np.testing.assert_allclose(ends, [failure["start"]] * 2, atol=0.05)  # its own plan
    page = write_html([data], tmp_path / "page.html", title="Failures").read_text()
    assert f"{len(failed)} of 5 episodes failed: Failed episodes by cause" in page
    assert all(cause in page for cause in data["causes"])
    without = write_html([data | {"failures": []}], tmp_path / "b.html", title="None").read_text()
    assert page.count("<img") == without.count("<img") + 1
