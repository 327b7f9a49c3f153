"""Behavior cloning: the likeliest Gaussian policy of linear data in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.agents.bc import BCConfig
from forethought.agents.iql import IQLConfig
from forethought.config import TrainConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.training import TrainingRun

NOISE = 0.2


def noisy_line() -> EpisodeDataset:
    """Actions 0.5 x + noise of standard deviation ``NOISE``, but for two that mark the limits."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (4_001, 1)).astype(np.float32)
    actions = 0.5 * x[:-1] + NOISE * generator.standard_normal((4_000, 1)).astype(np.float32)
    actions = actions.clip(-1.5, 1.5)
    actions[0], actions[1] = -1.5, 1.5
    return EpisodeDataset.from_episodes([Episode(x, actions, np.zeros(4_000, np.float32), False)])


def test_policy_is_the_mean_and_spread_of_the_data():
    dataset, config = noisy_line(), BCConfig(width=32)
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    settings = TrainConfig(steps=800, batch_size=256, learning_rate=8e-3, ema_decay=0.0)
    run, view = TrainingRun(model, replace(settings, warmup_steps=0)), config.view(dataset)
    for _ in range(settings.steps):
        run.advance(model, view)
    x = torch.linspace(-0.9, 0.9, 19)[:, None]
    torch.testing.assert_close(model.act(x), 0.5 * x, atol=0.06, rtol=0)
    spread = model.policy.log_std.exp() * model.action_normalizer.scale
    assert spread.item() == pytest.approx(NOISE, rel=0.1)


def test_equal_weights_make_iql_clone():
    """IQL's Eq. 7 at temperature 0 is the objective here, with the same policy."""
    dataset = noisy_line()
    clone, iql = BCConfig(width=16), IQLConfig(width=16, temperature=0.0)
    models = []
    for config in (clone, iql):
        model = config.build(dataset.spaces)
        model.fit_statistics(dataset)
        models.append(model)
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    batch = clone.view(dataset)[np.arange(64)]
    ours, theirs = (m.loss(batch)[1]["policy_loss"] for m in models)
    torch.testing.assert_close(ours, theirs)
