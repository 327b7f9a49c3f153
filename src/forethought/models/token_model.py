"""What the two Trajectory Transformers share: bins, targets and weights of the loss.

The training objective is the likelihood of every token given those before it (thesis Section 4.3),

    L(tau) = sum_t sum_d log P(token_t^d | token_t^{<d}, tau_{<t}),

with the columns d of a transition as ``data/trajectory_tokens.py`` lays them out. Training windows
are as long as the longest history and plan together, so that positions of a plan never slide.
Thesis Chapter 4 and Appendix B.1; Janner et al. 2021 (arXiv 2106.02039).
"""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from forethought.data.episodes import EpisodeDataset
from forethought.data.trajectory_tokens import UNKNOWN, TrajectoryTokens, with_terminal_reward
from forethought.models.base import Model, TokenModel
from forethought.models.token_config import TokenModelConfig
from forethought.models.token_state import UNCONDITIONED, Condition, SequenceState
from forethought.nn.gpt import GPT
from forethought.nn.map_encoder import MapEncoder
from forethought.types import Spaces, Trajectory


class TokenTrajectoryModel(Model, TokenModel):
    """A model of trajectories as tokens; subclasses bring the network and its states.

    ``trained`` and ``bins_digest`` tell bins that the weights have been trained with from others.
    """

    gpt: GPT
    trained: Tensor
    bins_digest: Tensor
    illegal: Tensor

    def __init__(self, config: TokenModelConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.config = config
        self.window = config.window
        self.rolls = config.positions == "rotary" and config.band > 0
        self.wants_goal = config.goal != "none"
        self.tokens = TrajectoryTokens(
            spaces,
            n_bins=config.n_bins,
            kind=config.tokenizer,
            reconstruct=config.reconstruct,
            reward=config.reward_token,
            returns=config.return_token,
            discount=config.discount,
        )
        wanted = config.goal_dims or tuple(range(spaces.observation_dim))
        self.goal_dims = wanted if self.wants_goal else ()
        if any(not 0 <= dim < spaces.observation_dim for dim in self.goal_dims):
            raise ValueError(
                f"model.goal_dims {config.goal_dims}: observations have dimensions 0 to "
                f"{spaces.observation_dim - 1}"
            )
        self.map_encoder = self._build_map_encoder(config, spaces)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.register_buffer("bins_digest", torch.zeros((), dtype=torch.int64))
        bins = torch.arange(config.n_bins + int(config.stop_token))
        legal = torch.tensor([self.tokens.legal(c) for c in range(self.tokens.columns)])
        illegal = (bins >= legal[:, None]) & (bins < config.n_bins)
        illegal[1:, config.n_bins :] = True  # an episode ends between transitions
        self.register_buffer("illegal", illegal, persistent=False)  # (columns, outputs)
        self._illegal_columns = illegal.any(dim=1).tolist()
        self._illegal_bins = illegal[:, : config.n_bins].any(dim=1).tolist()

    @staticmethod
    def _build_map_encoder(config: TokenModelConfig, spaces: Spaces) -> MapEncoder | None:
        if not config.map_kinds:
            return None
        if len(spaces.context_shape) != 2:
            raise ValueError(
                f"model.map_kinds {config.map_kinds} needs data whose episodes have maps (height, "
                f"width) as contexts; this data's contexts have shape {spaces.context_shape}"
            )
        height, width = spaces.context_shape
        return MapEncoder(config.map_kinds, height, width, config.width)

    def condition(self, goal: Tensor | None, context: Tensor | None) -> Condition:
        """What the network is told of goals (batch, O) and maps (batch, height, width)."""
        tokens = seen = None
        if self.wants_goal:
            if goal is None:
                raise ValueError("this model needs a goal (model.goal final); got none")
            tokens = self.tokens.encode_observations(goal)[:, list(self.goal_dims)]
        if self.config.map_kinds and context is None:
            raise ValueError(
                "this model needs the episode's map (model.map_kinds): the context of its "
                "batch or history; got none"
            )
        if self.map_encoder is not None and context is not None:
            seen = self.map_encoder(context)
        return Condition(tokens, seen)

    @property
    def neglected(self) -> int | None:
        """The column that no token attends to, if there is one."""
        return self.tokens.return_column if self.config.hide_returns else None

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        config, fitted = self.config, copy.deepcopy(self.tokens)
        fitted.fit(with_terminal_reward(dataset, config.terminal_reward, config.terminal_amount))
        digest = fitted.tokenizer.digest()
        if bool(self.trained) and digest != int(self.bins_digest):
            raise ValueError(
                "the tokenizer would be fitted on other data than the model was trained on, and "
                "every token would change its meaning; build a new model for this data, or train "
                "on without fitting again"
            )
        self.tokens.load_state_dict(fitted.state_dict())
        self.bins_digest.fill_(digest)

    def after_step(self) -> None:
        """Remember that the weights depend on these bins."""
        self.trained.fill_(True)

    def loss(
        self, batch: Trajectory, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted mean cross entropy over the known tokens of windows, in nats per token."""
        targets, weight = self.targets(batch)
        inputs = targets
        if self.config.hidden_share:
            shape = (*targets.shape[:2], self.tokens.action_start)
            uniform = torch.rand(shape, generator=generator, device=targets.device)
            hide = uniform < self.config.hidden_share
            inputs = targets.clone()
            inputs[..., : self.tokens.action_start].masked_fill_(hide, self.tokens.hidden)
            weight[..., : self.tokens.action_start] *= ~hide
        condition = self.condition(batch.goal, batch.context)
        # column by column, as the networks leave them: nothing is copied
        logits = self._mask(self.predict_columns(inputs, condition))
        entropy = F.cross_entropy(
            logits.flatten(0, 2).float(), targets.permute(2, 0, 1).flatten(), reduction="none"
        )
        entropy = entropy.view(logits.shape[:3]).permute(1, 2, 0)
        total = weight.sum().clamp(min=1)
        loss = (entropy * weight).sum() / total
        parts = self._parts(entropy.detach(), weight)
        return loss, parts

    def targets(self, batch: Trajectory) -> tuple[Tensor, Tensor]:
        """Tokens (B, H, columns) and the weights of their losses, 0 where nothing is known."""
        layout = self.tokens
        self._check_numbers("the batch", batch.observations)
        self._check_numbers("the batch's actions", batch.actions)
        tokens = self.tokens.encode(batch)
        if bool((tokens == UNKNOWN).any()):
            raise ValueError(
                "this model has reward or reward-to-go tokens, but the batch has none; use the "
                "view of its own settings (config.view(dataset))"
            )
        weight = batch.observations.new_ones(tokens.shape)
        actions = slice(layout.action_start, layout.action_end)
        weight[..., actions] = self.config.action_weight
        if batch.observation_mask is not None:
            weight[..., : layout.action_start] *= batch.observation_mask[..., None]
        if batch.action_mask is not None:
            weight[..., layout.action_start :] *= batch.action_mask[..., None]
        if self.config.stop_token and batch.terminated is not None:
            tokens[..., 0].masked_fill_(batch.terminated, layout.stop)
            weight[..., 1 : layout.action_start] *= ~batch.terminated[..., None]
        return tokens, weight

    def _parts(self, entropy: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Mean cross entropy of observations, of actions and of the rest."""
        layout = self.tokens
        borders = {"observation": layout.action_start, "action": layout.action_end}
        parts, first = {}, 0
        for name, end in {**borders, "outcome": layout.columns}.items():
            if end > first:
                part = slice(first, end)
                total = (entropy[..., part] * weight[..., part]).sum()
                parts[name] = total / weight[..., part].sum().clamp(min=1)
            first = end
        return parts

    def _mask(self, logits: Tensor) -> Tensor:
        """-inf for tokens that a column does not have; logits (columns, B, H, outputs)."""
        if not any(self._illegal_columns):
            return logits
        # added, not filled in: the gradient passes as it is, and is 0 there by itself
        bars = logits.new_zeros(self.illegal.shape).masked_fill_(self.illegal, -torch.inf)
        return logits + bars[:, None, None]

    def outputs_of(self, column: int) -> int:
        """V, or V + 1 where an episode can end."""
        return self.illegal.shape[1] if column == 0 else self.config.n_bins

    def column_logits(self, logits: Tensor, column: int) -> Tensor:
        """A column's outputs (..., ``outputs_of(column)``) with -inf for bins it does not have."""
        if not self._illegal_bins[column]:
            return logits
        return logits.masked_fill(self.illegal[column, : logits.shape[-1]], -torch.inf)

    @torch.no_grad()
    def begin(
        self,
        history: Trajectory | None,
        observation: Tensor,
        goal: Tensor | None = None,
        *,
        cache: bool = True,
        crop: int = 0,
        expected: int = 0,
    ) -> SequenceState:
        self._check_bins()
        self._check_known(history, observation, goal)
        if self.training and self.config.dropout:
            raise ValueError(
                "this model is in training mode, so that dropout would disturb what it predicts; "
                "call model.eval() first"
            )
        device = self.tokens.tokenizer.edges.device
        if goal is not None and not self.wants_goal:
            raise ValueError("this model wants no goal (model.goal none); got one")
        context = None if history is None else history.context
        condition = self.condition(*(None if x is None else x.to(device) for x in (goal, context)))
        known = [self.tokens.encode_observations(observation.to(device))]
        if history is not None and history.horizon:
            if crop:
                history = history.rows_from(max(history.horizon - (crop - 1), 0))
            if history.horizon >= self.window and not self.rolls:
                raise ValueError(
                    f"sequence longer than the context: {history.horizon} past transitions and "
                    f"the present one; this model was trained on windows of {self.window}"
                )
            known.insert(0, self.tokens.encode(history.to(device)).flatten(1))
        state = self._new_state(len(observation), condition, cache, crop, expected)
        state.load_prefix(torch.cat(known, dim=1), self.neglected)
        return state

    def _check_known(
        self, history: Trajectory | None, observation: Tensor, goal: Tensor | None
    ) -> None:
        """Refuse what would be planned from silently: other batches, numbers that are none."""
        if observation.ndim != 2:
            raise ValueError(
                f"observations are (batch, {self.spaces.observation_dim}); got shape "
                f"{tuple(observation.shape)}"
            )
        self._check_numbers("the observation", observation, may_be_hidden=True)
        if goal is not None:
            self._check_numbers("the goal", goal, may_be_hidden=True)
        sizes = {"goal": goal, "history": None if history is None else history.observations}
        for name, given in sizes.items():
            if given is not None and len(given) != len(observation):
                raise ValueError(
                    f"{len(observation)} observations, but a {name} of {len(given)} environments; "
                    "give one for each"
                )
        if history is not None:
            self._check_numbers("the history", history.observations, may_be_hidden=True)
            self._check_numbers("the history's actions", history.actions)

    def _check_numbers(self, what: str, values: Tensor, *, may_be_hidden: bool = False) -> None:
        """Refuse infinities, and NaN where nothing can be hidden from this model."""
        may_be_hidden = may_be_hidden and self.config.hidden_share > 0
        wrong = values.isinf() if may_be_hidden else ~values.isfinite()
        if bool(wrong.any()):
            raise ValueError(
                f"{what} has values that are not finite (NaN or infinity). NaN marks a hidden "
                "dimension of an observation, for models trained with model.hidden_share above 0"
            )

    def _check_bins(self) -> None:
        tokenizer = self.tokens.tokenizer
        if not bool(tokenizer.fitted):
            raise ValueError("this model's tokenizer has not been fitted; call fit_statistics")
        if tokenizer.digest() != int(self.bins_digest):
            raise ValueError(
                "this model's tokenizer was fitted on other data than its weights were trained "
                "on: its bins are not those recorded with the weights. Load both from one "
                "checkpoint."
            )

    def predict_table(self, table: Tensor, condition: Condition = UNCONDITIONED) -> Tensor:
        """Outputs (B, H, columns, V or V + 1) for each token of a table, given those before it."""
        return self.predict_columns(table, condition).permute(1, 2, 0, 3)

    @abstractmethod
    def predict_columns(self, table: Tensor, condition: Condition = UNCONDITIONED) -> Tensor:
        """``predict_table``'s outputs as the network leaves them: (columns, B, H, V or V + 1)."""

    @abstractmethod
    def _new_state(
        self, batch: int, condition: Condition, cache: bool, crop: int, expected: int
    ) -> SequenceState:
        """A state that has seen nothing but its condition."""
