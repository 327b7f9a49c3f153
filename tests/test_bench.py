"""Laws of the bench: which rows it runs, and which of them nothing beats."""

from forethought.bench import pareto_front, settings_of
from forethought.config import ControlConfig
from forethought.models.base import SamplerConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.planners.reactive import ReactiveConfig

PLANNER = DiffusionPlannerConfig(sampler=SamplerConfig(steps=3))
CONTROL = ControlConfig(replan_every=20, goal_time="receding")


def rows(*pairs: tuple[float, float]) -> list[dict]:
    return [{"plan_ms": time, "score": {"mean": score}} for time, score in pairs]


def test_front_holds_what_nothing_beats_in_both():
    assert pareto_front(rows((5, 100), (3, 90), (4, 80), (9, 120), (7, 100))) == [1, 0, 3]


def test_of_equal_times_the_better_score_is_on_the_front_and_ties_count_once():
    assert pareto_front(rows((5, 100), (5, 110), (6, 110))) == [1]
    assert pareto_front([]) == []


def test_one_factor_changes_at_a_time_and_the_own_settings_come_first():
    settings = settings_of(PLANNER, CONTROL)
    assert settings[0].planner is PLANNER and settings[0].control is CONTROL
    for setting in settings[1:]:
        changed = {
            "steps": setting.planner.sampler.steps != 3,
            "candidates": setting.planner.candidates != 1 and not setting.planner.budget_ms,
            "replan_every": setting.control.replan_every != 20,
            "budget_ms": bool(setting.planner.budget_ms),
        }
        assert [name for name, differs in changed.items() if differs] == [setting.factor]
    names = {(setting.factor, setting.value) for setting in settings}
    assert len(names) == len(settings) and ("replan_every", 10) in names


def test_quick_is_a_part_of_the_whole_and_a_reactive_policy_has_one_row():
    whole = {(s.factor, s.value) for s in settings_of(PLANNER, CONTROL)}
    quick = {(s.factor, s.value) for s in settings_of(PLANNER, CONTROL, quick=True)}
    assert quick < whole
    assert len(settings_of(ReactiveConfig(), ControlConfig())) == 1


def test_all_levels_cannot_be_budgeted_and_planning_once_has_no_cadence():
    every_level = DiffusionPlannerConfig(sampler=SamplerConfig(steps=0))
    factors = {s.factor for s in settings_of(every_level, ControlConfig())}
    assert factors == {"as given", "steps", "candidates"}
