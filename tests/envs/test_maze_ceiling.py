"""The bound that no policy passes."""

import math

import numpy as np
import pytest

from forethought.envs.maze import SPEED_LIMIT, TIME_STEP
from forethought.envs.maze_ceiling import fewest_steps
from forethought.envs.maze_layout import LAYOUTS, Layout

OPEN = Layout.parse("#######\n#OOOOO#\n#OOGOO#\n#OOOOO#\n#######")


@pytest.mark.parametrize("start", [(1.0, 1.0), (3.0, 5.0), (2.2, 4.7)])
def test_open_floor_is_crossed_in_chebyshev_length(start):
    goal = (1.0, 5.0) if start == (1.0, 1.0) else (1.0, 1.0)
    angles = np.linspace(0, 2 * np.pi, 10_000)
    disc = np.array(goal)[:, None] + 0.5 * np.stack([np.cos(angles), np.sin(angles)])
    length = np.abs(disc - np.array(start)[:, None]).max(axis=0).min()
    exact = length / (SPEED_LIMIT * TIME_STEP)
    assert exact - 2 <= fewest_steps(OPEN, start, goal) <= math.ceil(exact) + 2


def test_inside_the_disc_one_step_is_enough():
    assert fewest_steps(OPEN, (2.0, 3.1), (2.0, 3.0)) == 1


def test_walls_are_walked_round():
    umaze = LAYOUTS["umaze"]
    through = fewest_steps(OPEN, (3.0, 1.0), (1.0, 1.0))
    assert fewest_steps(umaze, (3.0, 1.0), (1.0, 1.0)) > 2 * through


def test_a_goal_without_a_way_is_refused():
    parted = Layout.parse("#####\n#O#G#\n#####")
    with pytest.raises(ValueError, match="no way leads"):
        fewest_steps(parted, (1.0, 1.0), (1.0, 3.0))
