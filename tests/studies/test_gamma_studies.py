"""Studies of gamma-model predictions: shown points, maps, tables; all from parts alone."""

import numpy as np
import torch

from forethought.envs.acrobot import AcrobotEnv
from forethought.envs.pendulum import PendulumEnv
from forethought.studies import figure_3_3, figure_3_4, figure_3_4_show, figure_a_1
from forethought.studies.gamma_truth import distances


def row(discount: float, energy: float) -> dict:
    distance = {"energy": energy, "sliced": energy, "energies": [energy], "sliced_each": [energy]}
    points = [[0.1, 0.2], [0.3, -0.4]]
    return {"discount": discount, "distance": distance, "floor": distance, "points": points}


def prediction_parts() -> dict:
    training = {"steps": 10, "core_seconds": 1.0}
    rows = [row(discount, 0.1) for discount in figure_3_3.DISCOUNTS]
    true = {"rows": rows, "questions": 1, "draws": 2, "start": [0.0, 0.0], "unit": "sd"}
    parts = {}
    for task in figure_3_3.TASKS:
        parts[f"{task}-truth"] = true
        parts[f"{task}-all"] = {"training": training, "rows": rows}
        for index, key in enumerate(figure_3_3.COMPARISON):
            found = [row(figure_3_3.COMPARED, 0.2 + 0.1 * index)]
            parts[f"{task}-{key}"] = {"training": training, "rows": found}
        parts[f"{task}-gan"] = {"training": training, "rows": rows}
    return parts


def test_shown_points_are_the_state_s_angles():
    states = np.array([[0.5, -1.0], [-2.0, 3.0]])
    seen = torch.from_numpy(PendulumEnv().observe(states))
    np.testing.assert_allclose(figure_3_3.shown_points("pendulum", seen), states, atol=1e-3)
    states = np.array([[0.5, -1.0, 2.0, 3.0]])
    seen = torch.from_numpy(AcrobotEnv().observe(states))
    np.testing.assert_allclose(figure_3_3.shown_points("acrobot", seen), states[:, :2], atol=1e-3)


def test_distances_are_in_units_of_the_spread():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 500, 2, generator=generator)
    y = torch.randn(1, 500, 2, generator=generator) + 1
    spread = torch.tensor([10.0, 0.1])
    plain = distances(x, y, torch.ones(2))
    scaled = distances(x * spread, y * spread, spread)
    np.testing.assert_allclose(plain["energy"], scaled["energy"], rtol=1e-5)
    assert plain["energy"] > 0.5


def test_predictions_are_drawn_and_listed_from_parts():
    parts = prediction_parts()
    found = figure_3_3.plot(parts)
    assert set(found) == {"pendulum", "pendulum-kinds", "acrobot", "acrobot-kinds"}
    text = figure_3_3.markdown(parts)
    order = [
        text.index(name) for name in ("flow matching (TD2", "spline flow (A", "gan-original-0.0")
    ]
    assert order == sorted(order)  # by distance
    assert set(figure_a_1.plot(parts)) == {"pendulum", "acrobot"}
    assert "| 0.95 | 0.100 |" in figure_a_1.markdown(parts)
    for module in (figure_3_3, figure_3_4, figure_a_1):
        assert module.plot({}) == {} and module.markdown({}) == ""
    assert figure_3_3.plot({"pendulum-truth": parts["pendulum-truth"]})


def test_maps_are_scored_against_the_grid():
    n = len(figure_3_4.asked_states())
    true = np.random.default_rng(0).normal(size=n)
    grid = {"policy": true.tolist(), "best": true.tolist(), "nine": [0.0] * 9}
    grid |= {"nine_rollouts": [0.5] * 9, "nine_standard_errors": [0.1] * 9}
    reference = {"grid": [161, 161], "rollouts": 200} | dict.fromkeys(figure_3_4.REWARDS, grid)
    maps = {"task": (true + 2).tolist(), "left": (-true).tolist()}
    parts = {"reference": reference, "one-pass": {"steps": 1, "maps": maps}}
    found = figure_3_4_show.scores(parts)["one-pass"]
    assert found["task"]["rank"] == 1 and found["left"]["rank"] == -1
    np.testing.assert_allclose([found["task"]["mean"], found["task"]["bias"]], 2)
    assert "| 1.000 | – | 2.00 | – |" in figure_3_4.markdown(parts)
    assert set(figure_3_4.plot(parts)) == {"maps"}
