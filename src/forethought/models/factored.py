"""The factored Trajectory Transformer: attention over transitions, a small head over dimensions.

The flat model's tokens all attend to all; one transition of D dimensions costs D passes through the
whole network. Here a transition is one token of the GPT, and its dimensions are predicted one after
the other by a small network,

    c_t = GPT(e_0, ..., e_{t-1}),                 e_t = mix(sum_d embed_d(token_t^d))
    h_t^d = W c_t + sum_{j<d} embed'_j(token_t^j),
    P(token_t^d | ...) = softmax(head_d(h_t^d)),

which is the same autoregressive factorization, and exact: no independence is assumed. The running
sum costs one addition a token, as in NADE (Uria et al. 2016, arXiv 1605.02226); head_d is a
perceptron of the column's own. The thesis names efficient architectures as the way to faster
planning (Section 4.5); models of a transition as one token are common since, for example in
Q-Transformer's and TAP's successors, but this layout is our own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.models.factored_state import FactoredState
from forethought.models.token_config import TokenModelConfig
from forethought.models.token_model import TokenTrajectoryModel
from forethought.models.token_state import UNCONDITIONED, Condition
from forethought.nn.embeddings import init_along_curves
from forethought.nn.gpt import GPT
from forethought.nn.map_encoder import MapFeatures
from forethought.registry import models
from forethought.types import Spaces


@models.register("factored-transformer")
@dataclass(frozen=True, kw_only=True)
class FactoredTransformerConfig(TokenModelConfig):
    """Settings of ``FactoredTransformer``."""

    head_width: int = 128
    head_depth: int = 2
    """layers of a column's perceptron before its logits"""
    map_places: tuple[int, ...] = ()
    """with ``map_kinds``: the two dimensions of the observation that are a column and a row of the
    map; the network then sees the map, with the goal marked, as it is there, instead of one vector
    for the whole map"""
    map_channels: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map_places and (len(self.map_places) != 2 or not self.map_kinds):
            raise ValueError(
                f"model.map_places {self.map_places} must name two dimensions of the observation, "
                f"and needs maps (model.map_kinds is {self.map_kinds})"
            )

    def build(self, spaces: Spaces) -> FactoredTransformer:
        return FactoredTransformer(self, spaces)


