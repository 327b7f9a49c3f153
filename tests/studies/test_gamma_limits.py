"""Study gamma-limits: parts train, are kept and shown; ratios; rewards are what they say."""

from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from forethought.commands import build_data
from forethought.occupancy import MujocoSimulator, simulator_of
from forethought.registry import studies
from forethought.studies import gamma_limits
from forethought.studies.base import StudySettings
from forethought.studies.gamma_limits_show import LABELS, markdown, plot, ratio


def test_a_ratio_of_proportional_errors_is_certain():
    np.testing.assert_allclose(ratio([0.2, 0.5, 0.1], [0.4, 1.0, 0.2]), 0.5)
    value, low, high = ratio([1.0, 2.0, 3.0, 1.5], [3.0, 1.0, 2.0, 4.0])
    assert value == pytest.approx(0.75) and low < value < high


def test_reacher_s_rewards_are_read_from_the_right_places():
    simulator = simulator_of("forethought/reacher-v0")
    assert isinstance(simulator, MujocoSimulator)
    states = simulator.draw_starts(3, seed=0)
    seen = torch.from_numpy(simulator.observe(states))
    rewards = gamma_limits.TASKS["reacher"].rewards
    bodies = []
    for state in states:
        simulator._go_to(state)
        data = simulator.env.data
        bodies.append([data.body("fingertip").xpos.copy(), data.body("target").xpos.copy()])
    tip, target = np.moveaxis(np.array(bodies), 1, 0)
    apart = np.linalg.norm((tip - target)[:, :2], axis=-1)
    np.testing.assert_allclose(rewards["task"][1](seen), -apart, atol=1e-6)
    np.testing.assert_allclose(rewards["unseen"][1](seen), tip[:, 1], atol=1e-6)


def test_names_of_tasks_stand_for_their_parts():
    study = studies["gamma-limits"]()
    own = [part.name for part in study.matching("reacher")]
    assert len(own) == 15 and all(name.startswith("reacher-") for name in own)
    assert [part.name for part in study.matching("reacher-truth")] == ["reacher-truth"]
    assert not study.matching("reach")


def test_parts_are_computed_and_shown(tmp_path, monkeypatch):
    few = {"DRAWS": 6, "VALUE_DRAWS": 12, "QUESTIONS": 3, "CORE_SECONDS": 0.001}
    for name, value in {**few, "DISCOUNTS": (0.5, 0.99)}.items():
        monkeypatch.setattr(gamma_limits, name, value)
    study = studies["gamma-limits"]()
    settings = StudySettings(runs=tmp_path, data=tmp_path, console=Console(file=StringIO()))
    monkeypatch.setattr(
        "forethought.studies.gamma_truth.build_data",
        lambda name, folder, seed, steps, console: build_data(name, folder, seed, 2_000, console),
    )
    names = ["truth", "td2-0.99", "flow-0.99", "gan-0.99", "flow-regression-0.99"]
    parts = {}
    for name in [*names, "td2-all", "single-step"]:
        (part,) = study.matching(f"pendulum-{name}")
        parts[part.name] = part.compute(settings)
    assert len(list(tmp_path.glob("gamma-limits-pendulum-*.npz"))) == 1  # one simulation for all
    text = markdown(parts)
    assert all(label in text for label, _ in LABELS.values())
    assert set(plot(parts)) == {"distances", "values", "dimensions"}
    assert plot({}) == {} and markdown({}) == ""
