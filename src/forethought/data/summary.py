"""What is in a data set: sizes, ranges, rewards, returns and lengths, as JSON and as tables.

Reads the arrays in chunks, so a memory map larger than memory is no trouble. Padding (the last
action and reward row of an episode) is left out of every number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from forethought.data.episodes import EpisodeDataset

CHUNK = 1 << 16  # rows in memory at a time
BINS = 20  # of every histogram
MAX_FEATURES = 40  # table rows printed per array; the dictionary holds all
_BLOCKS = "▁▂▃▄▅▆▇█"


def summarize(dataset: EpisodeDataset) -> dict[str, Any]:
    """A JSON-able description.

    "observations", "actions": min, mean, max and std, one number a dimension
    "rewards", "returns", "lengths": the same four as plain numbers, and a "histogram" (counts,
        edges); returns are undiscounted, one per episode
    """
    taken = np.ones(len(dataset.observations), dtype=bool)
    taken[dataset.starts[1:] - 1] = False  # padding rows
    lengths = np.diff(dataset.starts) - 1
    returns = np.add.reduceat(dataset.rewards, dataset.starts[:-1], dtype=np.float64)
    changes = dataset.goal_changes
    return {
        "episodes": len(dataset),
        "steps": dataset.n_steps,
        "observation_dim": dataset.spaces.observation_dim,
        "action_dim": dataset.spaces.action_dim,
        "n_actions": dataset.spaces.n_actions,
        "share_terminated": float(np.mean(dataset.terminated)),
        "goal_changes": None if changes is None else len(changes),
        "observations": _features(dataset.observations, None),
        "actions": _features(dataset.actions, taken),
        "rewards": _scalars(dataset.rewards, taken),
        "returns": _scalars(returns, None),
        "lengths": _scalars(lengths, None),
        "metadata": dataset.metadata,
        "fingerprint": dataset.fingerprint,
    }


def print_summary(dataset: EpisodeDataset, console: Console) -> None:
    """Print ``summarize`` as tables, with histograms of rewards, returns and lengths."""
    summary = summarize(dataset)
    facts = Table("data set", "", title_justify="left")
    for name in ("episodes", "steps", "observation_dim", "action_dim", "n_actions", "goal_changes"):
        if summary[name] is not None:
            facts.add_row(name.replace("_", " "), f"{summary[name]:,}")
    facts.add_row("share terminated", f"{summary['share_terminated']:.1%}")
    facts.add_row("fingerprint", summary["fingerprint"])
    for name, value in summary["metadata"].items():
        text = str(value)
        facts.add_row(name, escape(text if len(text) <= 60 else text[:57] + "..."))
    console.print(facts)

    columns = ("min", "mean", "max", "std")
    scalars = Table("", *columns, Column("min to max", no_wrap=True))
    for name in ("rewards", "returns", "lengths"):
        numbers = summary[name]
        bars = text_histogram(numbers["histogram"]["counts"])
        scalars.add_row(name, *(_number(numbers[column]) for column in columns), bars)
    console.print(scalars)

    features = Table("dimension", *columns)
    for name in ("observations", "actions"):
        numbers, dim = summary[name], summary[f"{name[:-1]}_dim"]
        for index in range(min(dim, MAX_FEATURES)):
            cells = (f"{numbers[column][index]:.4g}" for column in columns)
            features.add_row(f"{name}[{index}]", *cells)
        if dim > MAX_FEATURES:
            features.add_row(f"{name}: {dim - MAX_FEATURES} more dimensions", *"    ")
    console.print(features)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.5g}"


def text_histogram(counts: list[int]) -> str:
    """One block character a bin, blank where nothing was counted; a count of one still shows."""
    heights = np.ceil(len(_BLOCKS) * np.asarray(counts) / max(*counts, 1)).astype(int)
    return "".join(_BLOCKS[height - 1] if height else " " for height in heights)


def _chunks(values: np.ndarray, taken: np.ndarray | None) -> Iterator[np.ndarray]:
    for first in range(0, len(values), CHUNK):
        part = np.asarray(values[first : first + CHUNK], dtype=np.float64)
        yield part if taken is None else part[taken[first : first + CHUNK]]


def _moments(values: np.ndarray, taken: np.ndarray | None) -> dict[str, np.ndarray]:
    """min, mean, max, std over rows; sums are taken around the first row, so no digits cancel."""
    shift = np.asarray(values[0], dtype=np.float64)
    low, high = shift, shift
    total, squares, count = np.zeros_like(shift), np.zeros_like(shift), 0
    for part in _chunks(values, taken):
        if len(part):
            low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
            total = total + (part - shift).sum(axis=0)
            squares = squares + ((part - shift) ** 2).sum(axis=0)
            count += len(part)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0)
    return {"min": low, "mean": shift + mean, "max": high, "std": np.sqrt(variance)}


def _features(values: np.ndarray, taken: np.ndarray | None) -> dict[str, list[float]]:
    return {name: numbers.tolist() for name, numbers in _moments(values, taken).items()}


def _scalars(values: np.ndarray, taken: np.ndarray | None) -> dict[str, Any]:
    summary: dict[str, Any] = {name: float(x) for name, x in _moments(values, taken).items()}
    edges = np.histogram_bin_edges([], BINS, (summary["min"], summary["max"]))
    counts = np.zeros(BINS, dtype=np.int64)
    for part in _chunks(values, taken):
        counts += np.histogram(part, edges)[0]
    return summary | {"histogram": {"counts": counts.tolist(), "edges": edges.tolist()}}
