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
)


def test_walls_stop_only_the_coordinate_they_cross():
    start = np.array([[-0.02, 0.2], [-0.02, 0.5], [0.2, -0.02], [0.97, 0.5]])
    reached = advance(start, np.ones((4, 2)))
    np.testing.assert_allclose(
        reached,
        [[-0.02, 0.2 + STEP], [-0.02 + STEP, 0.5 + STEP], [0.2 + STEP, -0.02], [1.0, 0.5 + STEP]],
    )


def test_a_wall_is_crossed_only_through_its_doors():
    noise = np.random.default_rng(0)
    start = noise.uniform(-1, 1, (50_000, 2))
    reached = advance(start, noise.uniform(-1, 1, start.shape))
    for axis in (0, 1):
        crossed = (start[:, axis] >= 0) != (reached[:, axis] >= 0)
        assert crossed.sum() > 50
        beside = np.abs(np.abs(start[crossed, 1 - axis]) - DOOR)
        assert beside.max() <= DOOR_HALF_WIDTH + STEP  # where it crossed is within a step
    mirrored = advance(-start, -(reached - start) / STEP)
    inside = np.all(np.abs(start) > 1e-9, axis=1)
    np.testing.assert_allclose(mirrored[inside], -advance(start, (reached - start) / STEP)[inside])


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
        env.reset(options={"goal": [2.0, 0.0]})


def test_episodes_end_within_reach_of_their_goals():
    dataset = build_four_rooms(seed=0, n_steps=3_000)
    assert 3_000 <= dataset.n_steps < 3_100 and dataset.terminated.mean() > 0.95
    for episode in walk(50, np.random.default_rng(0)):
        if episode.terminated:
            gaps = np.linalg.norm(episode.observations - episode.goal, axis=1)
            assert gaps[-1] <= GOAL_RADIUS + 1e-6 and (gaps[:-1] > GOAL_RADIUS - 1e-6).all()
            assert episode.rewards.sum() == 1
