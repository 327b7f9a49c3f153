"""The constraints study at tiny settings: matched cases, the filter, tables and figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forethought.envs.maze_layout import LAYOUTS
from forethought.studies import constraints as study
from forethought.studies.base import StudySettings

PRETRAINED = Path(__file__).parents[2] / "pretrained"
SETTINGS = StudySettings(episodes=2, seed=0, pretrained=PRETRAINED)


@pytest.mark.parametrize("maze", list(LAYOUTS))
def test_cases_repeat_and_leave_start_and_goal_free(maze):
    cases = study.draw_cases(LAYOUTS[maze], "gap", 20, 3)
    assert cases == study.draw_cases(LAYOUTS[maze], "gap", 20, 3)
    for case in cases:
        term = study.obstacle(case, "gap")
        assert term.depth is not None
        ends = torch.tensor([[*case[name], 0.0, 0.0] for name in ("start", "goal")])
        assert float(term.depth(ends).max()) < -0.1


def test_share_is_wilsons_interval():
    # closed form at 0 of n: from 0 to z^2 / (n + z^2)
    found = study.share(0, 50)["interval"]
    assert found[0] == 0 and found[1] == pytest.approx(1.96**2 / (50 + 1.96**2), abs=1e-4)


def test_the_filter_keeps_paths_out_that_enter_without_it():
    plain = study.run_row(SETTINGS, kind="closed", row="plain")
    kept = study.run_row(SETTINGS, kind="closed", row="plain + filter")
    assert [e["case"] for e in plain["episodes"]] == [e["case"] for e in kept["episodes"]]
    assert plain["keeps_out"]["hits"] < 2
    assert kept["keeps_out"]["hits"] == 2
    parts = {"closed/plain": plain, "closed/plain + filter": kept}
    assert set(study.plot(parts)) == {"closed"}
    assert "| closed | plain + filter | 100.0%" in study.markdown(parts)


def test_hard_plans_of_every_maze_have_no_violation():
    plans = study.hard_plans(replace(SETTINGS, episodes=3))
    assert plans["plans_with_violation"] == 0
    assert plans["by_maze"] == dict.fromkeys(LAYOUTS, 1)
    assert study.plot({"plans": plans}) == {}
    assert "3 plans" in study.markdown({"plans": plans})