class FactoredNetwork(nn.Module):
    """Tables (batch, rows, columns) of tokens -> (columns, batch, rows, outputs).

    The head's tensors are (columns, batch * rows, inner): what one column's perceptron reads lies
    together. Arguments as in ``models.transformer.TokenNetwork``; action_start: column from which
    on what is seen of the map at a transition (batch, rows, channels) counts for its own tokens.
    """

    seen: Tensor

    def __init__(
        self,
        config: FactoredTransformerConfig,
        *,
        columns: int,
        goal_columns: int,
        vocabulary: int,
        outputs: int,
        hidden_column: int | None,
        action_start: int,
    ) -> None:
        super().__init__()
        width, inner = config.width, config.head_width
        self.columns, self.vocabulary, self.action_start = columns, vocabulary, action_start
        seen = [column for column in range(columns) if column != hidden_column]
        self.register_buffer("seen", torch.tensor(seen), persistent=False)
        self.begin = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.embedding = nn.Embedding((columns + goal_columns) * vocabulary, width)
        self.part_embedding = nn.Embedding(columns * vocabulary, inner)
        for embedding in (self.embedding, self.part_embedding):
            init_along_curves(embedding.weight, vocabulary, std=0.1)
        self.mix = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.gpt = GPT(
            width=width,
            depth=config.depth,
            heads=config.heads,
            positions=config.window,
            position_kind=config.positions,
            band=config.band,
            dropout=config.dropout,
            dropout_at=config.dropout_at,
        )
        self.condition = nn.Linear(width, inner)
        sizes = [(columns, inner, inner)] * config.head_depth
        self.layers = nn.ParameterList(nn.Parameter(torch.randn(s) * inner**-0.5) for s in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(columns, inner)) for _ in sizes)
        self.head = nn.Parameter(0.02 * torch.randn(columns, outputs, inner))
        if config.map_places:
            self.see = nn.Linear(config.map_channels, width)
            self.look = nn.Linear(config.map_channels, inner)

    def forward(self, table: Tensor, condition: Condition, seen: Tensor | None = None) -> Tensor:
        lead_in = self.lead_in(len(table), condition)
        before = None if seen is None else seen[:, :-1]
        inputs = torch.cat([lead_in, self.summarize(table[:, :-1], condition.map, before)], dim=1)
        h = self._running_sums(table, self.condition(self.gpt(inputs)), seen)
        for layer, bias in zip(self.layers, self.biases, strict=True):
            product = torch.baddbmm(bias[:, None], _normalized(h), layer.transpose(1, 2))
            h = h + F.gelu(product)
        outputs = torch.bmm(_normalized(h), self.head.transpose(1, 2))
        return outputs.unflatten(1, table.shape[:2])

    def _running_sums(self, table: Tensor, conditions: Tensor, seen: Tensor | None) -> Tensor:
        """(columns, batch * rows, inner): conditions (batch, rows, inner) plus columns before."""
        tokens = table.flatten(0, 1).T[:-1]
        places = torch.arange(self.columns - 1, device=table.device)[:, None]
        parts = list(self.part_embedding(tokens + places * self.vocabulary).unbind())
        if seen is not None:
            last = self.action_start - 1
            parts[last] = parts[last] + self.look(seen).flatten(0, 1)
        # not cumsum: along the outermost axis it and its gradient take five times as long
        sums = itertools.accumulate(parts, torch.add, initial=conditions.flatten(0, 1))
        return torch.stack(list(sums))

    def lead_in(self, batch: int, condition: Condition) -> Tensor:
        """(batch, 1, width): what stands before the first transition, the goal included."""
        lead, goal = self.begin.expand(batch, -1, -1), condition.goal
        if condition.map is not None:
            lead = lead + condition.map[:, None]
        if goal is None:
            return lead
        places = torch.arange(goal.shape[1], device=goal.device) + self.columns
        goal_sum = self.embedding(goal + places * self.vocabulary).sum(dim=1, keepdim=True)
        return lead + goal_sum + self.mix(goal_sum)

    def summarize(
        self, rows: Tensor, shift: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """(batch, n, width) of whole transitions (batch, n, columns) and what is seen of the map at
        them (batch, n, channels), plus shift (batch, width)."""
        embedded = self.embedding(rows[..., self.seen] + self.seen * self.vocabulary)
        total = embedded.sum(dim=-2)
        if seen is not None:
            total = total + self.see(seen)
        summary = total + self.mix(total)
        return summary if shift is None else summary + shift[:, None]

    def embed_parts(self, tokens: Tensor, first: int) -> Tensor:
        """(..., n, inner) for tokens (..., n) of the columns from ``first`` on."""
        if tokens.shape[-1] == 1:
            return self.part_embedding(tokens + first * self.vocabulary)
        columns = torch.arange(first, first + tokens.shape[-1], device=tokens.device)
        return self.part_embedding(tokens + columns * self.vocabulary)

    def logits(self, h: Tensor, column: int, count: int) -> Tensor:
        """(..., count) of a column's token from the running sum (..., inner)."""
        one, zero = h.new_ones(h.shape[-1]), h.new_zeros(h.shape[-1])
        for layer, bias in zip(self.layers, self.biases, strict=True):
            h = h + F.gelu(F.linear(_normalized(h, one, zero), layer[column], bias[column]))
        return F.linear(_normalized(h, one, zero), self.head[column, :count])


def _normalized(h: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Without an affine part; the operator is faster, on a CPU, with one that does nothing."""
    return F.layer_norm(h, h.shape[-1:], scale, shift)


class FactoredTransformer(TokenTrajectoryModel):
    """A GPT over transitions and a small autoregressive head over their dimensions."""

    config: FactoredTransformerConfig

    def __init__(self, config: FactoredTransformerConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.network = FactoredNetwork(
            config,
            columns=self.tokens.columns,
            goal_columns=len(self.goal_dims),
            vocabulary=config.n_bins + 2,
            outputs=config.n_bins + int(config.stop_token),
            hidden_column=self.neglected,
            action_start=self.tokens.action_start,
        )
        self.map_features = None
        if any(not 0 <= place < spaces.observation_dim for place in config.map_places):
            raise ValueError(
                f"model.map_places {config.map_places}: observations have dimensions 0 to "
                f"{spaces.observation_dim - 1}"
            )
        if config.map_places:
            self.map_encoder = None  # no vector for the whole map
            height, width = spaces.context_shape
            self.map_features = MapFeatures(config.map_kinds, height, width, config.map_channels)

    def condition(self, goal: Tensor | None, context: Tensor | None) -> Condition:
        condition = super().condition(goal, context)
        if self.map_features is None or context is None:
            return condition
        marked = None
        if self.wants_goal and goal is not None:
            marked = self._cell(*goal[:, list(self.config.map_places)].unbind(dim=1))
        return replace(condition, cells=self.map_features(context, marked))

    def _cell(self, column: Tensor, row: Tensor) -> Tensor:
        """The numbers of the cells nearest to positions on the map."""
        height, width = self.spaces.context_shape
        column, row = column.round().long().clamp(0, width - 1), row.round().long()
        return row.clamp(0, height - 1) * width + column

    def seen_at(self, rows: Tensor, condition: Condition) -> Tensor | None:
        """(batch, ..., channels) of the map at transitions (batch, ..., columns), whose first
        columns are enough."""
        if condition.cells is None:
            return None
        last = self.config.n_bins - 1  # special tokens, which stand for no place, count as this
        cell = self._cell(
            *(
                self.tokens.column_values(d)[rows[..., d].clamp(max=last)]
                for d in self.config.map_places
            )
        )
        env = torch.arange(len(rows), device=rows.device)[:, None]
        return condition.cells[env, cell.flatten(1)].unflatten(1, cell.shape[1:])

    def predict_columns(self, table: Tensor, condition: Condition = UNCONDITIONED) -> Tensor:
        return self.network(table, condition, self.seen_at(table, condition))

    def _new_state(
        self, batch: int, condition: Condition, cache: bool, crop: int, expected: int
    ) -> FactoredState:
        return FactoredState(
            self,
            batch,
            condition=condition,
            cache=cache,
            crop=crop,
            expected=expected,
            window=0 if self.rolls else self.window,
        )
