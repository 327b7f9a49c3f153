r"""Soft actor-critic: act to earn reward and to stay random, from a replay buffer.

The version is Haarnoja et al. 2018b (arXiv 1812.05905): twin critics with slowly moving targets, no
separate value network, a temperature that is learned. From steps (s, a, r, s') of the buffer::

    V(s)     =  min_j Q'_j(s, a~) - alpha log pi(a~ | s),     a~ ~ pi(. | s)          (Eq. 3)
    Q_j      min  E[ 1/2 (Q_j(s, a) - r - discount (1 - terminated) V(s'))^2 ]        (Eq. 5)
    pi       min  E[ alpha log pi(a~ | s) - min_j Q_j(s, a~) ]                        (Eq. 9)
    alpha    min  E[ -log(alpha) (log pi(a~ | s) + target entropy) ]                  (Eq. 18)

with a~ = tanh(mean + std * noise), Q' a slow average of Q, and log(alpha) in place of alpha in Eq.
18, as its authors' code has it.

Thesis Algorithm 1 describes the earlier version (Haarnoja et al. 2018a, arXiv 1801.01290): a
network of its own for V (line 16), one critic, and a fixed temperature of 1. Here V is computed
from the target critics where it is needed. What Algorithm 1 changes is the same place in both: the
value of the observation that was reached (lines 13 and 15), a function of that observation and the
policy. ``SAC.expansion`` takes such a function; without one it is V above.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer
from forethought.data.views import TransitionView
from forethought.models.base import Actor, Explorer, Model, follow
from forethought.nn.ensemble import EnsembleMLP
from forethought.nn.mlp import mlp
from forethought.nn.twin import judge, learn_and_lead
from forethought.registry import models
from forethought.types import Spaces, Transitions

LOG_STD_RANGE = (-20.0, 2.0)  # of the policy, as in the authors' code


class ValueExpansion(Protocol):
    """What a model says an observation is worth: MVE, gamma-MVE (thesis Section 3.4)."""

    def __call__(
        self, observation: Tensor, agent: SAC, generator: torch.Generator | None
    ) -> Tensor:
        """Values (batch,) of observations (batch, O), environment units; called without gradients.

        The policy is ``agent.explore``, the terminal value ``agent.soft_value``.
        """
        ...


@models.register("sac")
@dataclass(frozen=True, kw_only=True)
class SACConfig(ModelConfig):
    """Settings of ``SAC``; the defaults are the paper's."""

    discount: float = 0.99
    target_rate: float = 0.005
    """how fast the target critics follow, per update"""
    width: int = 256
    """of the two hidden layers of every network"""
    critic_layer_norm: bool = False
    """normalize the critics' hidden layers (not in the paper; bears larger steps)"""
    initial_temperature: float = 1.0
    """alpha at the start"""
    target_entropy: float | None = None
    """nats, of actions scaled to [-1, 1]; None = minus the number of action dimensions"""
    reward_scale: float = 1.0
    """rewards are multiplied by this before learning"""

    def __post_init__(self) -> None:
        for name in ("discount", "target_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must lie in (0, 1)")
        for name in ("initial_temperature", "reward_scale", "width"):
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be positive")

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        return TransitionView(dataset)

    def build(self, spaces: Spaces) -> SAC:
        return SAC(self, spaces)


