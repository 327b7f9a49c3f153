"""Figure 3.1: a horizon of one step beside one that a geometric distribution draws.

The thesis draws this by hand; here both are draws from a system whose occupancy is known, the
linear-Gaussian one: states after one step, and states after a number of steps that is 1 + k with
probability (1 - discount) discount^k, which is what a gamma-model predicts in a single pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.envs.linear import LinearSystem
from forethought.figures import INK, MUTED
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings

DISCOUNTS = (0.0, 0.5, 0.9)
START, DRAWS, LAST = (2.5, 0.0), 600, 25
COLORS = ("#3d6fb4", "#8a4fb0", "#e8743b")


@studies.register("figure-3-1")
def figure_3_1() -> Study:
    """States predicted with a fixed and with a probabilistic horizon."""
    return Study(
        title="Figure 3.1: prediction with probabilistic horizons",
        parts=tuple(
            Part(name=f"discount-{discount:g}", minutes=0.0, compute=partial(states, at=discount))
            for discount in DISCOUNTS
        ),
        plot=plot,
        markdown=markdown,
    )


def states(settings: StudySettings, *, at: float) -> dict[str, Any]:
    """Draws of the occupancy from one state and action, its mean in closed form, and the horizon's
    probabilities."""
    system, noise = LinearSystem(2), np.random.default_rng(settings.seed)
    start = np.array(START)
    action = system.k @ start
    drawn = system.sample_occupancy(start, action, at, DRAWS, noise)
    mean, _ = system.occupancy(start, action, at)
    return {
        "discount": at,
        "draws": np.round(drawn, 3).tolist(),
        "drawn_mean": np.round(drawn.mean(axis=0), 4).tolist(),
        "mean": np.round(mean, 4).tolist(),
        "horizon": np.round((1 - at) * at ** np.arange(LAST), 6).tolist(),
    }


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """States above, the horizon's probabilities below."""
    shown = [parts[name] for name in (f"discount-{at:g}" for at in DISCOUNTS) if name in parts]
    if not shown:
        return {}
    figure = Figure(figsize=(3.3 * len(shown), 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False, height_ratios=(3, 1), sharex="row")
    for above, below, part, color in zip(*axes, shown, COLORS, strict=False):
        above.plot(*np.array(part["draws"]).T, ".", ms=3, mec="none", color=color, alpha=0.5)
        above.plot(*START, "o", ms=8, mfc="none", mec=INK, mew=1.6)
        above.plot(*part["mean"], "+", ms=10, mew=1.6, color=INK)
        above.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
        at = part["discount"]
        above.set_title(f"discount {at:g}" if at else "one step", loc="left", fontsize=10)
        below.bar(np.arange(1, LAST + 1), part["horizon"], color=color, width=0.8)
        below.set(ylim=(0, 1.05), xlabel="steps ahead")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(colors=MUTED, labelsize=8)
    axes[1, 0].set_ylabel("probability")
    return {"horizons": figure}


def markdown(parts: Mapping[str, Any]) -> str:
    """What is drawn, and how far the draws' means are from the closed form."""
    gaps = [np.abs(np.subtract(p["drawn_mean"], p["mean"])).max() for p in parts.values()]
    text = (
        f"Linear-Gaussian system from the state {START} (circle), {DRAWS} draws at each discount; "
        "cross: their mean in closed form."
    )
    return f"{text} Largest difference of the means: {max(gaps):.3f}." if gaps else text
