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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.models.token_model import TokenModelConfig, TokenTrajectoryModel
from forethought.models.token_state import UNCONDITIONED, Condition, SequenceState
from forethought.nn.gpt import GPT
from forethought.registry import models
from forethought.types import Spaces


@models.register("factored-transformer")
@dataclass(frozen=True, kw_only=True)
class FactoredTransformerConfig(TokenModelConfig):
    """Settings of ``FactoredTransformer``."""

    head_width: int = 128
    head_depth: int = 2
    """layers of a column's perceptron before its logits"""

    def build(self, spaces: Spaces) -> FactoredTransformer:
        return FactoredTransformer(self, spaces)


class FactoredNetwork(nn.Module):
    """Tables (batch, rows, columns) of tokens -> (columns, batch, rows, outputs).

    The head's tensors are (columns, batch * rows, inner): what one column's perceptron reads lies
    together. Arguments as in ``models.transformer.TokenNetwork``.
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
    ) -> None:
        super().__init__()
        width, inner = config.width, config.head_width
        self.columns, self.vocabulary = columns, vocabulary
        seen = [column for column in range(columns) if column != hidden_column]
        self.register_buffer("seen", torch.tensor(seen), persistent=False)
        self.begin = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.embedding = nn.Embedding((columns + goal_columns) * vocabulary, width)
        self.part_embedding = nn.Embedding(columns * vocabulary, inner)
        for embedding in (self.embedding, self.part_embedding):
            nn.init.normal_(embedding.weight, std=0.1)
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

    def forward(self, table: Tensor, condition: Condition) -> Tensor:
        lead_in = self.lead_in(len(table), condition)
        inputs = torch.cat([lead_in, self.summarize(table[:, :-1], condition.map)], dim=1)
        h = self._running_sums(table, self.condition(self.gpt(inputs)))
        for layer, bias in zip(self.layers, self.biases, strict=True):
            product = torch.baddbmm(bias[:, None], _normalized(h), layer.transpose(1, 2))
            h = h + F.gelu(product)
        outputs = torch.bmm(_normalized(h), self.head.transpose(1, 2))
        return outputs.unflatten(1, table.shape[:2])

    def _running_sums(self, table: Tensor, conditions: Tensor) -> Tensor:
        """(columns, batch * rows, inner): conditions (batch, rows, inner) plus columns before."""
        tokens = table.flatten(0, 1).T[:-1]
        places = torch.arange(self.columns - 1, device=table.device)[:, None]
        parts = self.part_embedding(tokens + places * self.vocabulary)
        # not cumsum: along the outermost axis it and its gradient take five times as long
        sums = itertools.accumulate(parts.unbind(), torch.add, initial=conditions.flatten(0, 1))
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

    def summarize(self, rows: Tensor, shift: Tensor | None = None) -> Tensor:
        """(batch, n, width) of whole transitions (batch, n, columns), plus shift (batch, width)."""
        embedded = self.embedding(rows[..., self.seen] + self.seen * self.vocabulary)
        total = embedded.sum(dim=-2)
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
        )

    def predict_columns(self, table: Tensor, condition: Condition = UNCONDITIONED) -> Tensor:
        return self.network(table, condition)

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
            window=0 if self._rolls else self.window,
        )


class FactoredState(SequenceState):
    """Beams of a ``FactoredTransformer``."""

    def __init__(
        self,
        model: FactoredTransformer,
        batch: int,
        *,
        condition: Condition,
        cache: bool,
        crop: int,
        expected: int,
        window: int,
    ) -> None:
        super().__init__(
            model.tokens,
            model.network.gpt,
            batch,
            condition=condition,
            window=window,
            cache=cache,
            crop=crop,
            expected=-(-expected // model.tokens.columns) + 1,
        )
        self._model, self._network = model, model.network
        self._sum: Tensor | None = None  # (batch, beams, inner): h of the next column
        self._seen = 0  # whole transitions that the network has seen
        self._parts: list[Tensor] = []  # tokens of this transition not yet in the sum

    def _note(self, tokens: Tensor) -> None:
        self._parts.append(tokens)

    def _flush(self) -> None:
        columns = self.layout.columns
        whole = self.count // columns  # the condition must cover these
        if self.cache is None:
            self._parts, self._sum = [], None
            return
        if self._sum is None or whole > self._seen:
            self.network_calls += 1
            self._advance(whole)
            self._parts = []
            if self.column:
                self._add(self.latest(self.column), 0)
        elif self._parts:
            tokens = torch.cat(self._parts, dim=-1)
            self._add(tokens, self.column - tokens.shape[-1])
            self._parts = []

    def _advance(self, whole: int) -> None:
        """Hand the network the transitions from ``_seen`` to ``whole``; begin a new sum."""
        assert self.cache is not None, "without a cache nothing is advanced"
        columns, network = self.layout.columns, self._network
        if not self._sealed:
            parts = [] if self.cache.length else [network.lead_in(len(self.tokens), self.condition)]
            if whole > self._seen:
                rows = self.tokens[:, 0, self._seen * columns : whole * columns]
                rows = rows.unflatten(1, (-1, columns))
                parts.append(network.summarize(rows, self.condition.map))
            x = torch.cat(parts, dim=1)
            stored = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
            outputs = self.gpt.extend(x, self.cache, stored)[:, -1:]
        else:
            latest = self.latest(columns + self.column)[..., :columns]
            x = network.summarize(latest, self.condition.map)
            outputs = self.gpt.step(x, self.cache)
        self._sum, self._seen = network.condition(outputs), whole

    def _add(self, tokens: Tensor, first: int) -> None:
        """Add tokens (batch, beams, n) of the columns from ``first`` on to the sum."""
        assert self._sum is not None, "a sum begins with its condition"
        parts = self._network.embed_parts(tokens, first)
        self._sum = self._sum + (parts[:, :, 0] if tokens.shape[2] == 1 else parts.sum(dim=2))

    def _predict(self) -> Tensor:
        if self.cache is None:
            self.network_calls += 1
            self._sum = self._network.condition(self._whole()[0])
            if self.column:
                self._add(self.latest(self.column), 0)
        assert self._sum is not None, "the network has seen the prefix at least"
        column = self.column
        outputs = self._network.logits(self._sum, column, self._model.outputs_of(column))
        return self._model.column_logits(outputs, column)

    def _whole(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Last outputs (batch, beams, width) of a pass over all kept transitions; keys, values."""
        kept, columns = self.kept(), self.layout.columns
        batch, beams, n = kept.shape
        rows = kept[..., : n - self.column].flatten(0, 1).unflatten(1, (-1, columns))
        condition, network = self.condition.repeat(beams), self._network
        lead_in = network.lead_in(batch * beams, condition)
        x = torch.cat([lead_in, network.summarize(rows, condition.map)], dim=1)
        outputs, cached = self.gpt.prefill(x)
        return outputs[:, -1].unflatten(0, (batch, beams)), cached

    def _restart(self) -> None:
        self._parts = []
        if self.cache is None:
            return
        self.network_calls += 1
        outputs, cached = self._whole()
        stored = torch.ones(cached[0][0].shape[2], dtype=torch.bool, device=outputs.device)
        self.cache.restart(cached, stored)
        self._sum, self._seen = self._network.condition(outputs), self.count // self.layout.columns

    def _select(self, env: Tensor, indices: Tensor) -> None:
        self._parts = [tokens[env, indices] for tokens in self._parts]
        if self._sum is not None:
            self._sum = self._sum[env, indices]
