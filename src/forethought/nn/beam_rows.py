"""Rows of keys and values in a beam search's cache: attention over parts of them, reordering."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 13  # tokens; sums of fewer values are slow as products of a row with a matrix


def mix(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention over several parts: mixed values, as many as queries, in their order.

    parts: queries (groups, m, w), in the same order in all parts, and keys and values (2, groups,
        n, w) of a part
    """
    rows = parts[0][0].shape[0] * parts[0][0].shape[1]
    scores = [torch.bmm(query, pair[0].transpose(1, 2)).view(rows, -1) for query, pair in parts]
    shares = torch.softmax(torch.cat(scores, dim=-1), dim=-1)
    mixed, first = torch.zeros_like(parts[0][0]), 0
    for query, (_, values) in parts:
        count = values.shape[1]
        share = shares.view(*query.shape[:2], -1)[..., first : first + count]
        if query.shape[1] == 1 and count < FEW:
            mixed.view(rows, -1).add_((share.transpose(1, 2) * values).sum(dim=1))
        else:
            mixed.view(query.shape).baddbmm_(share, values, beta=float(first > 0))
        first += count
    return mixed


def reordered(x: Tensor, rows: Tensor) -> Tensor:
    """(batch, rows, width) with the rows of all environments in another order."""
    return x.flatten(0, 1).index_select(0, rows).view(x.shape)


def rows_of(source: Tensor, rows: Tensor) -> Tensor:
    """(2, batch, heads, m, n, w): rows (batch, m) of the source (2, batch, heads, rows, n, w)."""
    offset = torch.arange(source.shape[1], device=rows.device)[:, None, None]
    heads, old = source.shape[2:4]
    head = torch.arange(heads, device=rows.device)[:, None]
    part = torch.arange(2, device=rows.device)[:, None, None, None] * source.shape[1]
    index = ((part + offset) * heads + head) * old + rows[:, None]
    flat = source.flatten(0, 3).index_select(0, index.flatten())
    return flat.view(*index.shape, *source.shape[4:])


def free_slots(sources: Tensor) -> Tensor:
    """(batch, rows) a slot for each row: its source's for the first row of those with one source,
    empty ones for the others. sources: (batch, rows) slots, of as many as there are rows"""
    by_source = sources.argsort(dim=1, stable=True)
    ordered = sources.gather(1, by_source)
    repeats = torch.zeros_like(ordered, dtype=torch.bool)
    repeats[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    moves = torch.empty_like(repeats).scatter_(1, by_source, repeats)
    empty = torch.ones_like(moves).scatter_(1, sources, False)
    slots = sources.clone()
    slots[moves] = empty.nonzero(as_tuple=True)[1]  # in each environment as many as rows to move
    return slots