class SAC(Model, Actor, Explorer):
    """Twin critics with target networks, and a squashed Gaussian policy.

    Differs from the paper: critics, policy and temperature are all updated from the values before
    the step, by one optimizer, not in turn.
    """

    def __init__(self, config: SACConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        if spaces.action_dim < 1 or spaces.n_actions is not None:
            raise ValueError(
                f"SAC needs continuous actions of at least one dimension, not {spaces}"
            )
        self.config = config
        self.expansion: ValueExpansion | None = None
        inputs, actions = spaces.observation_dim, spaces.action_dim
        hidden = (config.width,) * 2
        self.observation_normalizer = Normalizer(inputs, "gaussian")
        self.action_normalizer = Normalizer(actions, "limits")
        sizes = [inputs + actions, *hidden, 1]
        self.critics = EnsembleMLP(2, sizes, layer_norm=config.critic_layer_norm)
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self.policy = mlp([inputs, *hidden, 2 * actions], nn.ReLU)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.initial_temperature)))
        chosen = config.target_entropy
        self.target_entropy = -float(actions) if chosen is None else chosen

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        self.action_normalizer.fit(dataset.actions_taken)

    def fit_ranges(self, action_box: np.ndarray, observations: np.ndarray | None) -> None:
        self.action_normalizer.fit(action_box)
        if observations is not None:
            self.observation_normalizer.fit(observations)

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the three objectives; none sends gradients into another's parameters."""
        config = self.config
        z = self.observation_normalizer.normalize(batch.observation)
        z_action = self.action_normalizer.normalize(batch.action)
        temperature = self.log_temperature.detach().exp()
        backup = self.backup(batch, generator)
        z_new, log_prob = self._draw(z, generator)
        data, led = torch.cat([z, z_action], dim=-1), torch.cat([z, z_new], dim=-1)
        critics, values = learn_and_lead(self.critics, data, led)  # (2, B) each
        critic_loss = 0.5 * (critics - backup).square().mean(dim=1).sum()  # Eq. 5
        value = torch.minimum(*values)
        policy_loss = (temperature * log_prob - value).mean()  # Eq. 9
        entropy = -log_prob.detach().mean()
        temperature_loss = self.log_temperature * (entropy - self.target_entropy)  # Eq. 18

        metrics = {
            "critic_loss": critic_loss.detach(),
            "policy_loss": policy_loss.detach(),
            "value": value.detach().mean() / config.reward_scale,
            "entropy": entropy,
            "temperature": temperature,
        }
        return critic_loss + policy_loss + temperature_loss, metrics

    @torch.no_grad()
    def backup(self, batch: Transitions, generator: torch.Generator | None = None) -> Tensor:
        """(batch,) what the critics learn: Algorithm 1, line 15. Only termination cuts it off."""
        config = self.config
        value_of = self.soft_value if self.expansion is None else self._expanded_value
        next_value = value_of(batch.next_observation, generator)
        target = batch.reward + config.discount * ~batch.terminated * next_value
        return config.reward_scale * target

    def _expanded_value(self, observation: Tensor, generator: torch.Generator | None) -> Tensor:
        assert self.expansion is not None, "asked only where there is one"
        return self.expansion(observation, self, generator)

    @torch.no_grad()
    def soft_value(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(batch,) V of observations (batch, O), Eq. 3 with one action drawn for each; in units of
        the environment's reward."""
        worth, bonus = self.value_and_bonus(observation, generator)
        return worth + bonus

    @torch.no_grad()
    def value_and_bonus(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The two parts of ``soft_value``: min_j Q'_j(s, a) and -alpha log pi(a | s)."""
        z = self.observation_normalizer.normalize(observation)
        z_new, log_prob = self._draw(z, generator)
        value = torch.minimum(*judge(self.target_critics, torch.cat([z, z_new], dim=-1)))
        return value / self.config.reward_scale, self._bonus(log_prob)

    @torch.no_grad()
    def draw(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions (batch, A) as ``explore`` draws them, and their -alpha log pi (batch,) in units
        of the environment's reward."""
        z_new, log_prob = self._draw(self.observation_normalizer.normalize(observation), generator)
        return self.action_normalizer.denormalize(z_new), self._bonus(log_prob)

    def _bonus(self, log_prob: Tensor) -> Tensor:
        return -self.log_temperature.exp() * log_prob / self.config.reward_scale

    def _draw(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Actions (batch, A) in (-1, 1) and their log-density (batch,), with gradients."""
        mean, log_std = self.policy(z).chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=generator, device=z.device)
        return squash(mean, log_std.clamp(*LOG_STD_RANGE), noise)

    @torch.no_grad()
    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        z = self.observation_normalizer.normalize(observation)
        z_action = self.policy(z)[..., : self.spaces.action_dim].tanh()  # the squashed mean
        return self.action_normalizer.denormalize(z_action)

    @torch.no_grad()
    def explore(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.draw(observation, generator)[0]

    @torch.no_grad()
    def action_nodes(self, observation: Tensor, n_nodes: int) -> tuple[Tensor, Tensor]:
        """Actions (batch, n_nodes, 1) and weights (n_nodes,) whose sums are expectations over the
        policy's action (Gauss-Hermite quadrature); for policies with one action dimension."""
        if self.spaces.action_dim != 1:
            raise ValueError(
                f"quadrature over actions is for one action dimension, not "
                f"{self.spaces.action_dim}; draw actions with explore"
            )
        places, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
        z = self.observation_normalizer.normalize(observation)
        mean, log_std = self.policy(z).chunk(2, dim=-1)  # (B, 1)
        steps = torch.from_numpy(places).to(mean)
        z_action = (mean + log_std.clamp(*LOG_STD_RANGE).exp() * steps).tanh()
        actions = self.action_normalizer.denormalize(z_action[..., None])
        return actions, torch.from_numpy(weights / weights.sum()).to(mean)

    def actor_state(self) -> dict[str, Tensor]:
        parts = ("policy.", "observation_normalizer.", "action_normalizer.")
        return {name: value for name, value in self.state_dict().items() if name.startswith(parts)}

    def after_step(self) -> None:
        """Move the target critics toward the critics."""
        follow(self.target_critics, self.critics, self.config.target_rate)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std * noise) and its log-density, summed over the last axis.

    log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2), the last term written as
    2 (log 2 - u - softplus(-2 u)) so that it stays finite at the borders (Appendix C of the paper).
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    slope = 2 * (math.log(2) - u - functional.softplus(-2 * u))
    return u.tanh(), (gaussian - slope).sum(dim=-1)
