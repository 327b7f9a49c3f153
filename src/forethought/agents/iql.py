"""Implicit Q-learning: offline values without a single action that the data does not hold.

Kostrikov et al. 2022 (arXiv 2110.06169). Three parts learn side by side from steps (s, a, r, s')::

    V     min  E[ L_e(min_j Q'_j(s, a) - V(s)) ],   L_e(u) = |e - 1(u < 0)| u^2     (Eq. 5)
    Q_j   min  E[ (r + discount * (1 - terminated) * V(s') - Q_j(s, a))^2 ]          (Eq. 6)
    pi    max  E[ min(exp(temperature * A), 100) * log pi(a | s) ],
               A = min_j Q'_j(s, a) - V(s)                                           (Eq. 7)

with Q' a slow average of Q. As the expectile e goes to 1, V(s) goes to the best value among the
actions that the data takes in s. With goals (thesis C.1) all three are also given the goal, drawn
geometrically from the future of the same episode, and r is 1 within a radius of it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer, NormalizerKind
from forethought.data.views import HindsightGoals, TransitionView
from forethought.models.base import Actor, Model, ValueModel, follow
from forethought.nn.ensemble import EnsembleMLP
from forethought.nn.gaussian_policy import GaussianPolicy
from forethought.nn.mlp import mlp
from forethought.registry import models
from forethought.types import Spaces, Transitions


@models.register("iql")
@dataclass(frozen=True, kw_only=True)
class IQLConfig(ModelConfig):
    """Settings of ``IQL``; the defaults are the paper's, but for expectile and temperature."""

    discount: float = 0.99
    n_steps: int = 1
    """steps of the data's own rewards before the value of the state then reached: values travel
    that much faster, through fewer estimates"""
    expectile: float = 0.95
    """0.5 is the mean over the data's actions, towards 1 the best of them"""
    temperature: float = 10.0
    """inverse temperature of the policy's weights; 0 is behavior cloning"""
    max_weight: float = 100.0
    target_rate: float = 0.005
    """how fast the target networks follow, per step"""
    width: int = 256
    """of the two hidden layers of every network"""
    critic_layer_norm: bool = False
    """normalize the critics' hidden layers, so that errors far from the data do not feed on
    themselves where rewards are far away (arXiv 2302.02948)"""
    normalizer: NormalizerKind = "gaussian"
    """of observations; actions are mapped to [-1, 1]"""
    goal_dims: tuple[int, ...] = ()
    """dimensions of the observation that make a goal; () = one task, the data's own reward"""
    goal_radius: float = 0.5
    """environment units, over ``goal_dims``"""
    scale_returns: bool = False
    """multiply rewards so that the data's episode returns span ``return_range``, as the authors do
    in locomotion"""
    return_range: float = 1_000.0
    """what they span then"""

    def __post_init__(self) -> None:
        for name in ("discount", "expectile", "target_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must lie in (0, 1)")
        if self.n_steps < 1:
            raise ValueError(f"model.n_steps is {self.n_steps}; it must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"model.temperature is {self.temperature}; it must not be negative")
        if self.return_range <= 0:
            raise ValueError(f"model.return_range is {self.return_range}; it must be positive")

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        hindsight = None
        if self.goal_dims:
            hindsight = HindsightGoals(
                discount=self.discount, radius=self.goal_radius, dims=self.goal_dims
            )
        return TransitionView(
            dataset, hindsight=hindsight, n_steps=self.n_steps, discount=self.discount
        )

    def build(self, spaces: Spaces) -> IQL:
        return IQL(self, spaces)


class IQL(Model, Actor, ValueModel):
    """Value V, twin Q with target networks, and a Gaussian policy around a bounded mean.

    Differs from the paper: all three are updated from the values before the step, not in turn.
    """

    reward_scale: Tensor | None

    def __init__(self, config: IQLConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.config, self.discount = config, config.discount
        self.wants_goal = bool(config.goal_dims)
        inputs, hidden = spaces.observation_dim + len(config.goal_dims), (config.width,) * 2
        self.observation_normalizer = Normalizer(spaces.observation_dim, config.normalizer)
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        self.value = mlp([inputs, *hidden, 1], nn.ReLU)
        self.critics = EnsembleMLP(
            2, [inputs + spaces.action_dim, *hidden, 1], layer_norm=config.critic_layer_norm
        )
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self.policy = GaussianPolicy(inputs, spaces.action_dim, width=config.width)
        self.register_buffer("reward_scale", torch.ones(()) if config.scale_returns else None)

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        self.action_normalizer.fit(dataset.actions_taken)
        if self.reward_scale is not None:
            returns = np.add.reduceat(dataset.rewards, dataset.starts[:-1], dtype=np.float64)
            spread = float(np.ptp(returns))
            self.reward_scale.fill_(self.config.return_range / spread if spread else 1.0)

    def encode(self, observation: Tensor, goal: Tensor | None) -> Tensor:
        """z (batch, features), laid out [observation, goal dimensions]."""
        z = self.observation_normalizer.normalize(observation)
        if not self.config.goal_dims:
            return z
        if goal is None:
            raise ValueError(
                f"this IQL was trained with goals (model.goal_dims {self.config.goal_dims}) and "
                "was given none; act toward a goal, or train with model.goal_dims ()"
            )
        z_goal = self.observation_normalizer.normalize(goal)[:, list(self.config.goal_dims)]
        return torch.cat([z, z_goal], dim=-1)

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the three objectives; none sends gradients into another's network."""
        config = self.config
        z = self.encode(batch.observation, batch.goal)
        z_action = self.action_normalizer.normalize(batch.action)
        z_both = torch.cat([z, z_action], dim=-1)
        with torch.no_grad():
            target = self.target_critics(z_both)[..., 0].amin(dim=0)  # (B,)
            z_next = self.encode(batch.next_observation, batch.goal)
            next_value = self.value(z_next)[:, 0]
            reward = batch.reward
            if self.reward_scale is not None:
                reward = reward * self.reward_scale
            discount = config.discount if batch.discount is None else batch.discount
            backup = reward + discount * ~batch.terminated * next_value

        value = self.value(z)[:, 0]
        advantage = target - value  # Eq. 5
        value_loss = expectile_loss(advantage, config.expectile)
        critics = self.critics(z_both)[..., 0]  # (2, B), Eq. 6
        critic_loss = (critics - backup).square().mean(dim=1).sum()
        with torch.no_grad():  # Eq. 7
            weight = (config.temperature * advantage).exp().clamp(max=config.max_weight)
        policy_loss = -(weight * self.policy.log_prob(z, z_action)).mean()

        metrics = {
            "value_loss": value_loss,
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "value": value.mean(),
            "weight": weight.mean(),
        }
        total = value_loss + critic_loss + policy_loss
        return total, {name: metric.detach() for name, metric in metrics.items()}

    def after_step(self) -> None:
        """Move the target networks toward the critics."""
        follow(self.target_critics, self.critics, self.config.target_rate)

    @torch.no_grad()
    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        z_action = self.policy(self.encode(observation, goal))  # the mode
        return self.action_normalizer.denormalize(z_action)

    @torch.no_grad()
    def action_value(
        self, observation: Tensor, action: Tensor, goal: Tensor | None = None
    ) -> Tensor:
        z = self.encode(observation, goal)
        z_both = torch.cat([z, self.action_normalizer.normalize(action)], dim=-1)
        return self._unscaled(self.target_critics(z_both)[..., 0].amin(dim=0))

    @torch.no_grad()
    def state_value(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        return self._unscaled(self.value(self.encode(observation, goal))[:, 0])

    def _unscaled(self, value: Tensor) -> Tensor:
        return value if self.reward_scale is None else value / self.reward_scale


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u^2; its minimizer is the expectile of the targets."""
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference.square()).mean()
