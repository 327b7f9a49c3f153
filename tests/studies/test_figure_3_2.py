"""Figure 3.2 from closed forms: the thesis's number, and drawing from parts alone."""

from forethought.studies.base import StudySettings
from forethought.studies.figure_3_2 import figure_3_2


def test_parts_hold_the_number_of_the_thesis_and_are_drawn():
    study = figure_3_2()
    parts = {part.name: part.compute(StudySettings()) for part in study.parts}
    row = next(row for row in parts["steps"]["rows"] if row["target"] == 0.99)
    assert row["steps"][0] == 299 and row["steps"][-1] == 1
    assert all(a >= b for a, b in zip(row["steps"], row["steps"][1:], strict=False))
    assert "| 0.99 | 299 |" in study.markdown(parts)
    assert set(study.plot(parts)) == {"horizons"}
    assert study.markdown({}) == ""
