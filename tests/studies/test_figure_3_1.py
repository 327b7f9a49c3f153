"""Figure 3.1: the horizons are geometric and the draws have the closed form's mean."""

import numpy as np
import pytest

from forethought.studies.base import StudySettings
from forethought.studies.figure_3_1 import DISCOUNTS, LAST, figure_3_1, markdown, plot


def test_draws_have_the_mean_of_the_closed_form():
    study = figure_3_1()
    parts = {part.name: part.compute(StudySettings()) for part in study.parts}
    for at, part in zip(DISCOUNTS, parts.values(), strict=True):
        drawn = np.array(part["draws"])
        error = 5 * drawn.std(axis=0) / len(drawn) ** 0.5
        assert np.all(np.abs(drawn.mean(axis=0) - part["mean"]) < error)
        assert sum(part["horizon"]) == pytest.approx(1 - at**LAST, abs=1e-4)
    assert list(plot(parts)) == ["horizons"] and "closed form" in markdown(parts)
    assert plot({}) == {} and markdown({})
