"""The studies on planning in real time draw and tell what they have, and nothing they have not."""

import numpy as np
import pytest

from forethought.registry import studies
from forethought.studies.plan_cost import exponent
from forethought.studies.timed_rows import lost


def row(mean: float, n: int = 4, **facts) -> dict:
    episodes = [{"seed": i, "score": mean + i, "start": [i, 0.0]} for i in range(n)]
    score = {"mean": mean + 1.5, "interval": [mean, mean + 3]}
    return {
        "score": score,
        "success_rate": 1.0,
        "episodes": episodes,
        "plan_ms": {"median": 5.0, "p99": 6.0, "max": 7.0},
        "plans": 10,
        "n": n,
        "control": {"controller": "pursue_path", "replan_every": 15},
        "calls_a_plan": 6.5,
        "through_walls": 0.25,
        **facts,
    }


POINTS = [{"x": 2**k, "ms": 3.0 * 2**k, "megabytes": 0.5 * 2**k} for k in range(4)]
MAZES = [{**point, "layout": "large", "rows": 48} for point in POINTS[:3]]
BINS = [{"novelty": 0.1 * k, "error": 0.2 * k, "n": 5} for k in range(1, 4)]
CALIBRATION = {
    "bins": BINS,
    "rank_correlation": 0.7,
    "threshold": 0.2,
    "share_above": 0.05,
    "error_above": None,
    "error_below": 0.1,
    "steps": 15,
}
TRAINING = {"steps": 5, "batch_size": 2, "seconds": 90.0}
TIMES = {"p50": 3.2, "p99": 4.5, "max": 9.0, "used": [[1, 2, 0.75], [2, 2, 0.25]]}
PARTS = {
    "figure-5-7": {
        "cold-1": row(90.0, network_calls=1),
        "cold-64": row(100.0, network_calls=64),
        "warm-6": row(98.0, network_calls=6),
        "prediction": [
            row(80.0 - loss, prediction=kind, steps=2, training=TRAINING)
            for kind, loss in (("clean", 0.0), ("noise", 4.0))
        ],
    },
    "amortized": {
        "scores-large": [
            row(100.0, name="planner", planned=1.0),
            row(95.0, name="student alone", planned=0.0),
        ],
        "calibration-large": {**CALIBRATION, "displaced": {**CALIBRATION, "share_above": 0.9}},
        "rate-large": {"median": 3000, "p1": 1000, "load": 0.1},
    },
    "plan-cost": {"horizon": POINTS, "candidates": POINTS, "maze": MAZES},
    "plan-budget": {
        "large-5": row(90.0, layout="large", budget_ms=5.0, in_time=0.998, **TIMES),
        "umaze-20": row(80.0, layout="umaze", budget_ms=20.0, in_time=1.0, **TIMES),
    },
}
TOLD = {
    "figure-5-7": [
        "4 matched starts, pursue_path, planning again every 15 steps",
        "| warm | 6 | 6.5 | 99.5 [98.0, 101.0] | 100% | 2.0",
        "a tenth of the steps (6 of 64) loses 2.0 [2.0, 2.0] %",
        "| noise | 2 | 77.5",
        "4.9",
        "clean 1.5 min",
    ],
    "amortized": ["student alone | 0.0% | 96.5", "random (15) | 0.200 | 90.0%", "3,000 (1,000)"],
    "plan-cost": ["exponent 1.00, memory with 1.00"],
    "plan-budget": ["large | 5 | 99.80% | 3.2 | 4.5 | 9.0 | 1 x 2 (75%)", "91.5 [90.0, 93.0] (4"],
}


@pytest.mark.parametrize("name", sorted(PARTS))
def test_study_tells_and_draws_what_it_has(name):
    study, parts = studies[name](), PARTS[name]
    assert set(parts) <= {part.name for part in study.parts}
    text = study.markdown(parts)
    for piece in TOLD[name]:
        assert piece in text, text
    for figure in study.plot(parts).values():
        figure.canvas.draw()
        assert any(axes.lines for axes in figure.axes)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_study_copes_with_any_part_missing(name):
    study = studies[name]()
    for missing in PARTS[name]:
        parts = {key: value for key, value in PARTS[name].items() if key != missing}
        assert study.markdown(parts) and study.plot(parts)


def test_lost_is_by_episode_and_in_percent_of_the_reference():
    mean, low, high = lost(row(90.0), row(98.5))
    np.testing.assert_allclose([mean, low, high], 8.5, atol=1e-9)  # the mean is 100: all lose 8.5
    with pytest.raises(ValueError, match="not start-matched"):
        lost(row(90.0, n=3), row(98.5))


def test_exponent_is_the_slope_of_the_larger_half():
    x = [1, 2, 4, 8, 16, 32]
    assert exponent(x, [5, 5, 5, 8, 16, 32]) == pytest.approx(1.0)
    assert exponent(x, [v**2 for v in x]) == pytest.approx(2.0)
