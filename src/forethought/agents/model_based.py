"""What agents share that learn a model of the world beside a soft actor-critic.

MVE, gamma-MVE (thesis Algorithm 1) and MBPO differ in what they do with their model; here is what
they have in common. Agent and model learn in one step from one summed loss, on the same batch of
real steps, each with a step size of its own. ``model_every`` leaves the model out of most updates:
parameters without a gradient are not touched by the optimizer, so that costs nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from forethought.agents.sac import SACConfig
from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.views import TransitionView
from forethought.models.base import Actor, Explorer, Model
from forethought.models.dynamics import DynamicsConfig
from forethought.types import Spaces, Transitions


@dataclass(frozen=True, kw_only=True)
class ModelBasedConfig(ModelConfig):
    """Settings that MVE, gamma-MVE and MBPO share."""

    sac: SACConfig = field(default_factory=SACConfig)
    model_every: int = 1
    """updates of the agent for each of the model"""
    model_learning_rate: float = 1e-3
    warm_up: int = 0
    """updates before the model is believed; the agent is plain SAC until then"""

    def __post_init__(self) -> None:
        if self.model_every < 1 or self.warm_up < 0 or self.model_learning_rate <= 0:
            raise ValueError(
                f"model.model_every is {self.model_every}, model.warm_up {self.warm_up} and "
                f"model.model_learning_rate {self.model_learning_rate}; they must be at least 1, "
                "not negative, and positive"
            )

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        return TransitionView(dataset)


class ModelBasedAgent(Model, Actor, Explorer):
    """A SAC in ``agent`` and, in the subclass, a model of the world.

    updates: how many there have been, a buffer so that a resumed run goes on in step
    """

    updates: Tensor

    def __init__(self, config: ModelBasedConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.shared = config
        self.agent = config.sac.build(spaces)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def fit_action_range(self, actions: np.ndarray) -> None:
        """Set the model's normalizer of actions from rows (n, A) that span their range."""

    @abstractmethod
    def model_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of the model on real steps."""

    @abstractmethod
    def agent_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of the agent, given real steps."""

    @abstractmethod
    def after_model_step(self) -> None:
        """Called after every update of the model."""

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        view = self.shared.view(dataset)
        steps = view[np.arange(len(view))]
        self.agent.fit_statistics(dataset)
        self.fit_action_range(steps.action.numpy())
        self.fit_steps(steps)

    def fit_ranges(self, action_box: np.ndarray, observations: np.ndarray | None) -> None:
        self.agent.fit_ranges(action_box, observations)
        self.fit_action_range(action_box)

    def _model_is_due(self) -> bool:
        return int(self.updates) % self.shared.model_every == 0

    @property
    def believes(self) -> bool:
        """Whether the model's warm-up is over."""
        return int(self.updates) >= self.shared.warm_up

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the agent's and, when it is due, the model's; neither teaches the other."""
        total, metrics = self.agent_loss(batch, generator)
        if not self._model_is_due():
            return total, metrics
        model_loss, model_metrics = self.model_loss(batch, generator)
        return total + model_loss, metrics | model_metrics

    def after_step(self) -> None:
        self.agent.after_step()
        if self._model_is_due():
            self.after_model_step()
        self.updates += 1

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """The agent's, and the model's with its own step size and no weight decay."""
        of_model = [p for name, p in self.named_parameters() if not name.startswith("agent.")]
        model = {
            "params": [p for p in of_model if p.requires_grad],
            "weight_decay": 0.0,
            "lr": self.shared.model_learning_rate,
        }
        return [*self.agent.parameter_groups(weight_decay), model]

    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        return self.agent.act(observation, goal)

    def explore(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.agent.explore(observation, generator)

    def actor_state(self) -> dict[str, Tensor]:
        return {f"agent.{name}": value for name, value in self.agent.actor_state().items()}


class DynamicsAgent(ModelBasedAgent):
    """One whose model is an ensemble of single steps, in ``dynamics``: MVE and MBPO."""

    def __init__(self, config: ModelBasedConfig, dynamics: DynamicsConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.dynamics = dynamics.build(spaces)

    def fit_action_range(self, actions: np.ndarray) -> None:
        self.dynamics.action_normalizer.fit(actions)

    def fit_steps(self, steps: Transitions) -> None:
        self.dynamics.fit_steps(steps)

    def model_loss(
        self, batch: Transitions, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.dynamics.loss(batch, generator)

    def after_model_step(self) -> None:
        self.dynamics.after_step()
