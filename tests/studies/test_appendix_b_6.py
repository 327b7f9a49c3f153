"""Appendix B.6: the expert arrives on every map; rows are drawn, missing parts are coped with."""

import pytest

from forethought.envs.multiroom import MultiRoomEnv, shortest_actions
from forethought.studies.appendix_b_6 import appendix_b_6, expert, markdown, plot
from forethought.studies.base import StudySettings

pytest.importorskip("minigrid")


def test_the_expert_needs_as_many_steps_as_its_way_has():
    part = expert(StudySettings(episodes=10))
    assert part["success_rate"] == 1.0
    env = MultiRoomEnv()
    for shown, steps in zip(part["paths"], part["arrivals"], strict=False):
        assert len(shown["way"]) == steps + 1
    planner = part | {"method": "ours", "training_maps": 7, "on_training_maps": [2]}
    planner["arrivals"] = [steps + 2 for steps in part["arrivals"]]
    text = markdown({"expert": part, "planner": planner})
    assert "ours: 7 maps in the data, of which 1 of the 10 acted on; 2.00 steps more" in text
    assert list(plot({"planner": planner})) == ["ways"] and plot({}) == {} and markdown({})
    assert [each.name for each in appendix_b_6().parts] == ["planner", "no-search", "expert"]
    env.reset(seed=0)
    assert shortest_actions(env.context, env._observation(), env.goal_observation)
