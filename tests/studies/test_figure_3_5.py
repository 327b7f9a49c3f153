"""Figure 3.5: steps to a return, ratios, missing parts, and a run from end to end."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from forethought.config import OnlineConfig
from forethought.recipes.model_based import REWARD_SCALE, updated_often
from forethought.recipes.model_based import TASKS as MODEL_TASKS
from forethought.registry import recipes
from forethought.studies.base import StudySettings
from forethought.studies.figure_3_5 import (
    TASKS,
    figure_3_5,
    learning_curve,
    ppo_curve,
    random_return,
)
from forethought.studies.figure_3_5_show import (
    markdown,
    plot,
    ratio_interval,
    steps_to,
    tasks_of,
    threshold,
)


def curve(*returns: float) -> np.ndarray:
    return np.array([[250.0 * (k + 1), value] for k, value in enumerate(returns)])


def part(*returns: float, seconds: float = 10.0) -> dict:
    training = {"steps": 100, "train_seconds": seconds, "parameters": 5}
    return {"curve": curve(*returns).tolist(), "recipe": "x", "training": training}


PARTS = {
    "random-pendulum": {"return": -1000.0},
    "sac-pendulum-0": part(-1000, -900, -500, -109, -100, -100, -100),
    "sac-pendulum-1": part(-1000, -900, -500, -500, -109, -100, -100),
    "gamma-mve-pendulum-0": part(-900, -150, -100, -100, -100, -100, -100, seconds=25.0),
    "ppo-pendulum-0": {"curve": curve(*[-1000] * 7).tolist(), "recipe": "ppo"},
}


def test_steps_are_those_of_the_first_of_two_evaluations_in_a_row():
    assert steps_to(curve(0, 9, 0, 9, 9, 0), 5) == 1_000
    assert steps_to(curve(0, 9, 0, 0, 0, 9), 5) == 1_500  # the last one has no successor
    assert math.isinf(steps_to(curve(0, 9, 0), 5))


def test_threshold_is_nine_tenths_of_the_way():
    assert threshold(PARTS, "pendulum") == pytest.approx(-1000 + 0.9 * 900, abs=3)
    assert threshold({"random-pendulum": {"return": 0.0}}, "pendulum") is None


def test_ratio_and_interval():
    ratio, low, high = ratio_interval([500.0, 600.0, 700.0], [1200.0, 1000.0, 1400.0])
    assert (ratio, low, high) == (0.5, pytest.approx(500 / 1400), pytest.approx(0.7))
    assert math.isinf(ratio_interval([math.inf, math.inf], [100.0, 200.0])[0])


def test_tables_and_figures_cope_with_missing_parts():
    assert plot({}) == {} and "environment steps" in markdown({})
    assert tasks_of({"random-pendulum": {"return": 0.0}}) == []
    alone = {"random-acrobot": {"return": 1.0}, "mve-acrobot-0": part(*[2.0] * 7)}
    assert "no run of SAC yet" in markdown(alone) and list(plot(alone)) == ["curves"]
    text = markdown(PARTS)
    assert "| SAC | 2 | 1,125 (1,000, 1,250) | 1 |" in text
    assert "| γ-MVE | 1 | 500 (500) | 0.44 [0.40, 0.50] | -100 | 2.5 |" in text
    assert "| PPO | 1 | > 1,750 (> 1,750) | not reached | -1000 | – |" in text


def test_parts_have_recipes_and_names_that_do_not_collide():
    study = figure_3_5()
    names = [each.name for each in study.parts]
    runs = sum(1 + (5 + task.often) * task.seeds for task in TASKS.values())
    assert len(set(names)) == len(names) == runs
    assert set(TASKS) == set(MODEL_TASKS)
    for task, facts in TASKS.items():
        alone, often = recipes[f"sac-small/{task}"](), updated_often(task)
        assert alone.model == often.model and alone.train.batch_size == often.train.batch_size
        assert facts.often == (alone.online != often.online)  # updates a step differ
        for method in ("gamma-mve", "mve", "mbpo"):
            found = recipes[f"{method}/{task}"]()
            assert (found.online, found.train) == (often.online, often.train)
            scale = REWARD_SCALE.get(task, often.model.reward_scale)
            assert found.model.sac == replace(often.model, reward_scale=scale)


def test_a_run_is_kept_and_goes_on(tmp_path, monkeypatch):
    small = recipes["mve/pendulum"]()
    online = replace(small.online, random_steps=20, evaluate_every=20, evaluation_episodes=2)
    online = replace(online, steps_per_update=1.0)
    short = replace(small, online=online, train=replace(small.train, steps=20, batch_size=8))
    monkeypatch.setitem(recipes._entries, "mve/pendulum", lambda: short)
    settings = StudySettings(runs=tmp_path, episodes=2)
    first = learning_curve(settings, method="mve", task="pendulum", run_seed=3)
    assert [row[0] for row in first["curve"]] == [20, 40]
    assert first["protocol"]["training_seed"] == 3 and first["training"]["steps"] == 20
    again = learning_curve(settings, method="mve", task="pendulum", run_seed=3)
    assert json.dumps(again) == json.dumps(first)
    assert isinstance(online, OnlineConfig) and first["settings"]["model"]["kind"] == "mve"
    assert -2_000 < random_return(settings, task="pendulum")["return"] < -200


def test_a_missing_curve_of_ppo_says_how_to_make_it(tmp_path):
    settings = StudySettings()
    with pytest.raises(FileNotFoundError, match="train_ppo.py pendulum 1 --steps 5000 --every 250"):
        ppo_curve(settings, baselines=tmp_path, task="pendulum", run_seed=1)
    data = {"recipe": "ppo", "protocol": {}, "rows": [{"env_steps": 250, "return": -1.0}]}
    (tmp_path / "ppo-pendulum-seed1.json").write_text(json.dumps(data))
    found = ppo_curve(settings, baselines=tmp_path, task="pendulum", run_seed=1)
    assert found["curve"] == [[250, -1.0]]


def test_a_run_of_sac_that_never_arrives_counts_as_its_end():
    slow = {
        "random-pendulum": {"return": -100.0},
        "sac-pendulum-0": part(
            *[-100.0] * 6, -99.0, -99.0
        ),  # its mean final return is out of reach
        "sac-pendulum-1": part(*[-100.0] * 7, 100.0),
        "gamma-mve-pendulum-0": part(-100.0, *[200.0] * 7),
    }
    assert "| ≤ 0.25 [0.25, 0.25] |" in markdown(slow)
