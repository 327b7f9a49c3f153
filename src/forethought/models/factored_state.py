"""Beams of a factored Trajectory Transformer: whole transitions in the cache, a sum for each beam.

The network takes in a transition when the first token of the next one is asked for; until then its
tokens are added to the beam's running sum, from which the head predicts (``models/factored.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forethought.models.token_state import Condition, SequenceState

if TYPE_CHECKING:
    from forethought.models.factored import FactoredTransformer


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
                seen = self._model.seen_at(rows, self.condition)
                parts.append(network.summarize(rows, self.condition.map, seen))
            x = torch.cat(parts, dim=1)
            stored = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
            outputs = self.gpt.extend(x, self.cache, stored)[:, -1:]
        else:
            latest = self.latest(columns + self.column)[..., :columns]
            seen = self._model.seen_at(latest, self.condition)
            x = network.summarize(latest, self.condition.map, seen)
            outputs = self.gpt.step(x, self.cache)
        self._sum, self._seen = network.condition(outputs), whole

    def _add(self, tokens: Tensor, first: int) -> None:
        """Add tokens (batch, beams, n) of the columns from ``first`` to ``column`` to the sum."""
        assert self._sum is not None, "a sum begins with its condition"
        parts = self._network.embed_parts(tokens, first)
        self._sum = self._sum + (parts[:, :, 0] if tokens.shape[2] == 1 else parts.sum(dim=2))
        if self.condition.cells is not None and first < self.layout.action_start <= self.column:
            seen = self._model.seen_at(self.latest(self.column), self.condition)
            self._sum = self._sum + self._network.look(seen)

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
        rows = kept[..., : n - self.column].unflatten(2, (-1, columns))
        seen = self._model.seen_at(rows, self.condition)
        condition, network = self.condition.repeat(beams), self._network
        lead_in = network.lead_in(batch * beams, condition)
        seen = None if seen is None else seen.flatten(0, 1)
        summaries = network.summarize(rows.flatten(0, 1), condition.map, seen)
        x = torch.cat([lead_in, summaries], dim=1)
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
