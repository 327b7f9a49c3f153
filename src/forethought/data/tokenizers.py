r"""Tokenizers: each dimension of continuous data becomes one of V bins, held by a model as buffers.

Thesis Section 4.3 names two ways to place the V + 1 edges of a dimension:

- uniform: equally wide bins, (max - min) / V each;
- quantile: bins of equal data mass, one of every V data points each.

Real columns break the second one: ties put several edges at one value, and columns with few rows
have too few of them. Here a dimension always has exactly V bins of positive width. Edges lie
halfway between neighboring data values; an edge that ties would waste splits the heaviest bin that
still holds two values, and where every bin holds one value, the widest one. So every token can be
decoded, and encode(decode(token)) == token.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

TokenizerKind = Literal["uniform", "quantile"]
Reconstruction = Literal["center", "mean"]

LEAST_BINS = 2
_SPACING = 16  # steps of float32 that a bin is wide at least, so that its center lies inside it


class Tokenizer(nn.Module):
    """Bins of ``dim`` dimensions, independent of one another.

    n_bins: tokens per dimension, V;  kind: how the edges are placed
    reconstruct: a token is decoded as its bin's center (released code) or as the mean of the data
        in it (bins without data: the center)
    """

    edges: Tensor
    values: Tensor
    fitted: Tensor

    def __init__(
        self, dim: int, n_bins: int, kind: TokenizerKind, reconstruct: Reconstruction = "center"
    ) -> None:
        super().__init__()
        if n_bins < LEAST_BINS or kind not in ("uniform", "quantile"):
            raise ValueError(
                f"a tokenizer needs at least {LEAST_BINS} bins of kind 'uniform' or 'quantile'; "
                f"got {n_bins} and {kind!r}"
            )
        self.dim, self.n_bins = dim, n_bins
        self.kind: TokenizerKind = kind
        self.reconstruct: Reconstruction = reconstruct
        line = torch.linspace(-1, 1, n_bins + 1).repeat(dim, 1)
        self.register_buffer("edges", line)  # (dim, V + 1), increasing
        self.register_buffer("values", (line[:, 1:] + line[:, :-1]) / 2)  # (dim, V), inside the bin
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(self, data: np.ndarray) -> None:
        """Place the bins from rows (n, dim) in environment units; n may be 1, columns constant."""
        if data.ndim != 2 or data.shape[1] != self.dim or not len(data):
            raise ValueError(
                f"a tokenizer of {self.dim} dimensions is fitted on rows (n, {self.dim}) with n at "
                f"least 1; got an array of shape {data.shape}"
            )
        for index in range(self.dim):
            self.fit_column(index, data[:, index])

    def fit_column(self, index: int, data: np.ndarray) -> None:
        """Place the bins of one dimension from values (n,); the others keep theirs."""
        if not len(data) or not np.isfinite(data).all():
            raise ValueError(
                f"dimension {index} of a tokenizer needs finite values, one at least; clean the log"
            )
        column = np.sort(data.astype(np.float64))
        self._set(index, column, place_edges(column, self.n_bins, self.kind))

    def fit_indices(self, index: int, count: int) -> None:
        """Make token i of one dimension mean the number i, for ``count`` discrete choices."""
        if count > self.n_bins:
            raise ValueError(
                f"{count} discrete choices need as many bins; this tokenizer has {self.n_bins}"
            )
        self._set(index, np.zeros(0), np.arange(self.n_bins + 1) - 0.5)

    def _set(self, index: int, column: np.ndarray, edges: np.ndarray) -> None:
        self.edges[index] = torch.as_tensor(edges)
        self.values[index] = torch.as_tensor(_values_of(column, edges, self.reconstruct))
        self.fitted.fill_(True)

    def encode(self, data: Tensor) -> Tensor:
        """Tokens (..., k) int64, 0 .. V - 1, of the first k dimensions; values outside the edges
        fall into the end bins."""
        width = data.shape[-1]
        edges = self.edges[:width, 1:-1].contiguous()
        columns = data.to(edges.dtype).reshape(-1, width).T.contiguous()
        return torch.searchsorted(edges, columns, right=True).T.reshape(data.shape)

    def decode(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Environment units (..., k) of tokens (..., k) of the dimensions from ``first`` on. Raises
        ValueError for a token that is no bin."""
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.n_bins):
            raise ValueError(
                f"unknown token: tokens lie in 0 .. {self.n_bins - 1}, got "
                f"{int(tokens.min())} to {int(tokens.max())}"
            )
        columns = torch.arange(first, first + tokens.shape[-1], device=tokens.device)
        return self.values[columns, tokens]

    def expectation(self, probabilities: Tensor, index: int) -> Tensor:
        """Mean value (...,) of one dimension under probabilities (..., V)."""
        return probabilities @ self.values[index].to(probabilities)

    def percentile(self, probabilities: Tensor, share: float, index: int) -> Tensor:
        """Value (...,) of one dimension at the first token where the mass (..., V) reaches
        ``share`` of the total."""
        mass = probabilities.cumsum(dim=-1)
        reached = (mass < share * mass[..., -1:]).sum(dim=-1).clamp(max=self.n_bins - 1)
        return self.values[index][reached]

    def log_widths(self) -> Tensor:
        """(dim, V) log width of each bin: a token's log density is its log mass minus this."""
        return self.edges.diff(dim=-1).log()

    def digest(self) -> int:
        """A number that tells these bins from others, 0 .. 2^48 - 1."""
        data = self.edges.detach().float().cpu().contiguous().numpy().tobytes()
        return int.from_bytes(hashlib.sha256(data).digest()[:6], "big")


