r"""Model-based policy optimization (MBPO): soft actor-critic on short imagined rollouts.

Janner et al. 2019 (arXiv 1906.08253), Algorithm 2. An ensemble (``models/dynamics.py``) learns from
real steps. Every ``rollout_every`` updates, rollouts of k steps of the current policy branch off
from the real observations of a batch; their steps go into a ring of imagined steps, and SAC learns
from batches of which the share ``real_share`` is real. k grows linearly from ``least_rollout`` to
``most_rollout`` over ``rollout_growth`` updates (the paper's x -> y over epochs a -> b).

Differs from the paper: the model learns all the time, one update for ``model_every`` of the
agent's, and not to convergence on every 250th step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from forethought.agents.model_based import DynamicsAgent, ModelBasedConfig
from forethought.models.dynamics import DynamicsConfig
from forethought.registry import models
from forethought.types import Spaces, Transitions


@models.register("mbpo")
@dataclass(frozen=True, kw_only=True)
class MBPOConfig(ModelBasedConfig):
    """Settings of ``MBPO``."""

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    real_share: float = 0.05
    """of the agent's batch that is real"""
    rollout_every: int = 10
    """updates of the agent between rounds of rollouts, one from every observation of the batch"""
    least_rollout: int = 1
    most_rollout: int = 1
    """model steps of a rollout, at first and after ``rollout_growth`` updates"""
    rollout_growth: int = 10_000
    imagined_size: int = 20_000
    """latest imagined steps that are kept"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.real_share <= 1:
            raise ValueError(f"model.real_share is {self.real_share}; it must lie in [0, 1]")
        if not 1 <= self.least_rollout <= self.most_rollout:
            raise ValueError(
                f"model.least_rollout is {self.least_rollout} and model.most_rollout "
                f"{self.most_rollout}; they must be at least 1, the second not the smaller"
            )
        for name in ("rollout_every", "rollout_growth", "imagined_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")

    def build(self, spaces: Spaces) -> MBPO:
        return MBPO(self, spaces)


class ImaginedSteps(nn.Module):
    """A ring of imagined steps, in buffers so that it is saved with the agent.

    rows: (capacity, O + A + 1 + O), laid out [observation, action, reward, next observation]
    ended: (capacity,);  total: rows added so far
    """

    rows: Tensor
    ended: Tensor
    total: Tensor

    def __init__(self, capacity: int, spaces: Spaces) -> None:
        super().__init__()
        self._widths = [spaces.observation_dim, spaces.action_dim, 1, spaces.observation_dim]
        self.register_buffer("rows", torch.zeros(capacity, sum(self._widths)))
        self.register_buffer("ended", torch.zeros(capacity, dtype=torch.bool))
        self.register_buffer("total", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.total), len(self.rows))

    def add(self, steps: Transitions) -> None:
        """Append steps; the oldest make room. Of more steps than fit, the last ones stay."""
        parts = [steps.observation, steps.action, steps.reward[:, None], steps.next_observation]
        kept = slice(max(0, len(steps.reward) - len(self.rows)), None)
        count = torch.arange(len(steps.reward), device=self.rows.device)
        slots = ((self.total + count) % len(self.rows))[kept]
        self.rows[slots] = torch.cat(parts, dim=-1)[kept]
        self.ended[slots] = steps.terminated[kept]
        self.total += len(steps.reward)

    def draw(self, n: int, generator: torch.Generator | None) -> Transitions:
        """n steps, uniformly with replacement."""
        index = torch.randint(len(self), (n,), generator=generator, device=self.rows.device)
        observation, action, reward, reached = self.rows[index].split(self._widths, dim=-1)
        return Transitions(
            observation=observation,
            action=action,
            reward=reward[:, 0],
            next_observation=reached,
            terminated=self.ended[index],
        )


class MBPO(DynamicsAgent):
    """SAC that learns from ``imagined`` steps of ``dynamics`` and a few real ones."""

    def __init__(self, config: MBPOConfig, spaces: Spaces) -> None:
        super().__init__(config, config.dynamics, spaces)
        self.config = config
        self.imagined = ImaginedSteps(config.imagined_size, spaces)

    def agent_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """SAC's, on a mixture of real and imagined steps; on real ones during the warm-up."""
        if not self.believes:
            return self.agent.loss(batch, generator)
        if int(self.updates) % self.config.rollout_every == 0 or not len(self.imagined):
            self.imagine(batch.observation, generator)
        size = len(batch.reward)
        n_real = min(size, round(self.config.real_share * size))
        imagined = self.imagined.draw(size - n_real, generator)
        return self.agent.loss(_joined(batch[:n_real], imagined), generator)

    @property
    def rollout(self) -> int:
        """Model steps of a rollout now."""
        config = self.config
        grown = min(1.0, int(self.updates) / config.rollout_growth)
        return int(config.least_rollout + grown * (config.most_rollout - config.least_rollout))

    @torch.no_grad()
    def imagine(self, observation: Tensor, generator: torch.Generator | None = None) -> None:
        """Roll out the policy from observations (n, O) and keep the steps; ends stop rollouts."""
        for _ in range(self.rollout):
            action = self.agent.explore(observation, generator)
            reached, reward, ended = self.dynamics.advance(observation, action, generator)
            self.imagined.add(
                Transitions(
                    observation=observation,
                    action=action,
                    reward=reward,
                    next_observation=reached,
                    terminated=ended,
                )
            )
            observation = reached[~ended]
            if not len(observation):
                break


def _joined(first: Transitions, second: Transitions) -> Transitions:
    names = ("observation", "action", "reward", "next_observation", "terminated")
    pairs = {name: [getattr(part, name) for part in (first, second)] for name in names}
    return Transitions(**{name: torch.cat(parts) for name, parts in pairs.items()})
