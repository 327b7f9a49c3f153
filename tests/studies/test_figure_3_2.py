"""Figure 3.2 from closed forms: the thesis's number, and drawing from parts alone."""

import numpy as np

from forethought.studies.base import StudySettings
from forethought.studies.figure_3_2 import figure_3_2


def test_parts_hold_the_number_of_the_thesis_and_are_drawn():
    study = figure_3_2()
    parts = {part.name: part.compute(StudySettings()) for part in study.parts}
    row = next(row for row in parts["steps"]["rows"] if row["target"] == 0.99)
    assert row["steps"][0] == 299 and row["steps"][-1] == 1
    assert all(a >= b for a, b in zip(row["steps"], row["steps"][1:], strict=False))
    times = parts["times"]
    t = np.arange(60)
    np.testing.assert_allclose(times["weighted"], 0.05 * 0.95**t, atol=1e-7)
    np.testing.assert_allclose(times["steps"][0], 0.2 * 0.8**t, atol=1e-6)
    np.testing.assert_allclose(times["steps"][1], 0.04 * t * 0.8 ** np.maximum(t - 1, 0), atol=1e-6)
    assert "| 0.99 | 299 |" in study.markdown(parts)
    assert set(study.plot(parts)) == {"horizons"}
    assert study.markdown({}) == ""
