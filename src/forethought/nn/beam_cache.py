"""Keys and values of a beam search: one prefix for all beams, one continuation for each.

A row's attention reaches over three parts, scored apart and normalized together::

    prefix (batch)      what was given: computed once, one matrix product for all rows
    body   (parents)    what parents have in common with their children, read once for all of them
    tail   (rows)       what the children have added since they were split

Children of one parent share its body until beams are chosen (``select``), so that expanding every
beam copies nothing. Where a parent has one child, new tokens are written to the body in place.
Choosing leaves the body of a parent that goes on where it is, in its *slot*, and copies it only for
a second child, to the slot of a parent that has none: the cache's rows are in the order of slots,
which ``enter`` and ``leave`` translate. Once all beams descend from one ancestor, what they have
from it moves to the prefix. All rows of a search are at the same place.
"""

from __future__ import annotations

import bisect

import torch
from torch import Tensor

from forethought.nn.beam_rows import free_slots, mix, reordered, rows_of

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
        self._suffix = max(suffix, 1)
        self._prefix = [self._empty(batch, 0) for _ in range(depth)]  # (2, B, heads, n, w) each
        self._batch, self._parents, self._children = batch, 1, 1
        # per block, keys and values: (2, B, heads, parents, capacity, w), those of the first tokens
        # at ``_begin``
        self._body: list[Tensor] = []
        self._tail: list[Tensor] = []
        self._begin = 0
        self._prefix_places: list[int] = []
        self._body_places: list[int] = []
        self._tail_places: list[int] = []
        self._reset_order()

    def _reset_order(self) -> None:
        """Beams are in the order of their bodies, and none descends from another."""
        self._slots: Tensor | None = None  # (B, parents): where each parent's body is
        self._entering: Tensor | None = None  # (B rows,): beams in the cache's order
        self._leaving: Tensor | None = None
        # for each choice of beams: tokens that a body then had, and from which of the rows of that
        # time each of today's parents descends (choices, B, parents)
        self._lineage_ends: list[int] = []
        self._lineage: Tensor | None = None

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
        keys, values = self._prefix[block]
        return keys, values

    def extend_prefix(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Add tokens (batch, heads, n, width) to the prefix of a block."""
        assert not self._body and self.rows == 1, "the prefix is complete once beams have begun"
        self._prefix[block] = torch.cat([self._prefix[block], torch.stack([keys, values])], dim=3)

    def advance_prefix(self, count: int, places: Tensor) -> None:
        """Note that ``count`` tokens were added, those at ``places`` stored."""
        self.length += count
        self._prefix_places += places.tolist()

    def restart(self, cached: list[tuple[Tensor, Tensor]], stored: Tensor) -> None:
        """Replace everything by rows of their own, (batch * rows, heads, n, width) a block."""
        rows = len(cached[0][0]) // self._batch
        n, kept = len(stored), torch.nonzero(stored)[:, 0].tolist()
        self._prefix = [self._empty(self._batch, 0) for _ in cached]
        self._parents, self._children = rows, 1
        self._body, self._tail, self._begin = [], [], 0
        self._prefix_places, self._body_places, self._tail_places = [], [], []
        self._reset_order()
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
                self._note_order()
                return
        self._choose(indices)

    def enter(self, x: Tensor) -> Tensor:
        """(batch, rows, width) of beams, put in the cache's order."""
        return x if self._entering is None else reordered(x, self._entering)

    def leave(self, x: Tensor) -> Tensor:
        """(batch, rows, width) of the cache's rows, put in the order of beams."""
        return x if self._leaving is None else reordered(x, self._leaving)

    def begin_step(self, oldest: int, stored: bool) -> None:
        """Prepare for one token a row that attends to places from ``oldest`` on."""
        self._stored = stored
        if len(self._tail_places) >= LONGEST_TAIL:
            rows = torch.arange(self.rows, device=self._like.device)
            self._choose(rows.expand(self._batch, -1))
        if stored and self._children == 1:
            self._reserve_body(1)
            self._body_places.append(self.length)
        elif stored:
            self._reserve_tail(1)
            self._tail_places.append(self.length)
        self._first = [
            bisect.bisect_left(places, oldest) if oldest > 0 else 0
            for places in (self._prefix_places, self._body_places, self._tail_places)
        ]

    def end_step(self) -> None:
        """Count the token."""
        self.length += 1

    def attend(self, block: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mixed values (batch, heads, rows, width) for one token a row, its own among those seen.

        query: contiguous, already divided by the square root of the width
        """
        prefix_first, body_first, tail_first = self._first
        body_end, tail_end = len(self._body_places), len(self._tail_places)
        groups = self._batch * self._heads
        # queries that share keys, and these keys and values: batches of matrices for each part
        parts: list[tuple[Tensor, Tensor]] = []
        if len(self._prefix_places) > prefix_first:
            given = self._prefix[block].flatten(1, 2)[:, :, prefix_first:]
            parts.append((query.view(groups, self.rows, -1), given))
        if self._stored:
            alone = self._children == 1
            into = self._body[block] if alone else self._tail[block]
            last = self._begin + body_end - 1 if alone else tail_end - 1
            into[0, ..., last, :], into[1, ..., last, :] = key, value
        if body_end > body_first:
            first, end = self._begin + body_first, self._begin + body_end
            queries = query.view(groups * self._parents, self._children, -1)
            parts.append((queries, self._body[block].flatten(1, 3)[:, :, first:end]))
        if tail_end > tail_first:
            queries = query.view(groups * self.rows, 1, -1)
            parts.append((queries, self._tail[block].flatten(1, 3)[:, :, tail_first:tail_end]))
        return mix(parts).view(query.shape)

    def _choose(self, indices: Tensor) -> None:
        """Give every wanted row a body of its own: its parent's, then its tail."""
        parents, children = indices // self._children, self._children
        self._share(parents)
        if self._band:
            self._forget()
        sources = parents if self._slots is None else self._slots.gather(1, parents)
        tails = sources * children + indices % children  # rows in the cache's order
        added = len(self._tail_places)
        if self._body and indices.shape[1] == self._parents:
            self._children = 1
            self._reserve_body(added)
            self._slots = self._copy_bodies(sources)
            # of the row that is in each slot now
            tails = torch.empty_like(tails).scatter_(1, self._slots, tails)
        else:
            self._new_bodies(sources, added)
            self._slots = None
        end = self._begin + len(self._body_places)
        for body, tail in zip(self._body, self._tail if added else (), strict=False):
            body[..., end : end + added, :] = rows_of(tail, tails)[..., :added, :]
        self._tail, self._children = [], 1
        self._body_places += self._tail_places
        self._tail_places = []
        self._note_order()
        rows = torch.arange(self.rows, device=indices.device).expand(1, self._batch, -1)
        before = rows[:0] if self._lineage is None else self._lineage
        self._lineage = torch.cat([before, rows])
        self._lineage_ends.append(len(self._body_places))

    def _share(self, parents: Tensor) -> None:
        """Move what all wanted rows have inherited from one ancestor to the prefix.

        parents: (batch, rows)
        """
        if self._lineage is None:
            return
        env = torch.arange(self._batch, device=parents.device)
        self._lineage = self._lineage[:, env[:, None], parents]
        alike = (self._lineage == self._lineage[..., :1]).flatten(1).all(dim=1)
        shared = int(alike.sum())  # choices: those before one from which all descend are no others
        if not shared:
            return
        count = self._lineage_ends[shared - 1]
        slot = parents[:, 0] if self._slots is None else self._slots[env, parents[:, 0]]
        for block, body in enumerate(self._body):
            own = body[:, env, :, slot, self._begin : self._begin + count]  # (B, 2, heads, n, w)
            own = own.transpose(0, 1)
            self._prefix[block] = torch.cat([self._prefix[block], own], dim=3)
        self._prefix_places = self._prefix_places + self._body_places[:count]
        self._drop(count)

    def _forget(self) -> None:
        """Drop what is out of the band's reach."""
        oldest = self.length - self._band + 1
        self._drop(bisect.bisect_left(self._body_places, oldest))
        if count := bisect.bisect_left(self._prefix_places, oldest):
            self._prefix = [given[:, :, :, count:].clone() for given in self._prefix]
            self._prefix_places = self._prefix_places[count:]

    def _drop(self, count: int) -> None:
        """Do without the first tokens of all bodies."""
        self._begin += count
        self._body_places = self._body_places[count:]
        self._lineage_ends = [end - count for end in self._lineage_ends if end > count]
        if self._lineage is not None:
            self._lineage = self._lineage[len(self._lineage) - len(self._lineage_ends) :]

    def _copy_bodies(self, sources: Tensor) -> Tensor:
        """Copy bodies in place so that every row has its own; (batch, rows) slots they are in.

        sources: (batch, rows) slots of the bodies that the rows inherit, as many as there are slots
        """
        slots = free_slots(sources)
        env, row = (slots != sources).nonzero(as_tuple=True)
        first, end = (
            place * self._head_width
            for place in (self._begin, self._begin + len(self._body_places))
        )
        if len(row) and end > first:
            into, source = (self._flat_rows(env, slot[env, row]) for slot in (slots, sources))
            for body in self._body:
                tokens = body.view(-1, body.shape[4] * body.shape[5])[:, first:end]
                tokens.index_copy_(0, into, tokens.index_select(0, source))
        return slots

    def _flat_rows(self, env: Tensor, slot: Tensor) -> Tensor:
        """Indices, of all rows of keys and values of all heads, of the pairs (env, slot)."""
        heads = torch.arange(self._heads, device=env.device)
        part = torch.arange(2, device=env.device)[:, None, None] * self._batch
        return (((part + env) * self._heads + heads[:, None]) * self._parents + slot).flatten()

    def _new_bodies(self, sources: Tensor, added: int) -> None:
        """Bodies in other numbers, (batch, rows) ``sources`` of old ones, with room for more."""
        old, begin, kept = self._body, self._begin, len(self._body_places)
        self._parents, self._children = sources.shape[1], 1
        self._body, self._begin = [], 0
        if not kept + added:
            return
        self._reserve_body(added)
        for into, body in zip(self._body, old, strict=False):
            into[..., :kept, :] = rows_of(body[..., begin : begin + kept, :], sources)

    def _note_order(self) -> None:
        """Translate between beams and rows from now on."""
        if self._slots is None:
            self._entering = self._leaving = None
            return
        env = torch.arange(self._batch, device=self._slots.device)[:, None] * self.rows
        child = torch.arange(self._children, device=env.device)
        rows = self._slots[..., None] * self._children + child
        self._leaving = (rows.flatten(1) + env).flatten()
        self._entering = self._leaving.argsort()

    def _reserve_body(self, count: int) -> None:
        """Room for ``count`` more tokens in every body."""
        kept = len(self._body_places)
        shape = (self._batch, self._parents)
        if not self._body:
            capacity = max(self._suffix, kept + count)
            self._body = [self._empty(*shape, capacity) for _ in range(self._depth)]
        capacity = self._body[0].shape[4]
        if self._begin + kept + count <= capacity:
            return
        if self._band:
            self._forget()
            kept = len(self._body_places)
        for block, old in enumerate(self._body):
            grown = self._empty(*shape, max(capacity, 2 * (kept + count)))
            grown[..., :kept, :] = old[..., self._begin : self._begin + kept, :]
            self._body[block] = grown
        self._begin = 0

    def _reserve_tail(self, count: int) -> None:
        """Room for ``count`` more tokens in every tail."""
        kept = len(self._tail_places)
        if self._tail and kept + count <= self._tail[0].shape[4]:
            return
        shape = (self._batch, self.rows, 2 * (kept + count) + 6)
        grown = [self._empty(*shape) for _ in range(self._depth)]
        for new, old in zip(grown, self._tail, strict=False):
            new[..., :kept, :] = old[..., :kept, :]
        self._tail = grown

    def _empty(self, batch: int, *rows_and_tokens: int) -> Tensor:
        return self._like.new_empty(2, batch, self._heads, *rows_and_tokens, self._head_width)
