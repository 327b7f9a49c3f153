"""Figure 4.6: rows from equal starts, the scripted agent arrives, missing parts are coped with."""

from forethought.studies.base import StudySettings
from forethought.studies.figure_4_6 import controller, figure_4_6, markdown, plot


def test_the_agent_of_the_data_reaches_all_and_is_drawn():
    part = controller(StudySettings(episodes=20))
    assert part["success_rate"] == 1.0 and len(part["paths"]) == 20
    assert part["paths"][0]["path"][-1] != part["paths"][0]["path"][0]
    text = markdown({"controller": part})
    assert "| the agent of the data, no noise | 100.0% [83.9%, 100.0%] | 20 |" in text
    assert list(plot({"controller": part})) == ["paths"] and plot({}) == {} and markdown({})
    names = [part.name for part in figure_4_6().parts]
    assert names == ["planner", "no-search", "controller"]
