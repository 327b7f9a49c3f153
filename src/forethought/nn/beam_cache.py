"""Keys and values of a beam search: one prefix for all beams, one continuation for each.

A row's attention reaches over three parts, scored apart and normalized together::

    prefix (batch)      what was given: computed once, one matrix product for all rows
    body   (parents)    what parents have in common with their children, read once for all of them
    tail   (rows)       what the children have added since they were split

Children of one parent share its body until beams are chosen (``select``), so that expanding every
beam copies nothing; choosing copies each body once and joins the tail to it. Where a parent has one
child, new tokens are written to the body in place. Once all beams descend from one ancestor, what
they have from it moves to the prefix. All rows of a search are at the same place.
"""

from __future__ import annotations

import bisect

import torch
from torch import Tensor

LONGEST_TAIL = 16  # tokens; longer ones join their bodies, which can grow and roll on


class BeamCache:
    """The cache of ``GPT.extend`` and ``GPT.step``.

    batch: environments;  suffix: tokens after the prefix that are expected (more are possible)
    band: attention's reach in tokens, 0 = all; what is out of reach is dropped at times
    like: device and dtype
    """

    def __init__(
        self,
        batch: int,
        *,
        depth: int,
        heads: int,
        head_width: int,
        suffix: int,
        band: int,
        like: Tensor,
    ) -> None:
        self.length = 0  # tokens seen, hidden and dropped ones too
        self._like, self._band = like, band
        self._heads, self._head_width, self._depth = heads, head_width, depth
        self._capacity = max(suffix, 1)
        self._prefix = [(self._empty(batch, 0), self._empty(batch, 0)) for _ in range(depth)]
        self._batch, self._parents, self._children = batch, 1, 1
        self._body: list[list[Tensor]] = []  # per block [keys, values] (B, heads, parents, cap, w)
        self._tail: list[list[Tensor]] = []
        self._prefix_places: list[int] = []
        self._body_places: list[int] = []
        self._tail_places: list[int] = []
        self._spare: Tensor | None = None
        # for each choice of beams: tokens that a body then had, and from which of the rows of that
        # time each of today's parents descends (B, parents)
        self._lineage: list[tuple[int, Tensor]] = []

    @property
    def rows(self) -> int:
        """Beams of each environment."""
        return self._parents * self._children

    @property
    def prefix_places(self) -> Tensor:
        """(n,) places of the prefix's stored tokens."""
        return torch.tensor(self._prefix_places, dtype=torch.int64)

    def prefix(self, block: int) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, heads, n, width) of the prefix."""
        return self._prefix[block]

    def extend_prefix(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Add tokens (batch, heads, n, width) to the prefix of a block."""
        assert not self._body and self.rows == 1, "the prefix is complete once beams have begun"
        old_keys, old_values = self._prefix[block]
        self._prefix[block] = (
            torch.cat([old_keys, keys], dim=2),
            torch.cat([old_values, values], dim=2),
        )

    def advance_prefix(self, count: int, places: Tensor) -> None:
        """Note that ``count`` tokens were added, those at ``places`` stored."""
        self.length += count
        self._prefix_places += places.tolist()

    def restart(self, cached: list[tuple[Tensor, Tensor]], stored: Tensor) -> None:
        """Replace everything by rows of their own, (batch * rows, heads, n, width) a block."""
        rows = len(cached[0][0]) // self._batch
        n, kept = len(stored), torch.nonzero(stored)[:, 0].tolist()
        empty = self._empty(self._batch, 0)
        self._prefix = [(empty, empty) for _ in cached]
        self._parents, self._children = rows, 1
        self._body, self._tail, self._spare = [], [], None
        self._prefix_places, self._body_places, self._tail_places = [], [], []
        self._lineage = []
        self._reserve_body(len(kept))
        for own, pair in zip(self._body, cached, strict=True):
            for buffer, new in zip(own, pair, strict=True):
                by_row = new[:, :, stored].unflatten(0, (self._batch, rows)).transpose(1, 2)
                buffer[..., : len(kept), :] = by_row
        self._body_places, self.length = kept, n

    def select(self, indices: Tensor) -> None:
        """Keep, copy or reorder rows: (batch, new rows) indices of old ones."""
        wanted = indices.shape[1]
        if not self._tail_places and wanted % self.rows == 0 and self._children == 1:
            times = wanted // self.rows
            order = torch.arange(self.rows, device=indices.device).repeat_interleave(times)
            if bool((indices == order).all()):
                self._children = times
                self._tail = []
                return
        self._gather(indices)

    def begin_step(self, oldest: int, stored: bool) -> None:
        """Prepare for one token a row that attends to places from ``oldest`` on."""
        self._stored = stored
        if len(self._tail_places) >= LONGEST_TAIL:
            rows = torch.arange(self.rows, device=self._like.device)
            self._gather(rows.expand(self._batch, -1))
        if self._children == 1:
            if stored:
                self._reserve_body(1)
        elif stored:
            self._reserve_tail()
        if stored:
            (self._body_places if self._children == 1 else self._tail_places).append(self.length)
        self._first = [
            bisect.bisect_left(places, oldest) if oldest > 0 else 0
            for places in (self._prefix_places, self._body_places, self._tail_places)
        ]

    def end_step(self) -> None:
        """Count the token."""
        self.length += 1

    def attend(self, block: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mixed values (batch, heads, rows, width) for one token a row, its own among those seen.

        query: already divided by the square root of the width
        """
        batch, heads, rows, width = query.shape
        parents, children = self._parents, self._children
        parts: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, keys, values, all 3-d
        prefix_first, body_first, tail_first = self._first
        if len(self._prefix_places) > prefix_first:
            keys, values = (part[:, :, prefix_first:].flatten(0, 1) for part in self._prefix[block])
            parts.append((query.reshape(-1, rows, width), keys, values))
        body_end, tail_end = len(self._body_places), len(self._tail_places)
        if self._stored:
            into = self._body[block] if children == 1 else self._tail[block]
            last = (body_end if children == 1 else tail_end) - 1
            into[0][..., last, :], into[1][..., last, :] = key, value
        if body_end > body_first:
            keys, values = (
                part.flatten(0, 2)[:, body_first:body_end] for part in self._body[block]
            )
            parts.append((query.reshape(-1, children, width), keys, values))
        if tail_end > tail_first:
            keys, values = (
                part.flatten(0, 2)[:, tail_first:tail_end] for part in self._tail[block]
            )
            parts.append((query.reshape(-1, 1, width), keys, values))
        shape = (batch, heads, parents, children)
        scores = [torch.bmm(q, k.transpose(1, 2)).reshape(*shape, -1) for q, k, _ in parts]
        weights = torch.softmax(scores[0] if len(scores) == 1 else torch.cat(scores, dim=-1), -1)
        mixed: Tensor | None = None
        shares = weights.split([score.shape[-1] for score in scores], dim=-1)
        for share, (queries, _, values) in zip(shares, parts, strict=True):
            share = share.flatten(0, 3).reshape(len(queries), queries.shape[1], -1)
            if mixed is None:
                mixed = torch.bmm(share, values)
            else:
                mixed = torch.baddbmm(mixed.view(queries.shape), share, values)
        assert mixed is not None, "a token attends to something: the first is never hidden"
        return mixed.view(batch, heads, rows, width)

    def _gather(self, indices: Tensor) -> None:
        """Give every wanted row a body of its own: its parent's, then its tail."""
        rows = indices.shape[1]
        order = torch.arange(rows, device=indices.device)
        if rows == self.rows and self._children == 1 and bool((indices == order).all()):
            return
        parents = indices // self._children
        oldest = self._share(parents)
        if self._band:
            reach = bisect.bisect_left(self._body_places, self.length - self._band + 1)
            oldest = max(oldest, reach)
        kept, added = len(self._body_places) - oldest, len(self._tail_places)
        capacity = max(self._capacity, kept + added)
        body: list[list[Tensor]] = []
        for block in range(self._depth if kept + added else 0):
            body.append([])
            for part in range(2):
                target = self._take_spare(rows, capacity)
                if self._body:
                    old = self._body[block][part]
                    _copy_rows(old[:, :, :, oldest:], parents, target[:, :, :, :kept])
                    self._spare = old
                if added:
                    tail = self._tail[block][part][:, :, :, :added]
                    _copy_rows(tail, indices, target[:, :, :, kept : kept + added])
                body[block].append(target)
        self._body, self._tail = body, []
        self._parents, self._children = rows, 1
        self._body_places = self._body_places[oldest:] + self._tail_places
        self._tail_places = []
        self._lineage = [
            (end - oldest, ancestors) for end, ancestors in self._lineage if end > oldest
        ]
        self._lineage.append((kept + added, order.expand(self._batch, -1)))

    def _share(self, parents: Tensor) -> int:
        """Move what all wanted rows have inherited from one ancestor to the prefix.

        parents: (batch, rows). Returns how many tokens at the front of the bodies are no longer
        needed there.
        """
        env = torch.arange(self._batch, device=parents.device)[:, None]
        self._lineage = [(end, ancestors[env, parents]) for end, ancestors in self._lineage]
        for end, ancestors in reversed(self._lineage):
            if not bool((ancestors == ancestors[:, :1]).all()):
                continue
            for block, pair in enumerate(self._body):
                own = [part[env[:, 0], :, parents[:, 0], :end] for part in pair]  # (B, heads, n, w)
                old_keys, old_values = self._prefix[block]
                self._prefix[block] = (
                    torch.cat([old_keys, own[0]], dim=2),
                    torch.cat([old_values, own[1]], dim=2),
                )
            self._prefix_places = self._prefix_places + self._body_places[:end]
            return end
        return 0

    def _take_spare(self, rows: int, capacity: int) -> Tensor:
        spare, self._spare = self._spare, None
        if spare is None or spare.shape[2] != rows or spare.shape[3] < capacity:
            return self._empty(self._batch, rows, capacity)
        return spare

    def _reserve_body(self, count: int) -> None:
        """Room for ``count`` more tokens in every body."""
        needed = len(self._body_places) + count
        if not self._body:
            self._capacity = max(self._capacity, needed)
            shape = (self._batch, self._parents, self._capacity)
            self._body = [[self._empty(*shape), self._empty(*shape)] for _ in range(self._depth)]
        if needed <= self._body[0][0].shape[3]:
            return
        if self._band and needed > 2 * self._band:  # roll: what is out of reach goes
            drop = bisect.bisect_left(self._body_places, self.length - self._band + 1)
            kept = self._body_places[drop:]
            for pair in self._body:
                for index, old in enumerate(pair):
                    pair[index] = torch.empty_like(old)
                    pair[index][..., : len(kept), :] = old[..., drop : drop + len(kept), :]
            self._body_places, self._lineage = kept, []
            return
        self._capacity = 2 * needed
        for pair in self._body:
            for index, old in enumerate(pair):
                pair[index] = self._empty(self._batch, self._parents, self._capacity)
                pair[index][..., : needed - count, :] = old[..., : needed - count, :]

    def _reserve_tail(self) -> None:
        """Room for one more token in every tail."""
        needed = len(self._tail_places) + 1
        if self._tail and needed <= self._tail[0][0].shape[3]:
            return
        shape = (self._batch, self.rows, 2 * needed + 6)
        grown = [[self._empty(*shape), self._empty(*shape)] for _ in range(self._depth)]
        for new, old in zip(grown, self._tail, strict=False):
            for into, source in zip(new, old, strict=True):
                into[..., : needed - 1, :] = source[..., : needed - 1, :]
        self._tail = grown

    def _empty(self, batch: int, *rows_and_tokens: int) -> Tensor:
        return self._like.new_empty(batch, self._heads, *rows_and_tokens, self._head_width)


def _copy_rows(source: Tensor, rows: Tensor, target: Tensor) -> None:
    """target[b, :, i] = source[b, :, rows[b, i]], as many tokens as the target has."""
    for own, wanted, into in zip(source, rows, target, strict=True):
        into.copy_(own[:, :, : into.shape[2]].index_select(1, wanted))