def place_edges(column: np.ndarray, n_bins: int, kind: TokenizerKind) -> np.ndarray:
    """(n_bins + 1,) strictly increasing edges, also as float32, for sorted values (n,)."""
    low, high = column[0], column[-1]
    # bins that float32 can tell apart; a constant column gets a range around its value
    least = n_bins * _SPACING * np.spacing(np.float32(max(abs(low), abs(high), 1e-30)))
    if high - low < least:
        middle = (low + high) / 2
        return np.linspace(middle - least / 2, middle + least / 2, n_bins + 1)
    if kind == "uniform":
        return np.linspace(low, high, n_bins + 1)
    edges = _quantile_edges(column, n_bins)
    edges = _split_heaviest(column, edges, n_bins)
    return _split_widest(edges, n_bins)


def _quantile_edges(column: np.ndarray, n_bins: int) -> list[float]:
    """Edges at every n / V-th value, each halfway between two different values; ties merged."""
    count = len(column)
    places = np.unique(np.arange(1, n_bins) * count // n_bins)
    inner = [_border_near(column, int(place), 0, count) for place in places if place > 0]
    known = {edge for edge in inner if edge is not None}
    return [float(column[0]), *sorted(known), float(column[-1])]


def _border_near(column: np.ndarray, place: int, first: int, end: int) -> float | None:
    """Halfway between two neighboring values, nearest to index ``place`` within [first, end)."""
    value = column[place]
    left = int(np.searchsorted(column, value, side="left"))
    right = int(np.searchsorted(column, value, side="right"))
    options = [at for at in (left, right) if first < at < end]
    if not options:
        return None
    at = min(options, key=lambda option: abs(option - place))
    border = (column[at - 1] + column[at]) / 2
    # float32 can merge neighbors that are too close; such values share a bin
    return float(border) if column[at] - column[at - 1] > _least_gap(column[at]) else None


def _least_gap(value: float) -> float:
    return _SPACING * float(np.spacing(np.float32(abs(value) + 1e-30)))


def _split_heaviest(column: np.ndarray, edges: list[float], n_bins: int) -> list[float]:
    """Spend edges that ties have cost on the heaviest bins that hold more than one value."""
    known = set(edges)
    places = np.searchsorted(column, edges[1:-1])
    bounds = [0, *(int(place) for place in places), len(column)]
    heap = [(first - end, first, end) for first, end in zip(bounds[:-1], bounds[1:], strict=True)]
    heapq.heapify(heap)
    while heap and len(known) < n_bins + 1:
        _, first, end = heapq.heappop(heap)
        border = _border_near(column, (first + end) // 2, first, end)
        if border is None or border in known:
            continue
        known.add(border)
        cut = int(np.searchsorted(column, border))
        heapq.heappush(heap, (first - cut, first, cut))
        heapq.heappush(heap, (cut - end, cut, end))
    return sorted(known)


def _split_widest(edges: list[float], n_bins: int) -> np.ndarray:
    """Halve the widest bins until there are ``n_bins``."""
    heap = [(low - high, low, high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    heapq.heapify(heap)
    while len(heap) < n_bins:
        _, low, high = heapq.heappop(heap)
        middle = (low + high) / 2
        heapq.heappush(heap, (low - middle, low, middle))
        heapq.heappush(heap, (middle - high, middle, high))
    return np.array(sorted([low for _, low, _ in heap] + [edges[-1]]))


def _values_of(column: np.ndarray, edges: np.ndarray, reconstruct: Reconstruction) -> np.ndarray:
    """(V,) what each token is decoded as, strictly inside its bin also in float32."""
    low, high = edges[:-1], edges[1:]
    center = (low + high) / 2
    if reconstruct == "center":
        return center
    token = np.searchsorted(edges[1:-1], column, side="right")
    counts = np.bincount(token, minlength=len(center))
    sums = np.bincount(token, weights=column, minlength=len(center))
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), center)
    margin = (high - low) / 8
    return np.clip(mean, low + margin, high - margin)
