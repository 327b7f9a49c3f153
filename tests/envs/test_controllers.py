"""Laws of the scripted experts in mazes."""

import gymnasium
import numpy as np
import pytest
import torch

import forethought.envs  # noqa: F401  (registers the ids)
from forethought.envs.controllers import ShortestPathPolicy, WaypointController, shortest_path_plan
from forethought.envs.maze import LAYOUTS, MazeEnv

NAMES = list(LAYOUTS)


def run(policy, envs, n_steps):
    """Rewards (n_steps, n_envs) of plain environments side by side."""
    observations = np.stack([env.unwrapped.get_state() for env in envs]).astype(np.float32)
    goals = torch.tensor(np.stack([env.unwrapped.goal for env in envs]), dtype=torch.float32)
    policy.reset(len(envs))
    rewards = np.zeros((n_steps, len(envs)))
    for step in range(n_steps):
        actions = policy(torch.from_numpy(observations), goals)
        assert actions.shape == (len(envs), 2)
        assert actions.dtype == torch.float32
        for index, env in enumerate(envs):
            observations[index], rewards[step, index], *_ = env.step(actions[index].numpy())
    return rewards


@pytest.mark.parametrize("name", NAMES)
def test_shortest_path_policy_reaches_its_goals_and_stays(name):
    envs = [gymnasium.make(f"forethought/multi2d-{name}-v0") for _ in range(6)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    policy = ShortestPathPolicy(envs[0].unwrapped.layout)
    rewards = run(policy, envs, envs[0].spec.max_episode_steps)
    np.testing.assert_array_equal(rewards[-1], 1.0)
    # Once reached, the goal is not left again.
    np.testing.assert_array_equal(np.diff(rewards, axis=0).min(), 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_noisy_waypoint_controller_reaches_its_goals(name):
    layout = LAYOUTS[name]
    env = MazeEnv(name)
    observation, _ = env.reset(seed=0)
    generator = np.random.default_rng(0)
    controller = WaypointController(layout, generator=generator, action_noise=0.5)
    for cell in layout.free_cells()[::5]:
        controller.set_goal(observation[:2].tolist(), cell)
        for _ in range(1000):
            action = controller.act(*observation.tolist())
            assert max(map(abs, action)) <= 1
            if controller.arrived:
                break
            observation, *_ = env.step(action)
        assert np.linalg.norm(observation[:2] - cell) < 0.1


def test_waypoint_controller_is_the_stated_law_near_the_goal():
    controller = WaypointController(LAYOUTS["umaze"])
    controller.set_goal((3.0, 1.0), (3.05, 1.02))
    np.testing.assert_allclose(controller.act(3.0, 1.0, 0.1, -0.2), (0.4, 0.4))
    assert controller.arrived
    controller.set_goal((3.0, 1.0), (3.0, 1.2))
    np.testing.assert_allclose(controller.act(3.0, 1.0, 0.0, 0.0), (0.0, 1.0))
    assert not controller.arrived


def test_action_noise_has_the_stated_deviation():
    generator, n_draws = np.random.default_rng(0), 4000
    controller = WaypointController(LAYOUTS["umaze"], generator=generator, action_noise=0.2)
    controller.set_goal((3.0, 1.0), (3.0, 1.0))
    actions = np.array([controller.act(3.0, 1.0, 0.0, 0.0) for _ in range(n_draws)])
    np.testing.assert_allclose(actions.std(), 0.2, atol=4 * 0.2 / np.sqrt(4 * n_draws))
    with pytest.raises(ValueError, match="generator"):
        WaypointController(LAYOUTS["umaze"], action_noise=0.2)


def test_rows_keep_their_own_paths_when_environments_drop_out():
    layout = LAYOUTS["umaze"]
    observations = torch.tensor([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]])
    goals = torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 3.0]])
    policy = ShortestPathPolicy(layout)
    policy.reset(3)
    actions = policy(observations, goals)
    torch.testing.assert_close(policy(observations[1:], goals[1:], rows=[1, 2]), actions[1:])
    # Without a goal it is the layout's evaluation target.
    policy.reset(3)
    torch.testing.assert_close(policy(observations)[1], actions[1])


@pytest.mark.parametrize("name", NAMES)
def test_plan_runs_at_its_speed_through_free_cells_to_the_goal(name):
    layout = LAYOUTS[name]
    start, goal = layout.free_cells()[0], np.array(layout.target) + [0.05, -0.03]
    start = layout.free_cells()[-1] if start == layout.target else start
    plan = shortest_path_plan(layout, (*start, 0.0, 0.0), goal, speed=2.0)
    assert plan.dtype == np.float32
    np.testing.assert_allclose(plan[0, :2], start)
    np.testing.assert_allclose(plan[-1], [*goal, 0.0, 0.0], atol=1e-6)
    assert layout.is_free(plan[:, :2]).all()
    np.testing.assert_allclose(np.linalg.norm(plan[:-1, 2:], axis=1), 2.0, rtol=1e-5)
    moves = np.linalg.norm(np.diff(plan[:, :2], axis=0), axis=1)
    assert moves.max() <= 0.02 + 1e-5
    # Away from corners, the move to the next row is the velocity times one step.
    straight = np.all(np.isclose(plan[1:-1, 2:], plan[:-2, 2:]), axis=1)
    np.testing.assert_allclose(
        np.diff(plan[:-1, :2], axis=0)[straight], 0.01 * plan[:-2, 2:][straight], atol=1e-5
    )


def test_plan_from_the_goal_is_a_single_row_and_bad_speeds_are_refused():
    layout = LAYOUTS["umaze"]
    np.testing.assert_allclose(
        shortest_path_plan(layout, (1, 1, 2, 2), (1, 1), 1.0), [[1, 1, 0, 0]]
    )
    for speed in (0.0, 9.0):
        with pytest.raises(ValueError, match="speed"):
            shortest_path_plan(layout, (1, 1, 0, 0), (1, 3), speed)
