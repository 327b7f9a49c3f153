"""The Trajectory Transformer: every dimension of a trajectory is a token of one GPT.

A window of T transitions with D columns is a sequence of T D tokens; the network predicts each
from all before it (thesis Section 4.3, Appendix B.1; Janner et al. 2021, arXiv 2106.02039)::

    inputs    [begin] [goal ...]  s_0 ... a_0 ... r_0 R_0  s_1 ...
    outputs                  s_0 ... a_0 ... r_0 R_0  s_1  ...

A goal state stands before everything else ("anti-causal conditioning"), so the causal mask stays as
it is. Every column has token embeddings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forethought.models.token_config import TokenModelConfig
from forethought.models.token_model import TokenTrajectoryModel
from forethought.models.token_state import UNCONDITIONED, Condition, SequenceState
from forethought.nn.embeddings import init_along_curves
from forethought.nn.gpt import GPT
from forethought.registry import models
from forethought.types import Spaces, Trajectory


@models.register("transformer")
@dataclass(frozen=True, kw_only=True)
class TransformerConfig(TokenModelConfig):
    """Settings of ``TrajectoryTransformer``."""

    head: Literal["shared", "per_column"] = "per_column"
    """one output layer for all columns (thesis B.1) or one for each (released code)"""

    def build(self, spaces: Spaces) -> TrajectoryTransformer:
        return TrajectoryTransformer(self, spaces)


class TokenNetwork(nn.Module):
    """Tables (batch, rows, columns) of tokens -> (columns, batch, rows, outputs).

    columns, goal_columns: of a transition, and of the goal put in front (0: none)
    vocabulary: tokens of a column, special ones included;  outputs: tokens that can be predicted
    hidden_column: no token attends to it
    """

    hidden: Tensor

    def __init__(
        self,
        config: TransformerConfig,
        *,
        columns: int,
        goal_columns: int,
        vocabulary: int,
        outputs: int,
        hidden_column: int | None,
    ) -> None:
        super().__init__()
        self.columns, self.vocabulary, self.hidden_column = columns, vocabulary, hidden_column
        self.lead = 1 + goal_columns  # inputs before the first token
        self.begin = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.embedding = nn.Embedding((columns + goal_columns) * vocabulary, config.width)
        init_along_curves(self.embedding.weight, vocabulary, std=0.02)
        self.gpt = GPT(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            positions=self.lead + config.window * columns - 1,
            position_kind=config.positions,
            band=config.band * columns,
            dropout=config.dropout,
            dropout_at=config.dropout_at,
        )
        heads = columns if config.head == "per_column" else 1
        self.head = nn.Parameter(0.02 * torch.randn(heads, outputs, config.width))

    def forward(self, table: Tensor, condition: Condition) -> Tensor:
        _, rows, columns = table.shape
        inputs = self.inputs(table.flatten(1)[:, :-1], condition)
        outputs = self.gpt(inputs, self.hidden_inputs(inputs.shape[1]))
        outputs = outputs[:, self.lead - 1 :].unflatten(1, (rows, columns))
        return torch.einsum("bhdw,dvw->dbhv", outputs, self.head.expand(columns, -1, -1))

    def attention(self, table: Tensor, condition: Condition) -> Tensor:
        """(depth, batch, heads, rows * columns, inputs): what each token's prediction attends to;
        the first ``lead`` inputs come before the first token."""
        inputs = self.inputs(table.flatten(1)[:, :-1], condition)
        tables = self.gpt.attention(inputs, self.hidden_inputs(inputs.shape[1]))
        return tables[..., self.lead - 1 :, :]

    def inputs(self, tokens: Tensor, condition: Condition) -> Tensor:
        """(batch, lead + n, width) for tokens (batch, n) from the first column on."""
        after = self.embed(tokens, 0, condition.map)
        return torch.cat([self.lead_in(len(tokens), condition), after], dim=1)

    def lead_in(self, batch: int, condition: Condition) -> Tensor:
        """(batch, lead, width): the begin vector and the goal's tokens."""
        begin = self.begin.expand(batch, -1, -1)
        if condition.map is not None:
            begin = begin + condition.map[:, None]
        if condition.goal is None:
            return begin
        goal = self.embed(condition.goal, self.columns, condition.map)
        return torch.cat([begin, goal], dim=1)

    def embed(self, tokens: Tensor, first_column: int, shift: Tensor | None = None) -> Tensor:
        """(..., n, width) for tokens (..., n), the first of them of ``first_column``.

        shift: (batch, width) added for every token, batch being the first axis
        """
        if tokens.shape[-1] == 1:  # at every step of a search
            embedded = self.embedding(tokens + first_column * self.vocabulary)
        else:
            columns = torch.arange(tokens.shape[-1], device=tokens.device) + first_column
            if first_column < self.columns:
                columns = columns % self.columns
            embedded = self.embedding(tokens + columns * self.vocabulary)
        if shift is None:
            return embedded
        return embedded + shift.view(len(shift), *[1] * (embedded.ndim - 2), -1)

    def logits(self, outputs: Tensor, column: int, count: int) -> Tensor:
        """(..., count) of a column's token from the network's output before it."""
        return F.linear(outputs, self.head[column if len(self.head) > 1 else 0, :count])

    def hidden_inputs(self, count: int) -> Tensor | None:
        """(count,) bool: which of the first inputs none attends to."""
        if self.hidden_column is None:
            return None
        places = torch.arange(count, device=self.head.device) - self.lead
        return (places >= 0) & (places % self.columns == self.hidden_column)


