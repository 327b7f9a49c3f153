"""Your own logs, a Trajectory Transformer learned from them, and plans for more reward.

A cart is driven to random places; the reward is how near it is to 1. The plans earn more than the
driver: beam search looks for actions whose predicted rewards, and rewards to go, add up to most.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from forethought.config import ControlConfig, Experiment, TrainConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.evaluation import make_policy
from forethought.models.factored import FactoredTransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.planners.beam_search import CutOffs, RewardSearch
from forethought.training import train_experiment


def drive(choose, generator, steps=60):
    """One episode of a cart: position and velocity, an acceleration, closeness to 1."""
    state, states, actions = generator.uniform([-1, -0.5], [1, 0.5]), [], []
    for step in range(steps):
        states.append(state.astype(np.float32))
        actions.append(np.clip(choose(states[-1], step), -1, 1).reshape(1))
        velocity = 0.9 * state[1] + 0.15 * actions[-1][0]
        state = np.array([state[0] + 0.3 * velocity, velocity])
    positions = np.array([*states, state])
    return Episode(positions, np.stack(actions), np.exp(-((positions[1:, 0] - 1) ** 2)))


def log(generator):
    """A shaky driver to three random places; in yours, read your files."""
    places, noise = generator.uniform(-2, 2, size=3), generator.normal(scale=0.7, size=60)
    return drive(lambda s, t: 2 * (places[t // 20] - s[0] - s[1]) + noise[t], generator)


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    dataset = EpisodeDataset.from_episodes([log(generator) for _ in range(200)], robot="cart")
    small = {"width": 48, "head_width": 48, "depth": 2, "n_bins": 40, "dropout": 0.0}
    model = FactoredTransformerConfig(context=2, horizon=6, **small)
    train = TrainConfig(steps=600, batch_size=64, learning_rate=3e-3, ema_decay=0.99)
    experiment = Experiment(name="cart", dataset="", env="", model=model, train=train)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_experiment(experiment, dataset, Path(folder))
    search = RewardSearch(expand=4, actions=CutOffs())
    config = BeamPlannerConfig(horizon=5, beam=16, context=2, reward=search)
    control = ControlConfig(controller="follow_actions", replan_every=1, goal_time="receding")
    policy, returns = make_policy(trained, config, control), []
    for seed in range(3):
        policy.reset(1, seeds=[seed])
        planned = drive(lambda seen, _: policy(torch.from_numpy(seen)[None])[0].numpy(), generator)
        returns.append(planned.rewards.sum())
    logged = np.mean([episode.rewards.sum() for episode in dataset])
    print(f"mean return of plans {np.mean(returns):.1f}, of the logs {logged:.1f}")
