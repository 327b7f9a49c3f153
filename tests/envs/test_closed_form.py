"""The closed-form environments step as Gymnasium's own do, alone or in a batch."""

import gymnasium
import numpy as np
import pytest

import forethought.envs  # noqa: F401  registers the environments
from forethought.envs.acrobot import AcrobotEnv
from forethought.envs.mountain_car import MountainCarEnv
from forethought.envs.pendulum import PendulumEnv

ENVS = {"pendulum": PendulumEnv, "acrobot": AcrobotEnv, "mountain-car": MountainCarEnv}
each = pytest.mark.parametrize("name", list(ENVS))


def states_of_a_walk(env, n=300, seed=0):
    """States, actions and what follows, from a random walk."""
    rng = np.random.default_rng(seed)
    states = env.draw_states(1, rng)
    rows = []
    for _ in range(n):
        action = rng.uniform(-1.5, 1.5, (1, 1)) * env.action_space.high
        reached, reward = env.step_batch(states, action)
        rows.append((states[0], action[0], reached[0], reward[0]))
        states = reached
    return [np.stack(column) for column in zip(*rows, strict=True)]


def test_pendulum_steps_as_gymnasium_s():
    env, other = PendulumEnv(), gymnasium.make("Pendulum-v1").unwrapped
    other.reset(seed=0)
    for state, action, reached, reward in zip(*states_of_a_walk(env), strict=True):
        other.state = state
        _, theirs, *_ = other.step(action)
        np.testing.assert_allclose(reached, other.state, rtol=1e-12, atol=1e-12)
        assert reward == pytest.approx(float(theirs), abs=1e-12)


def test_acrobot_steps_as_gymnasium_s():
    """At its three torques; the reward is the tip's height, which Gymnasium's end test uses."""
    env, other = AcrobotEnv(), gymnasium.make("Acrobot-v1").unwrapped
    other.reset(seed=0)
    rng, states = np.random.default_rng(1), env.draw_states(1, np.random.default_rng(0))
    for _ in range(300):
        choice = int(rng.integers(3))
        other.state = states[0].copy()
        _, _, terminated, *_ = other.step(choice)
        states, reward = env.step_batch(states, np.array([[choice - 1.0]]))
        np.testing.assert_allclose(states[0], other.state, rtol=1e-9, atol=1e-9)
        assert terminated == (reward[0] > 1)


def test_mountain_car_steps_as_gymnasium_s():
    env, other = MountainCarEnv(), gymnasium.make("MountainCarContinuous-v0").unwrapped
    other.reset(seed=0)
    for state, action, reached, reward in zip(*states_of_a_walk(env), strict=True):
        other.state = state
        other.step(action)
        np.testing.assert_allclose(reached, other.state, atol=1e-6)  # theirs is float32
        assert reward == reached[0]


def test_mountain_car_stops_at_the_left_wall():
    reached, _ = MountainCarEnv().step_batch(np.array([[-1.19, -0.05]]), [[-1.0]])
    np.testing.assert_array_equal(reached, [[-1.2, 0.0]])


@each
def test_a_batch_is_its_rows_and_states_come_back_from_observations(name):
    env = ENVS[name]()
    states, actions, reached, rewards = states_of_a_walk(env)
    batch, batch_rewards = env.step_batch(states, actions)
    np.testing.assert_allclose(batch, reached, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(batch_rewards, rewards, rtol=1e-12, atol=1e-12)
    seen = env.observe(reached)
    np.testing.assert_allclose(env.observe(env.states_of(seen)), seen, atol=1e-9)


@each
def test_registered_environment_is_deterministic_and_truncates(name):
    env = gymnasium.make(f"forethought/{name}-v0", disable_env_checker=True)
    totals = []
    for _ in range(2):
        env.reset(seed=3)
        env.action_space.seed(0)
        total, steps, truncated = 0.0, 0, False
        while not truncated:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, steps = total + reward, steps + 1
            assert not terminated
        totals.append(total)
    assert totals[0] == totals[1]
    assert steps == {"pendulum": 200, "acrobot": 500, "mountain-car": 999}[name]


@each
def test_arrival_rewards_are_functions_of_the_observation(name):
    """What a model that predicts observations is given is what the environment paid."""
    env = PendulumEnv(reward="arrival") if name == "pendulum" else ENVS[name]()
    _, _, reached, rewards = states_of_a_walk(env)
    np.testing.assert_allclose(env.arrival_rewards(env.observe(reached)), rewards, atol=1e-9)


def test_states_can_be_set_and_nonsense_is_refused():
    env = PendulumEnv()
    env.reset(seed=0, options={"state": [0.1, -2.0]})
    np.testing.assert_array_equal(env.get_state(), [0.1, -2.0])
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        env.set_state([np.nan, 0.0])
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"theta": 1.0})
    with pytest.raises(ValueError, match="'gymnasium' or 'arrival'"):
        PendulumEnv(reward="shaped")
    with pytest.raises(ValueError, match="call reset first"):
        PendulumEnv().step(np.zeros(1))


@pytest.mark.parametrize(
    ("name", "theirs", "dim", "reference"),
    [
        ("hopper", "Hopper-v5", 11, (-20.272305, 3234.3)),
        ("walker2d", "Walker2d-v5", 17, (1.629008, 4592.3)),
        ("halfcheetah", "HalfCheetah-v5", 17, (-280.178953, 12135.0)),
        ("reacher", "Reacher-v5", 10, None),
    ],
)
def test_mujoco_tasks_are_gymnasium_s(name, theirs, dim, reference):
    ours, other = gymnasium.make(f"forethought/{name}-v0"), gymnasium.make(theirs)
    assert ours.spec.kwargs["reference_returns"] == reference
    assert ours.spec.max_episode_steps == other.spec.max_episode_steps
    first, _ = ours.reset(seed=1)
    assert first.shape == (dim,)
    np.testing.assert_array_equal(first, other.reset(seed=1)[0])
    for seed in range(20):
        action = np.random.default_rng(seed).uniform(-1, 1, ours.action_space.shape)
        for mine, their in zip(ours.step(action)[:4], other.step(action)[:4], strict=True):
            np.testing.assert_array_equal(mine, their)
