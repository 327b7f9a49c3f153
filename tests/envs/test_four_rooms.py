"""Four rooms: walls stop, doors let through, the agent arrives, data are its episodes."""

import gymnasium
import numpy as np
import pytest

import forethought.envs  # noqa: F401
from forethought.datasets.four_rooms import build_four_rooms, walk
from forethought.envs.four_rooms import (
    DOOR,
    DOOR_HALF_WIDTH,
    GOAL_RADIUS,
    STEP,
    advance,
    controller_actions,
    draw_pairs,
    has_arrived,
    in_wall,
)


def test_walls_stop_only_the_coordinate_that_meets_them():
    start = np.array([[-0.05, 0.2], [-0.05, 0.5], [0.2, -0.05], [0.97, 0.5], [0.0, 0.58]])
    reached = advance(start, np.ones((5, 2)))
    expected = [
        [-0.05, 0.2 + STEP],
        [-0.05 + STEP, 0.5 + STEP],
        [0.2 + STEP, -0.05],
        [1.0, 0.5 + STEP],
        [STEP, 0.58 + STEP],  # out of the doorway first, so the wall beside it is passed
    ]
    np.testing.assert_allclose(reached, expected)
    held = advance(np.array([[0.0, 0.58]]), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(held, [[0.0, 0.58]])


def test_nobody_gets_into_a_wall_and_sides_change_only_at_doors():
    noise = np.random.default_rng(0)
    positions, _ = draw_pairs(20_000, noise)
    changed = 0
    for _ in range(20):
        reached = advance(positions, noise.uniform(-1, 1, positions.shape))
        assert not in_wall(reached).any()
        for axis in (0, 1):
            crossed = (positions[:, axis] >= 0) != (reached[:, axis] >= 0)
            beside = np.abs(np.abs(positions[crossed, 1 - axis]) - DOOR)
            assert (beside <= DOOR_HALF_WIDTH + STEP).all()
            changed += int(crossed.sum())
        positions = reached
    assert changed > 500


def test_the_agent_reaches_every_goal():
    positions, goals = draw_pairs(5_000, np.random.default_rng(1))
    arrived = np.zeros(len(goals), dtype=bool)
    for _ in range(60):
        actions = controller_actions(positions, goals)
        assert np.abs(actions).max() <= 1 + 1e-12
        positions = np.where(arrived[:, None], positions, advance(positions, actions))
        arrived |= has_arrived(positions, goals)
    assert arrived.all()


def test_environment_ends_at_the_goal():
    env = gymnasium.make("forethought/four-rooms-v0")
    observation, _ = env.reset(seed=3, options={"start": [0.5, 0.1], "goal": [0.5, -0.1]})
    goal = env.get_wrapper_attr("goal_observation")
    np.testing.assert_allclose([observation, goal], [[0.5, 0.1], [0.5, -0.1]], atol=1e-7)
    first = env.step(np.array([0.0, -1.0], np.float32))
    assert first[1:3] == (0.0, False)
    *_, last = (env.step(np.array([0.0, -1.0], np.float32)) for _ in range(2))
    assert last[1] == 1.0 and last[2] and last[4] == {"success": True}
    with pytest.raises(ValueError, match="within"):
        env.reset(options={"goal": [2.0, 0.5]})
    with pytest.raises(ValueError, match="inside a wall"):
        env.reset(options={"goal": [0.9, 0.0]})


def test_episodes_end_within_reach_of_their_goals():
    dataset = build_four_rooms(seed=0, n_steps=3_000)
    assert 3_000 <= dataset.n_steps < 3_100 and dataset.terminated.mean() > 0.95
    for episode in walk(50, np.random.default_rng(0)):
        if episode.terminated:
            gaps = np.linalg.norm(episode.observations - episode.goal, axis=1)
            assert gaps[-1] <= GOAL_RADIUS + 1e-6 and (gaps[:-1] > GOAL_RADIUS - 1e-6).all()
            assert episode.rewards.sum() == 1
