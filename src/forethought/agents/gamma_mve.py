r"""Gamma-MVE: one sample of a gamma-model in place of a rollout (thesis Algorithm 1, Theorem 2).

A gamma-model of discount g (0.8 in the thesis), trained in the same loop from the replay buffer,
draws states s_e of the near future under the current policy. The value of discount g~ (0.99) of the
observation that was reached is then, with H steps of the model (1 in the thesis)::

    V(s) ~ 1 / (1 - g~) sum_{n <= H} alpha_n E[r(s_e)] + ((g~ - g) / (1 - g))^H E[V(s_e)]

With g = 0.8, g~ = 0.99 and H = 1 that is 5 E[r(s_e)] + 0.95 E[V(s_e)]: one backup of the critics
reaches six steps ahead on average. The model bootstraps with actions that the current policy draws
(Algorithm 1, line 12), not with those in the buffer.

Rewards are of the state arrived in, for V(s) must start with the reward of the step that leaves s.
They are learned: a network is fitted to E[r | s'] on the same batches. So any environment will do,
also one whose reward depends on the state left and the action, as Pendulum's, where a known
function of s_e alone would lose or double a reward (docs/decisions.md).

In soft actor-critic V has the policy's entropy h(s) = -alpha log pi(a | s) in it. Theorem 2 then
holds for the reward r(s_e) + g~ h(s_e) and the value V - h; the thesis's sum leaves h out
(``entropy=False``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from forethought.agents.model_based import ModelBasedAgent, ModelBasedConfig
from forethought.agents.sac import SAC
from forethought.data.normalizers import Normalizer
from forethought.models.base import Model
from forethought.models.gamma import expand_value, rollout
from forethought.models.gamma_base import GammaConfig, GammaModel
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.nn.mlp import mlp
from forethought.registry import models
from forethought.types import Spaces, Transitions


@models.register("gamma-mve")
@dataclass(frozen=True, kw_only=True)
class GammaMVEConfig(ModelBasedConfig):
    """Settings of ``GammaMVE``."""

    gamma: GammaConfig = field(default_factory=lambda: GammaMatchingConfig(discount=0.8))
    """the gamma-model, of any kind; its ``policy`` is not used"""
    rollout: int = 1
    """gamma-model steps before the value function"""
    samples: int = 1
    """states s_e drawn for every observation"""
    reward_width: int = 128
    """of the two hidden layers of the reward's network"""
    entropy: bool = True
    """whether the policy's entropy along the way counts, as it does in the value function"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout < 1 or self.samples < 1:
            raise ValueError(
                f"model.rollout is {self.rollout} and model.samples {self.samples}; both must be "
                "at least 1"
            )
        if not self.gamma.discount < self.sac.discount:
            raise ValueError(
                f"model.gamma.discount is {self.gamma.discount}; it must be smaller than the "
                f"value's, model.sac.discount = {self.sac.discount}"
            )

    def build(self, spaces: Spaces) -> GammaMVE:
        return GammaMVE(self, spaces)


class GammaMVE(ModelBasedAgent):
    """SAC whose targets draw the near future from ``world``."""

    def __init__(self, config: GammaMVEConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.config = config
        self.world = _gamma_model(config.gamma.build(spaces))
        self.reward_normalizer = Normalizer(1, "gaussian")
        width = config.reward_width
        self.reward = mlp([spaces.observation_dim, width, width, 1])
        self.agent.expansion = self.expand

    def fit_action_range(self, actions: np.ndarray) -> None:
        self.world.action_normalizer.fit(actions)

    def fit_steps(self, steps: Transitions) -> None:
        self.world.observation_normalizer.fit(steps.observation.cpu().numpy())
        self.reward_normalizer.fit(steps.reward[:, None].cpu().numpy())

    def model_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The gamma-model's loss under the current policy, and the reward's squared error."""
        following = self.agent.explore(batch.next_observation, generator)
        loss, metrics = self.world.loss(replace(batch, next_action=following), generator)
        z = self.world.observation_normalizer.normalize(batch.next_observation)
        z_reward = self.reward_normalizer.normalize(batch.reward[:, None])
        error = (self.reward(z) - z_reward).square().mean()
        return loss + error, {**metrics, "reward_error": error.detach()}

    def after_model_step(self) -> None:
        self.world.after_step()

    def agent_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.agent.loss(batch, generator)

    @torch.no_grad()
    def reward_of(self, states: Tensor) -> Tensor:
        """(...,) learned rewards of arriving in states (..., O), environment units."""
        z = self.world.observation_normalizer.normalize(states)
        return self.reward_normalizer.denormalize(self.reward(z))[..., 0]

    @torch.no_grad()
    def expand(
        self, observation: Tensor, agent: SAC, generator: torch.Generator | None = None
    ) -> Tensor:
        """(batch,) values of observations (batch, O): a ``ValueExpansion``."""
        if not self.believes:
            return agent.soft_value(observation, generator)
        config, target = self.config, agent.config.discount
        action, first_bonus = agent.draw(observation, generator)
        states = rollout(
            self.world,
            agent.explore,
            observation,
            action,
            n_steps=config.rollout,
            n_samples=config.samples,
            generator=generator,
        )
        alive = 1.0
        if self.world.gamma_config.terminal_flag:  # where the episode has ended nothing follows
            states, flag = states[..., :-1], states[..., -1]
            alive = (flag < 0.5).to(states)
        worth, bonus = agent.value_and_bonus(states.flatten(0, 2), generator)
        worth, bonus = (each.unflatten(0, states.shape[:3]) for each in (worth, bonus))
        rewards, value = self.reward_of(states), worth + bonus
        if config.entropy:
            rewards, value = rewards + target * bonus, worth
        expanded = expand_value(
            states,
            lambda _: alive * rewards,
            lambda _: (alive * value)[-1],
            discount=self.world.discount,
            target=target,
        )
        return expanded + first_bonus if config.entropy else expanded


def _gamma_model(model: Model) -> GammaModel:
    assert isinstance(model, GammaModel), "a GammaConfig builds a gamma-model"
    return model
