"""Cost of beam search: the bound counts what a plan appends; sweeps vary one factor and draw."""

from dataclasses import replace

import pytest

from forethought.studies import beam_cost
from forethought.studies.base import StudySettings
from forethought.studies.beam_cost import Search, make_planner, model_of, operations, plan_once

SMALL = Search(observation_dim=3, action_dim=1, beam=4, horizon=3, context=2)


@pytest.mark.parametrize("kind", ["flat", "factored"])
def test_the_bound_grows_as_its_terms_do(kind):
    assert operations(replace(SMALL, beam=8), kind) == 2 * operations(SMALL, kind)
    wide, wider = (operations(replace(SMALL, observation_dim=n), kind) for n in (100, 200))
    flat = kind == "flat"  # attention makes the flat model's cost grow faster than its tokens
    assert (wider > 2.05 * wide) if flat else (wider < 2.05 * wide)


def test_sweeps_measure_drawn_and_tabled(monkeypatch):
    monkeypatch.setattr(beam_cost, "Search", lambda: SMALL)
    monkeypatch.setattr(beam_cost, "FACTORS", {"beam": ("beam", "width of the beam", (1, 2, 4, 8))})
    monkeypatch.setattr("forethought.studies.plan_cost.SECONDS", 0.0)
    parts = {
        f"{kind}-beam": beam_cost.sweep(StudySettings(), kind=kind, factor="beam")
        for kind in ("flat", "factored")
    }
    for rows in parts.values():
        assert [row["x"] for row in rows] == [1, 2, 4, 8]
        assert all(0 < row["bound_ms"] < row["ms"] and row["megabytes"] > 0 for row in rows)
    assert "| flat | width of the beam | 8 |" in beam_cost.markdown(parts)
    assert set(beam_cost.plot(parts)) == {"growth"}
    assert beam_cost.plot({}) == {} and beam_cost.markdown({}) == ""
    assert len(beam_cost.beam_cost().parts) == 2


def test_a_planner_plans_with_and_without_its_cache():
    for cache in (True, False):
        plan_once(make_planner(SMALL, model_of(SMALL, "flat"), cache=cache), SMALL, 0)
