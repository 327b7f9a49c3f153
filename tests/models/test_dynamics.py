"""The ensemble of one-step models: a linear-Gaussian system, ends of episodes, dealing of rows."""

import numpy as np
import pytest
import torch

from forethought.config import TrainConfig
from forethought.data.replay import ReplayBuffer, Steps
from forethought.models.dynamics import DynamicsConfig
from forethought.training import TrainingRun
from forethought.types import Spaces

SPACES = Spaces(observation_dim=2, action_dim=1)
MATRIX = np.array([[0.9, 0.2], [-0.1, 0.8]], np.float32)
PUSH, NOISE = np.array([[0.5], [1.0]], np.float32), np.array([0.1, 0.4], np.float32)


def steps_of(n: int, *, threshold: float = np.inf) -> Steps:
    """s' = M s + P a + noise in other units (10 and 0.1), r = s'_0 - 2 a, an end beyond s'_0."""
    rng = np.random.default_rng(0)
    units = np.array([10.0, 0.1], np.float32)
    s, a = rng.normal(size=(n, 2)), rng.uniform(-1, 1, (n, 1))
    reached = s @ MATRIX.T + a @ PUSH.T + NOISE * rng.normal(size=(n, 2))
    reward = reached[:, 0] - 2 * a[:, 0]
    ended = reached[:, 0] > threshold
    arrays = (units * s, a, reward, units * reached)
    observation, action, reward, reached = (each.astype(np.float32) for each in arrays)
    return Steps(
        observation=observation,
        action=action,
        reward=reward,
        next_observation=reached,
        terminated=ended,
        truncated=np.zeros(n, bool),
    )


def trained(config: DynamicsConfig, steps: Steps, updates: int):
    torch.manual_seed(0)
    buffer = ReplayBuffer(len(steps), 2, 1)
    buffer.add(steps)
    model = config.build(SPACES)
    model.action_normalizer.fit(np.array([[-1.0], [1.0]], np.float32))
    model.fit_steps(buffer[np.arange(len(steps))])
    train = TrainConfig(
        steps=updates, batch_size=256, learning_rate=3e-3, warmup_steps=0, ema_decay=0.0
    )
    run = TrainingRun(model, train)
    for _ in range(updates):
        run.advance(model, buffer)
    return model.eval()


def test_a_linear_gaussian_system_is_recovered():
    model = trained(DynamicsConfig(width=32, layers=1, members=3), steps_of(4_000), 500)
    at = torch.tensor([[5.0, -0.05], [-8.0, 0.1]]).repeat_interleave(6_000, dim=0)
    action = torch.tensor([[0.5], [-0.5]]).repeat_interleave(6_000, dim=0)
    reached, reward, ended = model.advance(at, action, torch.Generator().manual_seed(0))
    units = torch.tensor([10.0, 0.1])
    truth = (at / units) @ torch.from_numpy(MATRIX).T + action @ torch.from_numpy(PUSH).T
    error = (reached / units - truth).unflatten(0, (2, 6_000))
    noise = torch.from_numpy(NOISE)
    torch.testing.assert_close(error.mean(dim=1) / noise, torch.zeros(2, 2), rtol=0, atol=0.2)
    torch.testing.assert_close(error.std(dim=1), noise.expand(2, 2), rtol=0.15, atol=0)
    off = (reward - (truth[:, 0] - 2 * action[:, 0])).unflatten(0, (2, 6_000))
    torch.testing.assert_close(off.mean(dim=1), torch.zeros(2), rtol=0, atol=0.05)
    assert not bool(ended.any())


def test_ends_are_learned_where_they_are_asked_for():
    steps = steps_of(4_000, threshold=1.0)
    model = trained(
        DynamicsConfig(width=32, layers=1, members=2, learn_termination=True), steps, 300
    )
    fresh = steps[slice(0, 1_000)]
    observation, action = torch.from_numpy(fresh.observation), torch.from_numpy(fresh.action)
    mean = (fresh.observation / [10.0, 0.1]) @ MATRIX.T[:, 0] + 0.5 * fresh.action[:, 0]
    clear = torch.from_numpy(np.abs(mean - 1.0) > 0.3)  # three standard deviations
    _, _, ended = model.advance(observation, action, torch.Generator().manual_seed(0))
    wrong = (ended != torch.from_numpy(mean > 1.0))[clear].float().mean()
    assert float(wrong) < 0.03


def test_rows_are_dealt_in_turn_and_keep_their_member():
    torch.manual_seed(0)
    model = DynamicsConfig(width=8, layers=1, members=3).build(SPACES)
    observation, action = torch.randn(7, 2), torch.randn(7, 1)
    mean, *_ = model._predict(observation[:6], action[:6])
    alone, *_ = model._predict(observation[[4, 4, 4]], action[[4, 4, 4]])
    torch.testing.assert_close(mean[4], alone[1])  # 4 modulo 3
    for rows in (1, 2, 7):
        reached, reward, ended = model.advance(observation[:rows], action[:rows])
        assert reached.shape == (rows, 2) and reward.shape == ended.shape == (rows,)


def test_batches_smaller_than_the_ensemble_and_discrete_actions_are_refused():
    steps = steps_of(4)
    buffer = ReplayBuffer(4, 2, 1)
    buffer.add(steps)
    model = DynamicsConfig(width=8, members=5).build(SPACES)
    with pytest.raises(ValueError, match="4 steps leaves some of the 5 members"):
        model.loss(buffer[np.arange(4)])
    with pytest.raises(ValueError, match="continuous actions"):
        DynamicsConfig().build(Spaces(observation_dim=2, action_dim=1, n_actions=3))
    with pytest.raises(ValueError, match="model.members is 0"):
        DynamicsConfig(members=0)


def test_next_gaussian_is_what_step_draws():
    model = trained(DynamicsConfig(members=4, width=8, layers=1), steps_of(60), 1)
    here, action = torch.randn(6, 2) * torch.tensor([10.0, 0.1]), torch.rand(6, 1)
    drawn = model.step(here, action, torch.Generator().manual_seed(3))
    mean, deviation = model.next_gaussian(here, action)
    # two rows more, so that all members have as many, and the reward's column
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))[:6, :2]
    torch.testing.assert_close(mean + deviation * noise, drawn)
