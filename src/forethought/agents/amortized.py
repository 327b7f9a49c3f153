"""A planner's actions, learned: acts at once, and knows where it does not know.

Planning again and again from similar situations is wasted effort: a small network can learn the
action that planner and controller take there (the thesis's outlook asks for such amortization).
Several networks are trained on the same data from different initial weights. Their mean is the
action; where they disagree, data was scarce or contradictory, so the spread is the novelty of a
situation and tells when to plan instead (``forethought.distillation``):

    action(o) = mean_k f_k(o),   novelty(o) = sqrt(mean over members and dimensions of
                                                   (f_k(o) - action(o))^2).

References: deep ensembles (Lakshminarayanan et al. 2017, arXiv 1612.01474); DAgger (Ross et al.
2011, arXiv 1011.0686); its ensemble version (Menda et al. 2019, arXiv 1807.08364).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer
from forethought.data.views import TransitionView
from forethought.models.base import Actor, Model
from forethought.nn.embeddings import fourier_features
from forethought.nn.ensemble import EnsembleMLP
from forethought.registry import models
from forethought.types import Spaces, Trajectory, Transitions


@models.register("amortized")
@dataclass(frozen=True, kw_only=True)
class AmortizedConfig(ModelConfig):
    """Settings of ``Amortized``."""

    width: int = 96
    members: int = 5
    octaves: int = 4
    """Fourier features of the observation, so that a small network can follow walls; 0 = none"""

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        return TransitionView(dataset)

    def build(self, spaces: Spaces) -> Amortized:
        return Amortized(self, spaces)


class Amortized(Model, Actor):
    """Ensemble of networks from observations to a planner's actions, for one task.

    ``threshold``: novelty above which a situation counts as novel; set by ``calibrate``
    """

    threshold: Tensor

    def __init__(self, config: AmortizedConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.config = config
        self.observation_normalizer = Normalizer(spaces.observation_dim, "limits")
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        inputs = spaces.observation_dim * (1 + 2 * config.octaves)
        sizes = [inputs, config.width, config.width, config.width, spaces.action_dim]
        self.networks = EnsembleMLP(config.members, sizes)
        self.register_buffer("threshold", torch.tensor(torch.inf))

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        taken = torch.ones(len(dataset.actions), dtype=torch.bool)
        taken[torch.from_numpy(dataset.starts[1:] - 1)] = False  # padding rows hold no action
        self.action_normalizer.fit(dataset.actions[taken.numpy()])

    def _members(self, observation: Tensor) -> Tensor:
        """(members, batch, A) in model units; unbounded, so that the loss has a slope."""
        z = self.observation_normalizer.normalize(observation)
        return self.networks(fourier_features(z, self.config.octaves))

    def loss(
        self, batch: Trajectory | Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of every member against the planner's action, in model units."""
        assert isinstance(batch, Transitions), "the view draws single steps"
        target = self.action_normalizer.normalize(batch.action)
        error = (self._members(batch.observation) - target).square().mean()
        return error, {"error": error.detach()}

    @torch.no_grad()
    def act_and_judge(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (batch, A) and novelty (batch,), the members' spread in the actions' units.

        Actions stay within those of the data.
        """
        device = self.threshold.device
        z_members = self._members(observation.to(device))
        action = self.action_normalizer.denormalize(z_members.clamp(-1, 1)).mean(dim=0)
        # not clamped: far from the data all members leave the range, and would seem to agree
        spread = (z_members - z_members.mean(dim=0)) * self.action_normalizer.scale
        novelty = spread.square().mean(dim=(0, 2)).sqrt()
        return action.to(observation.device), novelty.to(observation.device)

    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        return self.act_and_judge(observation)[0]

    def calibrate(self, observations: Tensor, quantile: float) -> None:
        """Set ``threshold`` to the novelty below which this share of ``observations`` lies.

        observations: (n, O), situations of the planner that were not trained on
        """
        _, novelty = self.act_and_judge(observations)
        self.threshold.copy_(novelty.quantile(quantile))
