"""Tables of evaluated gamma-models, from their result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
COLUMNS = ("discount", "energy distance", "floor", "sliced W1", "floor", "value error", "floor")


def prediction_cells(row: Record) -> list[str]:
    """A row's cells under COLUMNS, for tables here and in reports."""
    cells = [f"{row['discount']:g}"]
    for name in ("energy", "sliced"):
        cells += [_with_interval(row[name]), f"{row[f'{name}_floor']['worst']:.3f}"]
    if "value_error" not in row:
        return [*cells, "–", "–"]
    relative = row["value_error_relative"]
    share = "" if relative is None else f" ({relative:.1%})"
    return [*cells, f"{row['value_error']:.3g}{share}", f"{row['value_floor']:.2g}"]


def _with_interval(number: Record) -> str:
    low, high = number["interval"]
    return f"{number['mean']:.3f} [{low:.3f}, {high:.3f}]"


def predictions_markdown(results: Sequence[Record]) -> str:
    """One Markdown table of evaluated gamma-models, and how each was made."""
    head = ["model", *COLUMNS, "train min", "commit"]
    lines = [head, ["---"] * len(head)]
    notes = []
    for result in results:
        protocol = result["protocol"]
        seconds = protocol.get("train_seconds")
        minutes = "–" if seconds is None else f"{seconds / 60:.1f}"
        for row in result["rows"]:
            lines.append(
                [result["recipe"], *prediction_cells(row), minutes, str(protocol.get("commit"))]
            )
        notes.append(
            f"**{result['recipe']}.** {protocol['pairs']} pairs, {protocol['samples']} samples "
            f"each, seed {protocol['seed']}, checkpoint {protocol['checkpoint']}, made "
            f"{protocol['made']}\n\n```\n{protocol['command']}\n```"
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    units = (
        "Distances between the model's samples and simulated occupancies, in standard deviations "
        "of the states that lead to the pairs asked about: means over pairs and their 95 % "
        "interval. The floor is the largest distance, over pairs, of two independent simulations. "
        "Value errors are root mean squares."
    )
    return "\n\n".join([units, table, *notes])
