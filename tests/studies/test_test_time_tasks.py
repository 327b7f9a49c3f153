"""The study of executed tasks: matched cases, measures on made paths, tables and pictures."""

from pathlib import Path

import numpy as np
import pytest

from forethought.envs.maze_layout import LAYOUTS
from forethought.registry import studies
from forethought.studies import test_time_tasks as study
from forethought.studies.base import StudySettings

PRETRAINED = Path(__file__).parents[2] / "pretrained"
SETTINGS = StudySettings(episodes=2, seed=0, pretrained=PRETRAINED)
CASE = {"waypoints": [[1.0, 1.0], [3.0, 1.0]], "times": [2, 4]}


def path(*places: tuple[float, float], speed: float = 0.0) -> np.ndarray:
    return np.array([[row, column, 0.0, speed] for row, column in places])


def test_places_count_only_in_their_order():
    there, back = path((1, 1), (2, 1), (3, 1)), path((3, 1), (2, 1), (1, 1))
    assert study.visits(there, CASE) == {"visited": True}
    assert study.visits(back, CASE) == {"visited": False}
    assert study.visits(path((1, 1), (2.4, 1)), CASE) == {"visited": False}


def test_times_and_speeds_are_measured_on_the_path():
    early = path((0, 1), (1, 1), (1, 1), (2, 1), (3, 1))
    assert study.timed_visits(early, CASE) == {"on_time": True, "off": 0.0}
    late = path((0, 1), (0, 1), (0, 1), (1, 1), (1, 1))
    assert study.timed_visits(late, CASE) == {"on_time": False, "off": pytest.approx(1.5)}
    fast = study.speeding(path((1, 1), (1, 1), speed=2 * study.SPEED), CASE)
    assert fast == {"never_above": False, "above": 1.0, "most": 2 * study.SPEED}
    middle, edge = path((1, 1), (1, 2)), path((1.3, 1.0), (1.3, 2.0))
    assert study.centeredness(middle, CASE) == {"reward": 0.0, "across": 0.0}
    assert study.centeredness(edge, CASE)["reward"] == pytest.approx(-0.09)


def test_cases_repeat_and_their_waypoints_lie_off_the_way():
    layout = LAYOUTS["large"]
    cases = study.draw_tasks(layout, 5, 3)
    assert cases == study.draw_tasks(layout, 5, 3)
    for case in cases:
        cells = [study._cell(point) for point in (case["start"], case["goal"])]
        direct = layout.shortest_path(cells[0], cells[1])
        assert all(study._cell(place) not in direct for place in case["waypoints"])
        assert case["times"][0] < case["times"][1] < study.MOST_STEPS


def test_a_speed_limit_slows_the_execution_and_is_told():
    parts = {
        f"speed/{row}": study._row(SETTINGS, name="speed", row=row) for row in ("without", "with")
    }
    free, limited = (part["measured"] for part in parts.values())
    assert limited["above"]["mean"] < 0.5 * free["above"]["mean"]
    assert limited["steps"]["mean"] > free["steps"]["mean"]
    whole = studies["test-time-tasks"]()
    assert set(parts) <= {part.name for part in whole.parts}
    text = whole.markdown(parts)
    assert "**speed** (track_observations, 2 episodes a row)" in text
    assert "| given | " in text
    assert set(whole.plot(parts)) == {"paths"}
