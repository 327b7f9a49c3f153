"""Numbers that summarize episodes, and honest comparisons between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def normalized_score(total: float, reference: tuple[float, float]) -> float:
    """D4RL's score: 0 at the random policy's return, 100 at the expert's (Fu et al. 2020)."""
    low, high = reference
    return 100 * (total - low) / (high - low)


def mean_and_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean and its two-sided Student-t confidence interval; infinite for fewer than two values."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        raise ValueError("no values to average")
    mean = float(array.mean())
    if len(array) < 2:
        return mean, -math.inf, math.inf
    half = float(array.std(ddof=1)) / math.sqrt(len(array))
    half *= _student_quantile(0.5 + confidence / 2, len(array) - 1)
    return mean, mean - half, mean + half


def _student_quantile(p: float, dof: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees, else an expansion (Hill 1970)."""
    if dof == 1:
        return math.tan(math.pi * (p - 0.5))
    if dof == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / dof ** (k + 1) for k, term in enumerate(terms))


def share(hits: int, n: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson 1927), which holds at 0 and 1 too."""
    z = 1.96
    middle, half = hits + z * z / 2, z * (hits * (n - hits) / n + z * z / 4) ** 0.5
    interval = [round((middle + sign * half) / (n + z * z), 4) for sign in (-1, 1)]
    return {"mean": hits / n, "interval": interval, "hits": hits, "n": n}


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half, with fractional weights at its ends (Agarwal et al. 2021)."""
    array = np.sort(np.asarray(values, dtype=np.float64))
    n = len(array)
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return float((weight * array).sum() / weight.sum())


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"ranks of two lists of one length are compared; got {a.shape} and {b.shape}"
        )
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])


def paired_difference(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]
) -> tuple[float, float, float]:
    """Mean and 95 % interval of score differences, episode by episode, on matched starts and goals.

    Raises ValueError if the two lists of episode records do not share seeds, starts and goals.
    """
    keys = ("seed", "start", "goal")
    matched = [all(a[k] == b[k] for k in keys) for a, b in zip(first, second, strict=False)]
    if len(first) != len(second) or not all(matched):
        raise ValueError(
            f"the two evaluations are not start-matched ({len(first)} and {len(second)} episodes, "
            f"{sum(matched)} in common); evaluate both with the same --seed and --episodes"
        )
    return mean_and_interval([a["score"] - b["score"] for a, b in zip(first, second, strict=True)])
