"""Laws of the sparse reaching task: one reward, which ends the episode; one start; held actions."""

import gymnasium
import numpy as np
import pytest

import forethought.envs  # noqa: F401  (registers the ids)
from forethought.envs.maze import MazeEnv
from forethought.envs.maze_layout import LAYOUTS
from forethought.envs.maze_reach import MazeReachEnv, cell_distances, farthest_cell


def test_an_action_is_held_for_frame_skip_steps_of_the_maze():
    ours, plain = MazeReachEnv("medium", frame_skip=4), MazeEnv("medium")
    state = (1.0, 1.0, 0.3, -0.2)
    ours.reset(options={"start": state})
    plain.reset(options={"start": state})
    for action in ([1.0, 0.5], [-0.3, 1.0]):
        seen = ours.step(action)[0]
        expected = [plain.step(action)[0] for _ in range(4)][-1]
        np.testing.assert_array_equal(seen, expected)
    with pytest.raises(ValueError, match="frame_skip is 0"):
        MazeReachEnv("medium", frame_skip=0)


def test_the_goal_pays_once_and_ends_the_episode():
    env = MazeReachEnv("medium")
    goal = np.array(env.layout.target)
    env.reset(options={"start": goal - [0.9, 0.0]})
    steps = []
    while not steps or not steps[-1][2]:
        steps.append(env.step([1.0, 0.0]))
        assert len(steps) < 50, "the push leads into the goal"
    assert [reward for _, reward, *_ in steps] == [0.0] * (len(steps) - 1) + [1.0]
    assert np.linalg.norm(steps[-1][0][:2] - goal) <= 0.5
    assert steps[-1][4]["success"] and not steps[-1][3]


def test_every_episode_starts_in_the_farthest_cell():
    env = gymnasium.make("forethought/reach-medium-v0", disable_env_checker=True)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        assert np.abs(observation[:2] - 1.0).max() <= 0.1 and not info["success"]
    distances = cell_distances(LAYOUTS["medium"], LAYOUTS["medium"].target)
    assert farthest_cell(LAYOUTS["medium"]) == (1, 1) and distances[1, 1] == 10
    assert set(distances) == set(LAYOUTS["medium"].free_cells())
    for cell, moves in distances.items():
        path = LAYOUTS["medium"].shortest_path(cell, LAYOUTS["medium"].target)
        assert moves == len(path) - 1
    with pytest.raises(ValueError, match="start .* in a wall"):
        MazeReachEnv("medium", start=(0, 0))
