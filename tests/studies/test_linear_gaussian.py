"""Study linear-gaussian: true draws reach the bars, wrong ones do not; parts train and resume."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from forethought.envs.linear import LinearSystem
from forethought.registry import studies
from forethought.studies import linear_gaussian
from forethought.studies.base import StudySettings
from forethought.studies.linear_gaussian import METHODS, draw_pairs, judge
from forethought.studies.linear_gaussian_show import markdown, plot


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer draws, and data that is made in no time."""
    for name, number in (("N_SAMPLES", 4_000), ("N_COMPARED", 200), ("N_STEPS", 2_000)):
        monkeypatch.setattr(linear_gaussian, name, number)


def draws(system: LinearSystem, discount: float, *, stretch: float = 1.0, blur: float = 0.0):
    """The system's own draws, stretched round their mean and blurred."""
    noise = np.random.default_rng(3)

    def draw(state, action, n):
        states = system.sample_occupancy(state, action, discount, n, noise)
        mean = system.occupancy(state, action, discount)[0]
        return mean + stretch * (states - mean) + blur * noise.standard_normal(states.shape)

    return draw


def test_true_draws_reach_the_bars_and_stretched_ones_miss_by_the_stretch():
    system, pairs, discount = LinearSystem(2), draw_pairs(2, 0), 0.9
    exact = judge(draws(system, discount), system, pairs, discount)
    assert exact["mean_error"]["mean"] < 0.04 and exact["covariance_error"]["mean"] < 0.06
    wide = judge(draws(system, discount, stretch=1.2), system, pairs, discount)
    assert wide["covariance_error"]["mean"] == pytest.approx(0.44, abs=0.08)


def test_a_blur_that_is_known_is_no_error():
    system, pairs = LinearSystem(2), draw_pairs(2, 0)
    draw = draws(system, 0.5, blur=0.3)
    known = judge(draw, system, pairs, 0.5, blur=0.09 * np.eye(2))
    unknown = judge(draws(system, 0.5, blur=0.3), system, pairs, 0.5)
    assert 2 * known["covariance_error"]["mean"] < unknown["covariance_error"]["mean"]


def test_parts_train_are_kept_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_gaussian, "N_SAMPLES", 200)
    for name, method in METHODS.items():
        monkeypatch.setitem(METHODS, name, replace(method, steps=2))
    study = studies["linear-gaussian"]()
    by_name = {part.name: part for part in study.parts}
    settings = StudySettings(runs=tmp_path, console=Console(file=StringIO()))
    parts = {}
    for name in ("flow-dim2-0.9", "td2-dim8-0.9", "single-step-dim2-0.5", "gan-dim2-0.99"):
        parts[name] = by_name[name].compute(settings)
    again = by_name["flow-dim2-0.9"].compute(settings)  # from the weights that are there
    assert again["energy"] == parts["flow-dim2-0.9"]["energy"]
    parts["exact-dim2"] = by_name["exact-dim2"].compute(settings)
    for shown in ({}, {"flow-dim2-0.9": parts["flow-dim2-0.9"]}, parts):
        assert set(plot(shown)) == {"distances", "moments"}
        text = markdown(shown)
        assert text.count("TD2-CFM") == (1 if len(shown) > 1 else 0)
    assert "| 0.9 | draws from the system |" in text and "flow, likelihood at 0.9: " in text
