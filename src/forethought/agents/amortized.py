"""A planner's actions, learned: acts at once, and knows where it does not know.

Planning again and again from similar situations is wasted effort: a small network can learn the
action that planner and controller take there (the thesis's outlook asks for such amortization).
Several networks are trained on the same data from different initial weights. Their mean is the
action; where they disagree, data was scarce or contradictory, so the spread is the novelty of a
situation and tells when to plan instead (``forethought.distillation``):

    action(o) = mean_k f_k(o),   novelty(o) = sqrt(mean over members and dimensions of
                                                   (f_k(o) - action(o))^2).

With ``goal_dims`` the goal is an input as well, and one student serves many goals.

References: deep ensembles (Lakshminarayanan et al. 2017, arXiv 1612.01474); DAgger (Ross et al.
2011, arXiv 1011.0686); its ensemble version (Menda et al. 2019, arXiv 1807.08364).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
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
    goal_dims: tuple[int, ...] = ()
    """dimensions of the observation that make a goal; () = one task, no goal is looked at"""

    def view(self, dataset: EpisodeDataset) -> TransitionView | EpisodeGoals:
        return EpisodeGoals(dataset) if self.goal_dims else TransitionView(dataset)

    def build(self, spaces: Spaces) -> Amortized:
        return Amortized(self, spaces)


class EpisodeGoals:
    """Single steps with the goal that their own episode had (``metadata["goals"]``, one each)."""

    def __init__(self, dataset: EpisodeDataset) -> None:
        goals = dataset.metadata.get("goals")
        if goals is None or len(goals) != len(dataset):
            raise ValueError(
                f"a goal-conditioned student needs one goal for each of the {len(dataset)} "
                f'episodes in metadata["goals"]; there are {0 if goals is None else len(goals)}'
            )
        self._steps = TransitionView(dataset)
        steps = np.diff(dataset.starts) - 1
        self._goals = np.repeat(np.asarray(goals, dtype=np.float32), steps, axis=0)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, indices: np.ndarray) -> Transitions:
        return replace(self._steps[indices], goal=torch.from_numpy(self._goals[indices]))


class Amortized(Model, Actor):
    """Ensemble of networks from observations, and goals if it has any, to a planner's actions.

    ``threshold``: novelty above which a situation counts as novel; set by ``calibrate``
    """

    threshold: Tensor

    def __init__(self, config: AmortizedConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.config = config
        self.observation_normalizer = Normalizer(spaces.observation_dim, "limits")
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        inputs = (spaces.observation_dim + len(config.goal_dims)) * (1 + 2 * config.octaves)
        sizes = [inputs, config.width, config.width, config.width, spaces.action_dim]
        self.networks = EnsembleMLP(config.members, sizes)
        self.register_buffer("threshold", torch.tensor(torch.inf))

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        taken = torch.ones(len(dataset.actions), dtype=torch.bool)
        taken[torch.from_numpy(dataset.starts[1:] - 1)] = False  # padding rows hold no action
        self.action_normalizer.fit(dataset.actions[taken.numpy()])

    def _members(self, observation: Tensor, goal: Tensor | None) -> Tensor:
        """(members, batch, A) in model units; unbounded, so that the loss has a slope."""
        z = self.observation_normalizer.normalize(observation)
        dims = list(self.config.goal_dims)
        if dims:
            if goal is None:
                raise ValueError(
                    f"this student was taught with goals (model.goal_dims {tuple(dims)}) and was "
                    "given none; act toward a goal, or distill with model.goal_dims ()"
                )
            z_goal = self.observation_normalizer.normalize(goal)[:, dims]
            z = torch.cat([z, z_goal], dim=1)
        return self.networks(fourier_features(z, self.config.octaves))

    def loss(
        self, batch: Trajectory | Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of every member against the planner's action, in model units."""
        assert isinstance(batch, Transitions), "the view draws single steps"
        target = self.action_normalizer.normalize(batch.action)
        error = (self._members(batch.observation, batch.goal) - target).square().mean()
        return error, {"error": error.detach()}

    @torch.no_grad()
    def act_and_judge(
        self, observation: Tensor, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions (batch, A) and novelty (batch,), the members' spread in the actions' units.

        goal: (batch, O), for a student with goals. Actions stay within those of the data.
        """
        device = self.threshold.device
        goal = None if goal is None else goal.to(device)
        z_members = self._members(observation.to(device), goal)
        action = self.action_normalizer.denormalize(z_members.clamp(-1, 1)).mean(dim=0)
        # not clamped: far from the data all members leave the range, and would seem to agree
        spread = (z_members - z_members.mean(dim=0)) * self.action_normalizer.scale
        novelty = spread.square().mean(dim=(0, 2)).sqrt()
        return action.to(observation.device), novelty.to(observation.device)

    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        return self.act_and_judge(observation, goal)[0]

    def calibrate(self, observations: Tensor, quantile: float, goals: Tensor | None = None) -> None:
        """Set ``threshold`` to the novelty below which this share of ``observations`` lies.

        observations: (n, O), situations of the planner that were not trained on;  goals: (n, O)
        """
        _, novelty = self.act_and_judge(observations, goals)
        self.threshold.copy_(novelty.quantile(quantile))
