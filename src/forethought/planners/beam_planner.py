"""The Trajectory Transformer's planner: history, observation and goal in, the best beam out.

Thesis Section 4.3: the likeliest sequence for imitation and (given the goal) goal reaching, the one
of highest predicted return for offline RL; the first action is executed and all is planned again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from forethought.config import PlannerConfig
from forethought.models.base import Generator, Model, TokenModel, TokenState, require
from forethought.planners.base import Planner
from forethought.planners.beam_search import Critic, RewardSearch, beam_search, reward_search
from forethought.planners.critics import CriticValue, ModelCritic, load_critic
from forethought.registry import planners
from forethought.types import Plan, Trajectory


@planners.register("beam")
@dataclass(frozen=True, kw_only=True)
class BeamPlannerConfig(PlannerConfig):
    """Settings of ``BeamPlanner``."""

    search: Literal["likelihood", "reward"] = "reward"
    """Algorithm 4 (imitation, goals) or its version that ranks by rewards (offline RL)"""
    horizon: int = 15
    """transitions of a plan, the last of which ends with its action (likelihood) or outcome"""
    beam: int = 128
    """sequences that are kept"""
    context: int = 5
    """past transitions that are looked back on"""
    reward: RewardSearch = RewardSearch()
    critic: str = ""
    """checkpoint folder of a model with values, such as IQL, whose Q stands for the predicted
    reward-to-go (thesis Section 4.4); none = the model's own prediction"""
    critic_value: CriticValue = "action"
    """what it is asked for: Q(s, a), or V(s), which does not judge a plan's last action"""
    elites: int = 1
    """the first action is the mean over this many of the best sequences, as in the cross-entropy
    method; 1 = that of the best one. Continuous actions only"""
    cache: bool = True
    """keep keys and values; without them every token is a pass over the whole sequence"""
    crop: int = 0
    """where history and plan outgrow the model's window: its latest ``crop`` transitions, computed
    anew (released code); 0 = refuse"""

    def __post_init__(self) -> None:
        if min(self.horizon, self.beam) < 1 or self.context < 0:
            raise ValueError(
                f"planner.horizon {self.horizon} and planner.beam {self.beam} must be at least 1, "
                f"planner.context {self.context} not negative"
            )
        if not 1 <= self.elites <= self.beam:
            raise ValueError(
                f"planner.elites is {self.elites}; use 1 to {self.beam}, the sequences that are "
                "kept (planner.beam)"
            )

    def build(self, model: Model) -> BeamPlanner:
        return BeamPlanner(model, self)


