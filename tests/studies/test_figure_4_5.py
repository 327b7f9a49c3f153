"""Figure 4.5 from rows of Table 4.1: averages of complete rows only, their intervals."""

from pathlib import Path

import pytest

from forethought.checkpoint import write_result
from forethought.studies import figure_4_5
from forethought.studies.figure_4_5 import SETS


def row(mean: float, half: float) -> dict:
    return {"score": {"mean": mean, "interval": [mean - half, mean + half]}, "n": 15}


def test_averages_are_of_complete_rows_and_drawn_beside_the_thesis(tmp_path: Path):
    file = tmp_path / "table-4-1.json"
    with pytest.raises(FileNotFoundError, match="forethought study table-4-1"):
        figure_4_5.averages(file)
    parts = {f"tt-{name}": row(60.0 + 30 * i, 3.0 * (i + 1)) for i, name in enumerate(SETS)}
    parts[f"bc-{SETS[0]}"] = row(50.0, 1.0)
    write_result(file, {"kind": "study", "study": "table-4-1", "parts": parts, "provenance": {}})
    found = figure_4_5.averages(file)
    assert set(found["rows"]) == {"tt"}
    assert found["rows"]["tt"]["mean"] == 90.0
    assert found["rows"]["tt"]["half"] == pytest.approx((9 + 36 + 81) ** 0.5 / 3, abs=1e-3)
    assert set(figure_4_5.plot({"averages": found})) == {"averages"}
    text = figure_4_5.markdown({"averages": found})
    assert "| Trajectory Transformer | 90.0 ± 3.7 | 78.9 |" in text
    assert figure_4_5.plot({}) == {}
    assert figure_4_5.markdown({}) == ""


def test_a_table_without_complete_rows_is_refused(tmp_path: Path):
    file = tmp_path / "table-4-1.json"
    parts = {f"bc-{SETS[0]}": row(50.0, 1.0)}
    write_result(file, {"kind": "study", "study": "table-4-1", "parts": parts, "provenance": {}})
    with pytest.raises(ValueError, match="no method with rows on all"):
        figure_4_5.averages(file)
