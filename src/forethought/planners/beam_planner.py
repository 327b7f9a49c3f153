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
    expected_action: bool = False
    """search likelihood: each dimension of the first action is its expectation, given the best
    sequence's dimensions before it, in place of its likeliest bin. Continuous actions only"""
    cache: bool = True
    """keep keys and values; without them every token is a pass over the whole sequence"""
    crop: int = 0
    """where history and plan outgrow the model's window: its latest ``crop`` transitions, computed
    anew (released code); 0 = refuse"""

    def __post_init__(self) -> None:
        for name, least in (("horizon", 1), ("beam", 1), ("context", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"planner.{name} is {getattr(self, name)}; it must be at least {least}"
                )
        if not 1 <= self.elites <= self.beam:
            raise ValueError(
                f"planner.elites is {self.elites}, but planner.beam keeps {self.beam} sequences; "
                "give planner.elites too, at most as many"
            )
        if self.expected_action and (self.search != "likelihood" or self.elites > 1):
            raise ValueError(
                "planner.expected_action is for planner.search likelihood and planner.elites 1; "
                f"got {self.search} and {self.elites}. With rewards, elites average actions."
            )
        if self.critic_value != "action" and not self.critic:
            raise ValueError(
                f"planner.critic_value {self.critic_value} needs planner.critic, whose it is"
            )
        if self.critic_value == "state" and self.horizon == 1:
            raise ValueError(
                "planner.critic_value state judges where actions lead, which a plan of one "
                "transition does not show; use planner.horizon 2 or more, or critic_value action"
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
        self._check_length(config)
        if (config.elites > 1 or config.expected_action) and self._layout.spaces.n_actions:
            raise ValueError(
                "the data has discrete actions, which have no mean; use planner.elites 1 and no "
                "planner.expected_action"
            )
        if (critic is not None or config.critic) and config.search != "reward":
            raise ValueError(
                "a critic guides planner.search reward; likelihood search has no use for it"
            )
        if critic is None and config.critic:
            critic = load_critic(config.critic, self._layout.spaces, value=config.critic_value)
        self.critic = critic
        if config.search == "reward":
            self._check_discount(config.reward.discount)

    def _check_length(self, config: BeamPlannerConfig) -> None:
        needed, window = config.context + config.horizon, self._model.window
        if self._model.rolls:
            if config.crop:
                raise ValueError(
                    f"planner.crop is {config.crop}, but this model's sequences roll on for ever "
                    "(model.positions rotary, model.band); use 0"
                )
        elif config.crop and not 2 <= config.crop <= window:
            raise ValueError(
                f"planner.crop is {config.crop} transitions; use 0 (refuse sequences longer than "
                f"the context) or 2 to {window}, the model's window"
            )
        elif needed > window and not config.crop:
            raise ValueError(
                f"planner.context {config.context} and planner.horizon {config.horizon} make "
                f"sequences of {needed} transitions, longer than the context: the model was "
                f"trained on windows of {window}. Use less of either, train on longer windows, or "
                "set planner.crop."
            )

    def _check_discount(self, discount: float) -> None:
        """Refuse a search that weighs rewards on the way unlike those that its values sum up."""
        if isinstance(self.critic, ModelCritic):
            self.critic.check_discount(discount)
        elif (
            self.critic is None
            and self._layout.return_column is not None
            and discount != self._layout.discount
        ):
            raise ValueError(
                f"planner.reward.discount is {discount}, but the model's rewards-to-go are "
                f"discounted by {self._layout.discount} (model.discount); set "
                f"planner.reward.discount {self._layout.discount}"
            )

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
            first, calls = self._first_action(state, score, observation, goal, history)
        best = rewards if rewards is None else rewards[:, 0].to(observation.device).clone()
        trajectory = self._decode(state, observation, best, first)
        stats = {
            "arrival": torch.full((len(observation),), self.config.horizon),
            "network_calls": state.network_calls + calls,
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
        state = self._begin(observation, goal, history, config.horizon * layout.columns)
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

    def _begin(
        self, observation: Tensor, goal: Tensor | None, history: Trajectory | None, expected: int
    ) -> TokenState:
        return self._model.begin(
            self._recent(history),
            observation,
            goal if self._model.wants_goal else None,
            cache=self.config.cache,
            crop=self.config.crop,
            expected=expected,
        )

    def _first_action(
        self,
        state: TokenState,
        score: Tensor,
        observation: Tensor,
        goal: Tensor | None,
        history: Trajectory | None,
    ) -> tuple[Tensor | None, int]:
        """The first action (batch, A) where it is not the best sequence's, and network calls."""
        layout, config = self._layout, self.config
        tokens = state.tokens[..., : layout.spaces.action_dim]
        if config.elites > 1:
            found = (score[:, : config.elites] > -torch.inf).to(score)[..., None]
            actions = layout.decode(tokens[:, : config.elites], first=layout.action_start)
            return (actions * found).sum(dim=1) / found.sum(dim=1), 0
        if not config.expected_action:
            return None, 0
        again = self._begin(observation, goal, history, layout.spaces.action_dim)
        means = []
        for column, token in enumerate(tokens[:, :1].unbind(dim=-1), start=layout.action_start):
            probabilities = again.next_logits().softmax(dim=-1)[:, 0]
            means.append(layout.tokenizer.expectation(probabilities, column))
            again.append(token)
        return torch.stack(means, dim=-1), again.network_calls

    def _critic_toward(self, goal: Tensor | None) -> Critic | None:
        return self.critic.toward(goal) if isinstance(self.critic, ModelCritic) else self.critic

    def _recent(self, history: Trajectory | None) -> Trajectory | None:
        """The last ``context`` transitions, and the episode's context."""
        if history is None or history.horizon <= self.config.context:
            return history
        return history.rows_from(history.horizon - self.config.context)

    def _decode(
        self,
        state: TokenState,
        observation: Tensor,
        rewards: Tensor | None,
        first_action: Tensor | None,
    ) -> Trajectory:
        """The best sequence (batch, horizon, dim); its first observation is the present one, its
        first action ``first_action`` if given. After a predicted end of the episode, which the
        masks show, the last observation and action are repeated."""
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
        actions = numbers[..., layout.action_start : layout.action_end].clone()
        if first_action is not None:
            actions[:, 0] = first_action.to(actions)
        row = torch.arange(horizon, device=live.device)
        last = torch.minimum(row, live.sum(dim=-1, keepdim=True) - 1)[..., None]
        return Trajectory(
            observations=observations.gather(1, last.expand_as(observations)),
            actions=actions.gather(1, last.expand_as(actions)),
            times=torch.arange(horizon),
            rewards=rewards,
            observation_mask=live,
            action_mask=live,
        )
