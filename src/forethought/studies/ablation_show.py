"""Table and figure of the ablation, from its result file alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    return {}


def markdown(parts: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{k} {p['label']} {p['score']} {p['success_rate']} {p['plans']} {p['plan_ms']}"
        for k, p in parts.items()
    )
