"""One row of a table in one maze: a score with its protocol and every episode's return.

``results/baselines/METHOD-CELL.json`` holds such rows where training them takes long, or needs
another library; whoever has the file need not train again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forethought.checkpoint import write_result
from forethought.rollout import Evaluation
from forethought.scores import mean_and_interval

BASELINES = Path("results/baselines")


def row_of(method: str, evaluation: Evaluation, **facts: Any) -> dict[str, Any]:
    """A compact record: returns and arrival steps by episode, starts and goals as a digest.

    Rows with equal ``env`` and ``starts`` are matched episode by episode.
    """
    records = evaluation.episodes
    starts = json.dumps([[r["seed"], r["start"], r["goal"]] for r in records])
    return {
        "kind": "row",
        "method": method,
        "env": evaluation.protocol["env"],
        "score": evaluation.score,
        "success_rate": evaluation.success_rate,
        "n": evaluation.n,
        "starts": hashlib.sha256(starts.encode()).hexdigest()[:16],
        "protocol": evaluation.protocol,
        "returns": [record["return"] for record in records],
        "arrivals": [record["arrival_step"] for record in records],
        **facts,
    }


def row_file(folder: Path, method: str, cell: str) -> Path:
    """Where the row of ``method`` in ``cell``, such as "maze2d-umaze", is kept."""
    return folder / f"{method.lower()}-{cell}.json"


def read_row(file: Path, *, how: str) -> dict[str, Any]:
    """A stored row; FileNotFoundError that says ``how`` to make it if there is none."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; make it with\n  {how}")
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        _ = row["method"], row["score"]["mean"], row["protocol"], row["starts"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); make it again with\n  {how}") from error
    return row


def write_row(file: Path, row: dict[str, Any]) -> None:
    """Keep a row for whoever has not trained it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_result(file, row)


def line(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def are_matched(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Same environment and seed, and for equal numbers of episodes the same starts and goals."""
    if first["env"] != second["env"]:
        return False
    if first["protocol"]["seed"] != second["protocol"]["seed"]:
        return False
    return first["n"] != second["n"] or first["starts"] == second["starts"]


def difference_text(ours: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Mean [95 % interval] of the paired difference in normalized score, over the starts both
    have; the first n of one seed are the same starts."""
    if not are_matched(ours, row):
        return "not the same starts"
    low, high = row["protocol"]["reference_returns"]
    n = min(ours["n"], row["n"])
    gaps = 100 * (np.array(ours["returns"][:n]) - np.array(row["returns"][:n])) / (high - low)
    mean, *ends = mean_and_interval(gaps.tolist())
    return f"{mean:+.1f} [{ends[0]:.1f}, {ends[1]:.1f}]" if n > 1 else f"{mean:+.1f}"


def titled(sections: Iterable[tuple[str, list[str]]]) -> str:
    """Markdown of the sections that have lines, each below its title."""
    lines = []
    for title, content in sections:
        if content:
            lines += [f"### {title}", "", *content, ""]
    return "\n".join(lines)