class TrajectoryTransformer(TokenTrajectoryModel):
    """One GPT over all dimensions of all transitions.

    Differs from the thesis: whatever the settings say. A learned begin vector stands in front, so
    that the first token is predicted too.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.network = TokenNetwork(
            config,
            columns=self.tokens.columns,
            goal_columns=len(self.goal_dims),
            vocabulary=config.n_bins + 2,
            outputs=config.n_bins + int(config.stop_token),
            hidden_column=self.neglected,
        )

    def predict_columns(self, table: Tensor, condition: Condition = UNCONDITIONED) -> Tensor:
        return self.network(table, condition)

    @torch.no_grad()
    def attention(self, batch: Trajectory) -> Tensor:
        """(depth, B, heads, rows * columns, rows * columns - 1): the weight that the prediction of
        each token puts on each token before it; the rest is on what stands before the first."""
        tokens = self.targets(batch)[0]
        return self.network.attention(tokens, self.condition(batch.goal, batch.context))[
            ..., self.network.lead :
        ]

    def _new_state(
        self, batch: int, condition: Condition, cache: bool, crop: int, expected: int
    ) -> FlatState:
        return FlatState(
            self,
            batch,
            condition=condition,
            cache=cache,
            crop=crop,
            expected=expected,
            window=0 if self.rolls else self.window,
        )


class FlatState(SequenceState):
    """Beams of a ``TrajectoryTransformer``."""

    def __init__(
        self,
        model: TrajectoryTransformer,
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
            expected=expected,
        )
        self._model, self._network = model, model.network
        self._pending: list[Tensor] = []  # (batch, beams, n) each, not seen by the network
        self._output: Tensor | None = None  # (batch, beams, width) after the last token seen

    def _note(self, tokens: Tensor) -> None:
        self._pending.append(tokens)

    def _flush(self) -> None:
        if self._output is not None and not self._pending:
            return
        if self.cache is None:
            self._pending, self._output = [], self.tokens.new_zeros(0)  # all is done in _predict
            return
        self.network_calls += 1
        first = (self.count - sum(p.shape[-1] for p in self._pending)) % self.layout.columns
        if not self._sealed:
            self._extend(first)
        else:
            assert len(self._pending) == 1, "beams take in one token at a time"
            tokens = self._pending[0]
            x = self._network.embed(tokens, first, self.condition.map)[:, :, 0]
            stored = first != self._network.hidden_column
            self._output = self.gpt.step(x, self.cache, stored)
        self._pending = []

    def _extend(self, first: int) -> None:
        """Hand over tokens of the prefix, and before the first of them what leads in."""
        parts, batch = [], len(self.tokens)
        assert self.cache is not None, "without a cache nothing is extended"
        start = self.cache.length
        if not start:
            parts.append(self._network.lead_in(batch, self.condition))
        if self._pending:
            pending = torch.cat(self._pending, dim=2)[:, 0]
            parts.append(self._network.embed(pending, first, self.condition.map))
        x = torch.cat(parts, dim=1)
        hidden = self._network.hidden_inputs(start + x.shape[1])
        stored = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
        if hidden is not None:
            stored = ~hidden[start:]
        self._output = self.gpt.extend(x, self.cache, stored)[:, -1:]

    def _predict(self) -> Tensor:
        if self.cache is None:
            self.network_calls += 1
            self._output = self._whole()[0]
        assert self._output is not None, "the network has seen the prefix at least"
        column = self.column
        outputs = self._network.logits(self._output, column, self._model.outputs_of(column))
        return self._model.column_logits(outputs, column)

    def _whole(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """Last outputs (batch, beams, width) of a pass over all kept tokens, keys and values, and
        which of the inputs are stored."""
        kept, network = self.kept(), self._network
        batch, beams, _ = kept.shape
        inputs = network.inputs(kept.flatten(0, 1), self.condition.repeat(beams))
        hidden = network.hidden_inputs(inputs.shape[1])
        outputs, cached = self.gpt.prefill(inputs, hidden)
        stored = torch.ones(inputs.shape[1], dtype=torch.bool, device=inputs.device)
        last = outputs[:, -1].unflatten(0, (batch, beams))
        return last, cached, stored if hidden is None else ~hidden

    def _restart(self) -> None:
        self._pending = []
        if self.cache is None:
            return
        self.network_calls += 1
        self._output, cached, stored = self._whole()
        self.cache.restart(cached, stored)

    def _select(self, env: Tensor, indices: Tensor) -> None:
        self._pending = [tokens[env, indices] for tokens in self._pending]
        if self._output is not None and self._output.ndim == 3:
            self._output = self._output[env, indices]
