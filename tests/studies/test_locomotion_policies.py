"""Curves of the SAC runs: read as far as they have come, the best snapshot found."""

import json

import pytest

from forethought.studies.base import StudySettings
from forethought.studies.locomotion_policies import best_row, markdown, plot, read_curve


def write_run(folder, returns):
    rows = [
        {
            "env_steps": 1_000 * (k + 1),
            "updates": 500 * k,
            "seconds": 60.0 * k,
            "return": value,
            "score": {"mean": value / 10, "interval": [value / 10 - 1, value / 10 + 1]},
            **({"snapshot": f"snapshots/{k}"} if k % 2 else {}),
        }
        for k, value in enumerate(returns)
    ]
    folder.mkdir(parents=True)
    content = {"recipe": "sac/hopper", "protocol": {"episodes": 10}, "rows": rows}
    (folder / "curve.json").write_text(json.dumps(content))


def test_the_best_is_one_that_was_kept(tmp_path):
    write_run(tmp_path / "hopper" / "seed0", [10.0, 300.0, 900.0, 700.0, 20.0])
    part = read_curve(StudySettings(), task="hopper", runs=tmp_path)
    assert best_row(part)["return"] == 700.0 and part["planned_updates"] == 500_000
    text = markdown({"hopper": part})
    assert "| hopper | 5,000 | 2,000 (500,000) | 2.0 | 700 | 70.0 [69.0, 71.0] | 4,000 |" in text
    assert list(plot({"hopper": part})) == ["curves"] and plot({}) == {}


def test_a_missing_run_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="TASKS=walker2d SEED=0 sh benchmarks/run_sac.sh"):
        read_curve(StudySettings(), task="walker2d", runs=tmp_path)
