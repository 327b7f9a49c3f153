"""Estimates against true values, from the parts of off-policy-evaluation alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.figures import INK, MUTED
from forethought.scores import mean_and_interval, rank_correlation

METHODS = {
    "gamma": ("γ-model (TD2-CFM)", "#e8743b", "o"),
    "fitted-q": ("fitted Q evaluation", "#3d6fb4", "s"),
    "rollouts": ("single steps, rolled out", "#4f9d69", "^"),
}


def estimates(parts: Mapping[str, Any], method: str, index: int) -> tuple[list[str], np.ndarray]:
    """Policies that have both an estimate and a true value, and these (n, 2)."""
    found = [
        (name.removesuffix("-truth"), name)
        for name in parts
        if name.endswith("-truth") and f"{name.removesuffix('-truth')}-{method}" in parts
    ]
    pairs = [
        (_value(parts, f"{policy}-{method}", index), _value(parts, truth, index))
        for policy, truth in found
    ]
    return [policy for policy, _ in found], np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _value(parts: Mapping[str, Any], name: str, index: int) -> float:
    return parts[name]["rows"][index]["value"]


def _discounts(parts: Mapping[str, Any]) -> list[float]:
    rows = next((part["rows"] for name, part in parts.items() if name.endswith("-truth")), [])
    return [row["discount"] for row in rows]


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """One panel a discount: a point for each policy and method."""
    discounts = _discounts(parts)
    if not discounts:
        return {}
    figure = Figure(figsize=(4.6 * len(discounts), 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(discounts), squeeze=False)[0]
    for index, (panel, discount) in enumerate(zip(panels, discounts, strict=True)):
        for method, (label, color, marker) in METHODS.items():
            _, pairs = estimates(parts, method, index)
            panel.plot(pairs[:, 1], pairs[:, 0], marker, color=color, label=label, alpha=0.85)
        limits = [min(panel.get_xlim()[0], panel.get_ylim()[0]), 0.0]
        panel.plot(limits, limits, color=MUTED, lw=0.9, ls="--")
        if "data" in parts:
            level = _value(parts, "data", index)
            panel.axhline(level, color=INK, lw=0.8, ls=":", label="return of the logs")
        panel.set(xlabel="true value", ylabel="estimate")
        panel.set_title(f"discount {discount:g}", loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    return {"values": figure}


def markdown(parts: Mapping[str, Any]) -> str:
    """Values of every policy, then errors of every method."""
    lines = [
        "Values of the distribution of starts, rewards of the state arrived in; the truth is the "
        "mean of simulated returns, with its 95 % interval. Error: mean over policies of the "
        "absolute difference, 95 % interval over policies; a policy's training seed is one."
    ]
    for index, discount in enumerate(_discounts(parts)):
        lines += ["", f"Discount {discount:g}:", "", *_values_table(parts, index)]
        lines += ["", *_errors_table(parts, index)]
    return "\n".join(lines)


def _values_table(parts: Mapping[str, Any], index: int) -> list[str]:
    lines = [
        "| policy | truth [95 %] | " + " | ".join(label for label, _, _ in METHODS.values()) + " |",
        "|---" * (len(METHODS) + 2) + "|",
    ]
    for name, part in parts.items():
        if not name.endswith("-truth"):
            continue
        policy, row = name.removesuffix("-truth"), part["rows"][index]
        low, high = row["interval"]
        cells = [
            f"{_value(parts, f'{policy}-{method}', index):.1f}"
            if f"{policy}-{method}" in parts
            else "–"
            for method in METHODS
        ]
        lines.append(
            f"| {policy} | {row['value']:.1f} [{low:.1f}, {high:.1f}] | " + " | ".join(cells) + " |"
        )
    return lines


def _errors_table(parts: Mapping[str, Any], index: int) -> list[str]:
    lines = [
        "| method | policies | error [95 %] | share of the range | rank correlation |",
        "|---|---|---|---|---|",
    ]
    for method, (label, _, _) in METHODS.items():
        _, pairs = estimates(parts, method, index)
        if len(pairs) >= 2:
            lines.append(_error_row(label, pairs[:, 0], pairs[:, 1]))
    _, pairs = estimates(parts, "gamma", index)
    if len(pairs) >= 2 and "data" in parts:
        same = np.full(len(pairs), _value(parts, "data", index))
        lines.append(_error_row("return of the logs", same, pairs[:, 1]))
    return lines


def _error_row(label: str, guess: np.ndarray, true: np.ndarray) -> str:
    mean, low, high = mean_and_interval(np.abs(guess - true).tolist())
    rank = f"{rank_correlation(guess, true):.2f}" if np.ptp(guess) > 0 else "–"
    share = mean / np.ptp(true)
    return f"| {label} | {len(true)} | {mean:.1f} [{low:.1f}, {high:.1f}] | {share:.0%} | {rank} |"
