"""Behavior cloning: the likeliest Gaussian policy given the data's actions,

    max over pi of  E_(s, a) [ log pi(a | s) ],

which is IQL's Eq. 7 with equal weights (``agents/iql.py``) without its values. The policy is IQL's,
so that rows differ by what is learned and not by networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer, NormalizerKind
from forethought.data.views import TransitionView
from forethought.models.base import Actor, Model
from forethought.nn.gaussian_policy import GaussianPolicy
from forethought.registry import models
from forethought.types import Spaces, Transitions


@models.register("bc")
@dataclass(frozen=True, kw_only=True)
class BCConfig(ModelConfig):
    """Settings of ``BC``."""

    width: int = 256
    """of the two hidden layers"""
    normalizer: NormalizerKind = "gaussian"
    """of observations; actions are mapped to [-1, 1]"""

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        return TransitionView(dataset)

    def build(self, spaces: Spaces) -> BC:
        return BC(self, spaces)


class BC(Model, Actor):
    """A Gaussian policy around a bounded mean; acts by its mode."""

    def __init__(self, config: BCConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.observation_normalizer = Normalizer(spaces.observation_dim, config.normalizer)
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        self.policy = GaussianPolicy(spaces.observation_dim, spaces.action_dim, width=config.width)

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        self.action_normalizer.fit(dataset.actions_taken)

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood of actions in model units, without its constant."""
        z = self.observation_normalizer.normalize(batch.observation)
        z_action = self.action_normalizer.normalize(batch.action)
        loss = -self.policy.log_prob(z, z_action).mean()
        return loss, {"policy_loss": loss.detach()}

    @torch.no_grad()
    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        z_action = self.policy(self.observation_normalizer.normalize(observation))
        return self.action_normalizer.denormalize(z_action)
