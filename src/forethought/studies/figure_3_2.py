"""Figure 3.2: times that gamma-rollouts reach, and how many steps cover 95 % of a discount.

(a) The n-th step of a rollout ends after a negative-binomial time (Eq. 3.5); weighted by Theorem 1
the steps add up to the geometric distribution of the larger discount. (b) Steps of a model of
discount gamma whose weights sum to 95 %, for several target discounts. All closed forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.figures import INK, MUTED
from forethought.models.gamma import rollout_weights, step_times, steps_to_cover
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings

DISCOUNT, TARGET, STEPS, LAST = 0.8, 0.95, 5, 60
TARGETS, MASS = (0.8, 0.9, 0.95, 0.99, 0.995), 0.95
COLORS = ("#16324f", "#2f6690", "#3d9bb3", "#5fbf9b", "#a8d08d")


@studies.register("figure-3-2")
def figure_3_2() -> Study:
    """How gamma-rollouts reach in time, and the steps that cover 95 %."""
    return Study(
        title="Figure 3.2: rollouts with probabilistic horizons",
        parts=(
            Part(name="times", minutes=0.0, compute=times),
            Part(name="steps", minutes=0.0, compute=steps),
        ),
        plot=plot,
        markdown=markdown,
    )


def times(_: StudySettings) -> dict[str, Any]:
    """Distributions of the first steps' times, and of their weighted sum."""
    n_all = steps_to_cover(DISCOUNT, TARGET, 1 - 1e-12)
    every, weights = step_times(DISCOUNT, n_all, LAST), rollout_weights(DISCOUNT, TARGET, n_all)
    return {
        "discount": DISCOUNT,
        "target": TARGET,
        "steps": every[:STEPS].numpy().round(6).tolist(),
        "weights": weights[:STEPS].numpy().round(6).tolist(),
        "weighted": (weights @ every).numpy().round(8).tolist(),
    }


def steps(_: StudySettings) -> dict[str, Any]:
    """Steps needed against the model's discount, one row a target."""
    rows = []
    for target in TARGETS:
        discounts = [round(0.01 * k, 2) for k in range(round(100 * target) + 1)]
        discounts = [discount for discount in discounts if discount <= target]
        needed = [steps_to_cover(discount, target, MASS) for discount in discounts]
        rows.append({"target": target, "discounts": discounts, "steps": needed})
    return {"mass": MASS, "rows": rows}


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Both panels."""
    figure = Figure(figsize=(10, 3.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    if part := parts.get("times"):
        t = np.arange(1, len(part["weighted"]) + 1)
        for n, row in enumerate(part["steps"]):
            left.plot(t, row, color=COLORS[n], lw=1.4, label=f"step {n + 1}")
        left.plot(t, part["weighted"], color=INK, lw=2.4, label="all steps, weighted")
        exact = (1 - part["target"]) * part["target"] ** (t - 1)
        left.plot(t, exact, "--", color="#e8743b", lw=1.4, label=f"discount {part['target']}")
        left.set(xlabel="environment steps", ylabel="probability")
        left.set_title(f"(a) a model of discount {part['discount']}", loc="left", fontsize=10)
        left.legend(frameon=False, fontsize=8)
    if part := parts.get("steps"):
        for row, color in zip(part["rows"], COLORS, strict=True):
            label = f"target {row['target']}"
            right.plot(row["discounts"], row["steps"], color=color, lw=1.6, label=label)
        right.axhline(1, color=MUTED, lw=0.8, ls=":")
        right.set(xlabel="model discount", ylabel="rollout steps", yscale="log")
        right.set_title(f"(b) steps that cover {part['mass']:.0%}", loc="left", fontsize=10)
        right.legend(frameon=False, fontsize=8)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    return {"horizons": figure}


def markdown(parts: Mapping[str, Any]) -> str:
    """Steps needed at some model discounts, one row a target."""
    lines = []
    if part := parts.get("times"):
        t = np.arange(1, len(part["weighted"]) + 1)
        exact = (1 - part["target"]) * part["target"] ** (t - 1)
        gap = np.abs(np.array(part["weighted"]) - exact).max()
        lines += [
            f"Weighted steps and geometric distribution: {gap:.1e} apart at most.",
            "",
        ]
    if part := parts.get("steps"):
        shown = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        lines += [f"Rollout steps that cover {part['mass']:.0%}, by the model's discount:", ""]
        lines.append("| target | " + " | ".join(f"{discount:g}" for discount in shown) + " |")
        lines.append("|---" * (len(shown) + 1) + "|")
        for row in part["rows"]:
            found = dict(zip(row["discounts"], row["steps"], strict=True))
            cells = [str(found.get(discount, "–")) for discount in shown]
            lines.append(f"| {row['target']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
