"""MultiRoom: maps show what is there, the expert's ways are shortest and lead to the goal."""

import gymnasium
import numpy as np
import pytest

import forethought.envs  # noqa: F401
from forethought.datasets.multiroom import build_multiroom
from forethought.envs.multiroom import (
    ACTIONS,
    DOOR,
    FLOOR,
    FORWARD,
    NOTHING,
    RIGHT,
    STEP_LIMIT,
    TOGGLE,
    WALL,
    MultiRoomEnv,
    shortest_actions,
)

pytest.importorskip("minigrid")


@pytest.mark.parametrize("seed", range(8))
def test_the_expert_reaches_the_goal_through_three_doors(seed):
    env = gymnasium.make("forethought/multiroom-v0", disable_env_checker=True)
    start, _ = env.reset(seed=seed)
    goal = env.get_wrapper_attr("goal_observation")
    cells = env.get_wrapper_attr("context")
    actions = shortest_actions(cells, start, goal)
    assert actions.count(TOGGLE) == 3 and len(actions) < STEP_LIMIT
    for index, action in enumerate(actions):
        observation, reward, terminated, _, info = env.step(action)
        assert terminated == info["success"] == (index == len(actions) - 1)
        assert cells[int(observation[1]), int(observation[0])] in (FLOOR, DOOR)
    np.testing.assert_array_equal(observation[:2], goal[:2])
    assert 0 < reward < 1


def test_a_map_shows_four_rooms_three_doors_and_neither_agent_nor_goal():
    env = MultiRoomEnv()
    maps = []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        cells = env.context
        assert (cells == DOOR).sum() == 3 and set(np.unique(cells)) == {FLOOR, WALL, DOOR, NOTHING}
        assert cells[int(observation[1]), int(observation[0])] == FLOOR
        assert cells[int(env.goal_observation[1]), int(env.goal_observation[0])] == FLOOR
        maps.append(cells.tobytes())
    assert len(set(maps)) == 20
    env.reset(seed=3)
    assert env.context.tobytes() == maps[3]


def test_shortest_ways_by_hand():
    cells = np.full((5, 6), WALL, dtype=np.uint8)
    cells[1:4, 1] = cells[1:4, 3] = FLOOR
    cells[2, 2] = DOOR  # between two corridors that run down
    way = shortest_actions(cells, np.array([1, 1, 1]), np.array([3, 3]))
    assert way == [FORWARD, 0, TOGGLE, FORWARD, FORWARD, RIGHT, FORWARD]
    assert shortest_actions(cells, np.array([1, 1, 1]), np.array([1, 1])) == []
    with pytest.raises(ValueError, match="there is no way from"):
        shortest_actions(cells, np.array([1, 1, 1]), np.array([4, 3]))


def test_data_have_a_map_each_and_end_where_they_are_said_to():
    data = build_multiroom(seed=0, n_steps=400)
    assert data.spaces.n_actions == ACTIONS and data.spaces.context_shape == (25, 25)
    assert len({episode.context.tobytes() for episode in data}) == len(data)
    reached = [episode for episode in data if episode.terminated]
    assert 0.7 < len(reached) / len(data)
    for episode in reached:
        assert len(
            shortest_actions(episode.context, episode.observations[0], episode.observations[-1])
        ) <= len(episode)