class BeamPlanner(Planner):
    """Plans with any ``TokenModel``, for all environments of a batch at once.

    critic: value (n,) of observations (n, O) and actions (n, A), in place of predicted
        rewards-to-go: the thesis's Q-guided search. By default the one that the settings name, if
        they name one. A goal is given to model and critic if they want one.
    """

    chooses_arrival = True  # there is no arrival time: a plan is as long as it is

    def __init__(
        self,
        model: Model,
        config: BeamPlannerConfig = BeamPlannerConfig(),
        *,
        critic: Critic | None = None,
    ) -> None:
        self.config = config
        self._model = require(model, TokenModel, needed_by="BeamPlanner")
        self._layout = self._model.tokens
        self.context = config.context
        needed = config.context + config.horizon
        if needed > self._model.window and not config.crop:
            raise ValueError(
                f"planner.context {config.context} and planner.horizon {config.horizon} make "
                f"sequences of {needed} transitions, longer than the context: the model was "
                f"trained on windows of {self._model.window}. Use less of either, train on longer "
                "windows, or set planner.crop."
            )
        if config.elites > 1 and self._layout.spaces.n_actions is not None:
            raise ValueError(
                f"planner.elites is {config.elites}, but the data has discrete actions, which have "
                "no mean; use 1"
            )
        if (critic is not None or config.critic) and config.search != "reward":
            raise ValueError(
                "a critic guides planner.search reward; likelihood search has no use for it"
            )
        if critic is None and config.critic:
            critic = load_critic(config.critic, self._layout.spaces, value=config.critic_value)
            critic.check_discount(config.reward.discount)
        self.critic = critic

    @torch.no_grad()
    def plan(
        self,
        observation: Tensor,
        *,
        goal: Tensor | None = None,
        history: Trajectory | None = None,
        previous: Plan | None = None,
        remaining: Tensor | None = None,
        generator: Generator = None,
    ) -> Plan:
        began = time.perf_counter()
        with torch.inference_mode():  # without autograd's bookkeeping; what leaves is copied
            state, score, rewards = self._search(observation, goal, history, generator)
        best = rewards if rewards is None else rewards[:, 0].to(observation.device).clone()
        trajectory = self._decode(state, observation, best)
        stats = {
            "arrival": torch.full((len(observation),), self.config.horizon),
            "network_calls": state.network_calls,
            "beams": state.beams,
            "scores": score.cpu().clone(),
            "seconds": time.perf_counter() - began,
        }
        value = score[:, 0].to(observation.device).clone()
        return Plan(trajectory=trajectory, value=value, stats=stats)

    def _search(
        self,
        observation: Tensor,
        goal: Tensor | None,
        history: Trajectory | None,
        generator: Generator,
    ) -> tuple[TokenState, Tensor, Tensor | None]:
        """The grown state, scores (batch, beams), and rewards (batch, beams, horizon) if known."""
        config, layout = self.config, self._layout
        state = self._model.begin(
            self._recent(history),
            observation,
            goal if self._model.wants_goal else None,
            cache=config.cache,
            crop=config.crop,
            expected=config.horizon * layout.columns,
        )
        if config.search == "likelihood":
            # the last transition ends with its action: with horizon 1, this is behavior cloning
            length = (config.horizon - 1) * layout.columns + layout.spaces.action_dim
            return state, beam_search(state, layout.n_bins, length, config.beam), None
        found = reward_search(
            state,
            layout,
            config.horizon,
            config.beam,
            config.reward,
            generator=generator,
            critic=self._critic_toward(goal),
            observation=observation,
        )
        return state, found.score, found.rewards

    def _critic_toward(self, goal: Tensor | None) -> Critic | None:
        return self.critic.toward(goal) if isinstance(self.critic, ModelCritic) else self.critic

    def _recent(self, history: Trajectory | None) -> Trajectory | None:
        """The last ``context`` transitions, and the episode's context."""
        if history is None or history.horizon <= self.config.context:
            return history
        last = slice(history.horizon - self.config.context, None)
        rewards = None if history.rewards is None else history.rewards[:, last]
        return Trajectory(
            observations=history.observations[:, last],
            actions=history.actions[:, last],
            times=history.times[last],
            rewards=rewards,
            context=history.context,
        )

    def _decode(self, state: TokenState, observation: Tensor, rewards: Tensor | None) -> Trajectory:
        """The best sequence (batch, horizon, dim); its first observation is the present one, and
        after a predicted end of the episode, which the mask shows, the last one is repeated."""
        layout, horizon = self._layout, self.config.horizon
        tokens = state.tokens[:, 0]
        wanted = horizon * layout.columns - layout.action_start
        missing = wanted - tokens.shape[1]  # the last transition's outcome
        tokens = torch.nn.functional.pad(tokens, (layout.action_start, max(missing, 0)))
        table = tokens[:, : horizon * layout.columns].unflatten(1, (horizon, layout.columns))
        numbers = layout.decode(table).to(observation.device, observation.dtype)
        observations = numbers[..., : layout.action_start].clone()
        observations[:, 0] = observation
        stopped = (table[..., : layout.action_start] == layout.stop).any(dim=-1)
        live = ~stopped.cummax(dim=-1).values.to(observation.device)  # rows before a predicted end
        actions = numbers[..., layout.action_start : layout.action_end]
        if self.config.elites > 1:
            actions = torch.cat([self._mean_action(state).to(actions)[:, None], actions[:, 1:]], 1)
        row = torch.arange(horizon, device=live.device)
        last = torch.minimum(row, live.sum(dim=-1, keepdim=True) - 1)
        return Trajectory(
            observations=observations.gather(1, last[..., None].expand_as(observations)),
            actions=actions,
            times=torch.arange(horizon),
            rewards=rewards,
            observation_mask=live,
        )

    def _mean_action(self, state: TokenState) -> Tensor:
        """(batch, A): the first actions of the elites, averaged."""
        layout = self._layout
        tokens = state.tokens[:, : self.config.elites, : layout.spaces.action_dim]
        return layout.decode(tokens, first=layout.action_start).mean(dim=1)
