r"""Model-based value expansion (MVE): some steps in a learned model before the value function.

Feinberg et al. 2018 (arXiv 1803.00101); thesis Section 3.4. In the critics' target, the value of
the observation that was reached is expanded by ``rollout`` steps of the policy in a model::

    V(s_0) ~ sum_{k < H} discount^k (h_k + r_k) + discount^H V(s_H),   h = -alpha log pi(a | s)

with h of soft actor-critic, so that a perfect model changes nothing in expectation; the thesis
writes the sum without h (``entropy=False``). The model is a probabilistic ensemble
(``models/dynamics.py``), which also predicts the reward.

Differs from the paper: the critics learn from real steps only, not also from imagined ones ("TD-k
trick"); the thesis's Algorithm 1 has the former.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from forethought.agents.model_based import DynamicsAgent, ModelBasedConfig
from forethought.agents.sac import SAC
from forethought.models.dynamics import DynamicsConfig
from forethought.registry import models
from forethought.types import Spaces, Transitions


@models.register("mve")
@dataclass(frozen=True, kw_only=True)
class MVEConfig(ModelBasedConfig):
    """Settings of ``MVE``."""

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    rollout: int = 5
    """model steps before the value function (thesis Section 3.6)"""
    entropy: bool = True
    """whether the policy's entropy along the way counts, as it does in the value function"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout < 1:
            raise ValueError(f"model.rollout is {self.rollout}; it must be at least 1")

    def build(self, spaces: Spaces) -> MVE:
        return MVE(self, spaces)


class MVE(DynamicsAgent):
    """SAC whose targets look ``rollout`` steps ahead in ``dynamics``."""

    def __init__(self, config: MVEConfig, spaces: Spaces) -> None:
        super().__init__(config, config.dynamics, spaces)
        self.config = config
        self.agent.expansion = self.expand

    def agent_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.agent.loss(batch, generator)

    @torch.no_grad()
    def expand(
        self, observation: Tensor, agent: SAC, generator: torch.Generator | None = None
    ) -> Tensor:
        """(batch,) values of observations (batch, O): a ``ValueExpansion``."""
        if not self.believes:
            return agent.soft_value(observation, generator)
        total = torch.zeros(len(observation), device=observation.device)
        weight = torch.ones_like(total)  # discount^k, 0 after an end
        for _ in range(self.config.rollout):
            action, bonus = agent.draw(observation, generator)
            observation, reward, ended = self.dynamics.advance(observation, action, generator)
            total += weight * (reward + bonus if self.config.entropy else reward)
            weight = weight * agent.config.discount * ~ended
        return total + weight * agent.soft_value(observation, generator)
