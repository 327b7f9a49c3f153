"""Trajectories as tables of tokens: one row per transition, one column per dimension.

Thesis Section 4.3: a transition (s_t, a_t, r_t, R_t) with N state and M action dimensions becomes
N + M + 2 tokens in this order, each from the vocabulary of its own column. Reward and reward-to-go
are options; the reward-to-go either contains the reward beside it (thesis) or starts with the next
one (released code). Two special tokens follow the V bins: V stands for "the episode has ended here"
and V + 1 for "hidden".
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from forethought.data.episodes import EpisodeDataset
from forethought.data.tokenizers import Reconstruction, Tokenizer, TokenizerKind
from forethought.types import Spaces, Trajectory

ReturnToken = Literal["none", "with_reward", "without_reward"]
TerminalReward = Literal["keep", "replace", "add"]

UNKNOWN = -1
"""stands in a table where a trajectory has no number; to be filled by the model"""


class TrajectoryTokens(nn.Module):
    """Encodes and decodes tables (..., rows, columns); knows what the columns are.

    reward: whether there is a reward column;  returns: which reward-to-go there is, if any
    discount: of the reward-to-go
    """

    def __init__(
        self,
        spaces: Spaces,
        *,
        n_bins: int,
        kind: TokenizerKind,
        reconstruct: Reconstruction,
        reward: bool,
        returns: ReturnToken,
        discount: float,
    ) -> None:
        super().__init__()
        if spaces.n_actions is not None and spaces.n_actions > n_bins:
            raise ValueError(
                f"{spaces.n_actions} discrete actions need as many tokens; model.n_bins is {n_bins}"
            )
        if not 0 < discount <= 1:
            raise ValueError(f"model.discount is {discount}; it must lie in (0, 1]")
        self.spaces, self.n_bins, self.discount = spaces, n_bins, discount
        self.returns: ReturnToken = returns
        self.action_start = spaces.observation_dim
        self.action_end = self.action_start + spaces.action_dim
        self.reward_column = self.action_end if reward else None
        self.return_column = None if returns == "none" else self.action_end + int(reward)
        self.columns = self.action_end + int(reward) + (returns != "none")
        self.tokenizer = Tokenizer(self.columns, n_bins, kind, reconstruct)
        self.stop, self.hidden = n_bins, n_bins + 1

    def describe(self, column: int) -> str:
        """A column's name for error messages."""
        if column < self.action_start:
            return f"observation dimension {column}"
        if column < self.action_end:
            return f"action dimension {column - self.action_start}"
        return "reward" if column == self.reward_column else "reward-to-go"

    def fit(self, dataset: EpisodeDataset) -> None:
        """Place the bins of every column over the data's rows (rewards as in ``dataset``)."""
        self._check_spaces(dataset.spaces)
        for column in range(self.action_start):
            self.tokenizer.fit_column(column, dataset.observations[:, column])
        ends, actions = dataset.starts[1:] - 1, dataset.actions_taken
        for index in range(self.spaces.action_dim):
            if self.spaces.n_actions is not None:
                self.tokenizer.fit_indices(self.action_start + index, self.spaces.n_actions)
            else:
                self.tokenizer.fit_column(self.action_start + index, actions[:, index])
        if self.reward_column is not None:
            self.tokenizer.fit_column(self.reward_column, np.delete(dataset.rewards, ends))
        if self.return_column is not None:
            returns = dataset.returns_to_go(self.discount)
            if self.returns == "without_reward":
                returns = (returns - dataset.rewards) / self.discount
            self.tokenizer.fit_column(self.return_column, np.delete(returns, ends))

    def _check_spaces(self, spaces: Spaces) -> None:
        advice = "build it for the data's spaces (config.build(dataset.spaces))"
        if spaces.n_actions != self.spaces.n_actions:
            theirs, ours = (
                "continuous" if each.n_actions is None else f"{each.n_actions} discrete"
                for each in (spaces, self.spaces)
            )
            raise ValueError(
                f"the data has {theirs} actions, but this model was built for {ours} ones; "
                f"{advice}, and give discrete data n_actions in its metadata"
            )
        for what in ("observation_dim", "action_dim"):
            given, wanted = getattr(spaces, what), getattr(self.spaces, what)
            if given != wanted:
                raise ValueError(
                    f"the data has {what} {given}, but this model was built for {wanted}; {advice}"
                )

    def encode(self, trajectory: Trajectory) -> Tensor:
        """(..., horizon, columns) int64; NaN observations become ``hidden``, rewards and
        returns-to-go that are missing ``UNKNOWN``."""
        observations = self._check_width(trajectory.observations)
        missing = observations.new_full((*observations.shape[:-1], 1), torch.nan)
        parts = [observations, self._check_choices(trajectory.actions)]
        if self.reward_column is not None:
            rewards = trajectory.rewards
            parts.append(missing if rewards is None else rewards[..., None])
        if self.return_column is not None:
            parts.append(self._returns(trajectory, missing))
        table = torch.cat([part.to(observations.dtype) for part in parts], dim=-1)
        tokens = self.tokenizer.encode(table)
        special = torch.full_like(tokens, UNKNOWN)
        special[..., : self.action_start] = self.hidden
        return torch.where(table.isnan(), special, tokens)

    def _returns(self, trajectory: Trajectory, missing: Tensor) -> Tensor:
        returns, rewards = trajectory.returns_to_go, trajectory.rewards
        if returns is None:
            return missing
        if self.returns == "with_reward":
            return returns[..., None]
        return missing if rewards is None else ((returns - rewards) / self.discount)[..., None]

    def _check_choices(self, actions: Tensor) -> Tensor:
        """The actions; ValueError if they are not what this model's actions are."""
        if actions.shape[-1] != self.spaces.action_dim:
            raise ValueError(
                f"actions are {actions.shape[-1]} wide; this model was built for "
                f"{self.spaces.action_dim}"
            )
        count = self.spaces.n_actions
        if count is None or not actions.numel():
            return actions
        values = actions.to(torch.float64)
        if bool((values != values.round()).any()) or values.min() < 0 or values.max() >= count:
            raise ValueError(
                f"this model was built for {count} discrete actions, indices 0 to {count - 1}; got "
                f"values from {float(values.min()):g} to {float(values.max()):g}. Continuous "
                "actions need a model built for continuous spaces."
            )
        return actions

    def encode_observations(self, observations: Tensor) -> Tensor:
        """(..., O) int64; NaN becomes ``hidden``."""
        tokens = self.tokenizer.encode(self._check_width(observations))
        return tokens.masked_fill(observations.isnan(), self.hidden)

    def _check_width(self, observations: Tensor) -> Tensor:
        """The observations; ValueError if they are not as wide as this model's."""
        if observations.shape[-1] != self.action_start:
            raise ValueError(
                f"observations are {observations.shape[-1]} wide; this model was built for "
                f"{self.action_start}"
            )
        return observations

    def decode(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Numbers (..., k) for tokens (..., k) of the columns from ``first`` on; special tokens
        decode as NaN."""
        numbers = self.tokenizer.decode(tokens.clamp(0, self.n_bins - 1), first)
        return numbers.masked_fill(tokens >= self.n_bins, torch.nan)

    def column_values(self, column: int) -> Tensor:
        """(V,) what the tokens of a column stand for."""
        return self.tokenizer.values[column]

    def legal(self, column: int) -> int:
        """How many tokens a column uses: all bins, or as many as there are discrete actions."""
        discrete = self.spaces.n_actions
        if discrete is not None and self.action_start <= column < self.action_end:
            return discrete
        return self.n_bins

    def check_tokens(self, tokens: Tensor, column: int) -> None:
        """Raise ValueError unless all are bins of the column, or special tokens."""
        # NumPy is faster for few numbers
        found: Any = tokens.numpy() if tokens.device.type == "cpu" else tokens
        legal = self.legal(column)
        unknown = (found < 0) | (found > self.hidden)
        if legal < self.n_bins:
            unknown = unknown | ((found >= legal) & (found < self.n_bins))
        if bool(unknown.any()):
            raise ValueError(
                f"unknown token for {self.describe(column)}: got {int(found[unknown][0])}; known "
                f"are 0 to {legal - 1}, {self.stop} (stop) and {self.hidden} (hidden)"
            )


def with_terminal_reward(
    dataset: EpisodeDataset, how: TerminalReward, amount: float
) -> EpisodeDataset:
    """The data with ``amount`` in place of, or added to, the last reward of terminated episodes."""
    if how == "keep":
        return dataset
    rewards = np.array(dataset.rewards)
    last = dataset.starts[1:][dataset.terminated] - 2
    rewards[last] = amount if how == "replace" else rewards[last] + amount
    return EpisodeDataset(
        dataset.observations,
        dataset.actions,
        rewards,
        dataset.starts,
        dataset.terminated,
        contexts=dataset.contexts,
        metadata=dataset.metadata,
    )
