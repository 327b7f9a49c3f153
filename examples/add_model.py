"""Add a model: a frozen config and a Model, registered under one name.

It inherits the training loop, checkpoints, exact resume and the command line's flags. This one
predicts how the next observation differs from this one, as a Gaussian's mean.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from forethought.config import ModelConfig, TrainConfig
from forethought.data.normalizers import Normalizer
from forethought.data.views import TransitionView
from forethought.datasets.maze import build_maze
from forethought.models.base import Model
from forethought.nn.mlp import mlp
from forethought.registry import models
from forethought.training import train


@models.register("example-dynamics")
@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(ModelConfig):
    width: int = 64

    def view(self, dataset):
        return TransitionView(dataset)

    def build(self, spaces):
        return Dynamics(self, spaces)


class Dynamics(Model):
    def __init__(self, config, spaces):
        super().__init__(spaces)
        self.normalizer = Normalizer(spaces.observation_dim, "gaussian")
        sizes = [spaces.observation_dim + spaces.action_dim, config.width, spaces.observation_dim]
        self.net = mlp(sizes)

    def fit_statistics(self, dataset):
        self.normalizer.fit(dataset.observations)

    def loss(self, batch, generator=None):
        z = self.normalizer.normalize(batch.observation)
        z_next = self.normalizer.normalize(batch.next_observation)
        predicted = z + self.net(torch.cat([z, batch.action], dim=-1))
        loss = (predicted - z_next).square().mean()
        return loss, {"mse": loss.detach()}


if __name__ == "__main__":
    dataset = build_maze("umaze", seed=0, n_steps=5_000)
    config = DynamicsConfig()
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    with tempfile.TemporaryDirectory() as out:
        train(model, config.view(dataset), TrainConfig(steps=300, batch_size=256), Path(out))
