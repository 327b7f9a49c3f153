"""Laws of the numbers that summarize episodes."""

import math

import numpy as np
import pytest

from forethought.scores import (
    _student_quantile,
    interquartile_mean,
    mean_and_interval,
    normalized_score,
    paired_difference,
    rank_correlation,
)


def test_normalized_score_is_0_at_random_and_100_at_the_expert():
    assert normalized_score(6.7, (6.7, 273.99)) == 0
    np.testing.assert_allclose(normalized_score(273.99, (6.7, 273.99)), 100)
    np.testing.assert_allclose(normalized_score(1.5, (1.0, 2.0)), 50)


# two-sided 95 % points of Student's t; the expansion is coarse at 3 and 4 degrees of freedom
@pytest.mark.parametrize(
    ("dof", "quantile", "tolerance"),
    [
        (1, 12.7062, 5e-4),
        (2, 4.30265, 5e-5),
        (3, 3.18245, 0.02),
        (4, 2.77645, 0.01),
        (5, 2.57058, 0.005),
        (10, 2.22814, 5e-4),
        (29, 2.04523, 5e-5),
        (100_000, 1.95999, 5e-5),
    ],
)
def test_student_quantiles_match_the_table(dof, quantile, tolerance):
    np.testing.assert_allclose(_student_quantile(0.975, dof), quantile, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dof", [1, 2, 3, 7, 50])
def test_student_quantile_is_odd_and_grows(dof):
    np.testing.assert_allclose(_student_quantile(0.5, dof), 0, atol=1e-12)
    points = [_student_quantile(p, dof) for p in (0.6, 0.75, 0.9, 0.975, 0.995)]
    assert points == sorted(points)
    np.testing.assert_allclose(
        [_student_quantile(1 - p, dof) for p in (0.6, 0.9)], [-points[0], -points[2]]
    )


def test_interval_by_hand():
    mean, low, high = mean_and_interval([1.0, 2.0, 3.0])
    half = 4.30265 / math.sqrt(3)  # the sample's standard deviation is 1
    np.testing.assert_allclose([mean, low, high], [2, 2 - half, 2 + half], rtol=1e-5)
    assert mean_and_interval([7.0]) == (7.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_and_interval([])


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_interval_covers_the_true_mean_95_times_in_100(n):
    trials = 2000
    values = np.random.default_rng(n).normal(3.0, 2.0, (trials, n))
    covered = [low <= 3.0 <= high for _, low, high in map(mean_and_interval, values)]
    standard_error = math.sqrt(0.95 * 0.05 / trials)  # 0.005; the tolerance is 4 of them
    np.testing.assert_allclose(np.mean(covered), 0.95, atol=4 * standard_error)


@pytest.mark.parametrize("n", [4, 8, 40, 100])
def test_interquartile_mean_is_the_mean_of_the_middle_half(n):
    values = np.random.default_rng(n).normal(size=n)
    middle = np.sort(values)[n // 4 : n - n // 4]
    np.testing.assert_allclose(interquartile_mean(values), middle.mean())


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 27])
def test_interquartile_mean_does_not_change_when_values_are_repeated(n):
    values = np.random.default_rng(n).normal(size=n)
    np.testing.assert_allclose(interquartile_mean(values), interquartile_mean(np.repeat(values, 4)))


def records(scores: list[float], **changes) -> list[dict]:
    return [
        {"seed": i, "start": [i, 0.0], "goal": None, "score": score, **changes}
        for i, score in enumerate(scores)
    ]


def test_paired_difference_is_the_interval_of_the_differences():
    first, second = [3.0, 5.0, 10.0], [1.0, 4.0, 7.0]
    assert paired_difference(records(first), records(second)) == mean_and_interval([2.0, 1.0, 3.0])


@pytest.mark.parametrize(
    "other",
    [
        records([1.0, 2.0]),
        records([1.0, 2.0, 3.0], seed=9),
        records([1.0, 2.0, 3.0], start=[9.0]),
        records([1.0, 2.0, 3.0], goal=[9.0]),
    ],
    ids=["length", "seed", "start", "goal"],
)
def test_paired_difference_refuses_unmatched_episodes(other):
    with pytest.raises(ValueError, match="not start-matched.*same --seed"):
        paired_difference(records([1.0, 2.0, 3.0]), other)


def test_rank_correlation_sees_order_only():
    x = np.random.default_rng(0).normal(size=50)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    with pytest.raises(ValueError, match="one length"):
        rank_correlation([1, 2], [1, 2, 3])
