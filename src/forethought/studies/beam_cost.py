"""How the cost of a plan by beam search grows: time and memory against horizon, beam and dimension.

One factor is varied at a time around the released search for hopper (beam 128, two expansions,
horizon 15, context 5) on the thesis's network (4 layers, 4 heads, width 128, 100 bins), flat and
factored. Weights are random: time does not depend on them. The bound is the time of the matrix
products that a search cannot do without, at the rate measured for a large product.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.token_config import TokenModelConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlanner, BeamPlannerConfig
from forethought.planners.beam_search import RewardSearch
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.plan_cost import exponent, measure
from forethought.types import Trajectory

WIDTH, DEPTH, BINS = 128, 4, 100
COLORS = {"flat": "#2f6690", "factored": "#e8743b"}
LEFT_OUT = {("flat", "dimension"): (90,)}  # minutes a plan


@dataclass(frozen=True)
class Search:
    """Sizes of a task, and the settings of the search in it; hopper's as released."""

    observation_dim: int = 11
    action_dim: int = 3
    beam: int = 128
    horizon: int = 15
    context: int = 5
    expand: int = 2

    @property
    def columns(self) -> int:
        return self.observation_dim + self.action_dim + 2


FACTORS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "horizon": ("horizon", "transitions of a plan", (2, 4, 8, 15, 30)),
    "beam": ("beam", "width of the beam", (8, 16, 32, 64, 128, 256)),
    "dimension": ("observation_dim", "dimensions of an observation", (4, 11, 17, 45, 90)),
}


@studies.register("beam-cost")
def beam_cost() -> Study:
    """Time and memory of beam search against horizon, beam and dimension, one at a time."""
    parts = [
        Part(
            name=f"{kind}-{factor}",
            minutes=0.3 if kind == "factored" else 4.0 if factor == "dimension" else 1.5,
            compute=partial(sweep, kind=kind, factor=factor),
        )
        for kind in COLORS
        for factor in FACTORS
    ]
    return Study(
        title="How the cost of a plan by beam search grows",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def sweep(settings: StudySettings, *, kind: str, factor: str) -> list[dict[str, Any]]:
    """A row for each value of the factor: measured time and memory, and the bound."""
    rate, rows = product_rate(), []
    name, _, values = FACTORS[factor]
    for value in (v for v in values if v not in LEFT_OUT.get((kind, factor), ())):
        search = replace(Search(), **{name: value})
        planner = make_planner(search, model_of(search, kind))
        bound = operations(search, kind) / rate
        row = measure(partial(plan_once, planner, search, settings.seed))
        rows.append({"x": value, **row, "bound_ms": round(1e3 * bound, 3)})
    return rows


def model_of(search: Search, kind: str) -> TokenModelConfig:
    """The thesis's network, with windows that hold history and plan."""
    if kind == "flat":
        return TransformerConfig(context=search.context, horizon=search.horizon)
    return FactoredTransformerConfig(context=search.context, horizon=search.horizon)


def make_planner(search: Search, config: TokenModelConfig, **changes: int | bool) -> BeamPlanner:
    """A planner over an untrained model of the task's sizes; ``changes`` to its settings."""
    torch.manual_seed(0)
    noise, steps = np.random.default_rng(0), 200
    episode = Episode(
        noise.normal(size=(steps + 1, search.observation_dim)),
        noise.normal(size=(steps, search.action_dim)),
        noise.normal(size=steps),
    )
    dataset = EpisodeDataset.from_episodes([episode])
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    settings = BeamPlannerConfig(
        horizon=search.horizon,
        beam=search.beam,
        context=search.context,
        reward=RewardSearch(expand=search.expand),
    )
    return BeamPlanner(model.eval().requires_grad_(False), replace(settings, **changes))


def plan_once(planner: BeamPlanner, search: Search, seed: int) -> None:
    """One plan for one environment, after a full history of random numbers."""
    noise = torch.Generator().manual_seed(seed)
    history = Trajectory(
        observations=torch.randn(1, search.context, search.observation_dim, generator=noise),
        actions=torch.randn(1, search.context, search.action_dim, generator=noise),
        times=torch.arange(-search.context, 0),
        rewards=torch.randn(1, search.context, generator=noise),
    )
    observation = torch.randn(1, search.observation_dim, generator=noise)
    planner.plan(observation, history=history, generator=noise)


@functools.cache
def product_rate() -> float:
    """Floating-point operations a second of a large matrix product, by processor time, so that
    other programs on the machine do not count; one figure for all parts that are run together."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(20):
        began = time.process_time()
        torch.mm(a, b)
        times.append(time.process_time() - began)
    return torch.get_num_threads() * 2 * 2048**3 / min(times[1:])


def operations(search: Search, kind: str) -> float:
    """Least floating-point operations of a plan: layers and output layers, for every token of a
    kept sequence that is a value of an observation, and of an expanded one for the others."""
    wide = search.beam * search.expand
    expanded = search.horizon * wide * (search.action_dim + 2)
    kept = (search.horizon - 1) * search.beam * search.observation_dim
    if kind == "flat":
        prefix = search.context * search.columns + search.observation_dim
        # attention: scores and sums over the prefix and half of the plan
        seen = prefix + search.horizon * search.columns / 2
        layers = DEPTH * (24 * WIDTH**2 + 4 * WIDTH * seen)
        return (expanded + kept) * (layers + 2 * WIDTH * BINS)
    heads = 2 * 2 * WIDTH**2 + 2 * WIDTH * BINS  # a perceptron of two layers, then logits
    seen = search.context + search.horizon / 2
    whole = DEPTH * (24 * WIDTH**2 + 4 * WIDTH * seen) + 10 * WIDTH**2  # with mix and condition
    return (expanded + kept) * heads + (search.horizon - 1) * search.beam * whole


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Time above memory, a column a factor, both models and their bounds."""
    if not parts:
        return {}
    figure = Figure(figsize=(11, 6), dpi=150, layout="constrained")
    axes = figure.subplots(2, len(FACTORS), squeeze=False)
    measured = (("ms", "one plan, ms"), ("megabytes", "peak memory, MB"))
    for column, (factor, (_, label, values)) in enumerate(FACTORS.items()):
        for panel, (key, title) in zip(axes[:, column], measured, strict=True):
            panel.set(xlabel=label, ylabel=title, xscale="log", yscale="log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
            panel.set_xticks(values, labels=[str(value) for value in values], fontsize=8)
            panel.spines[["top", "right"]].set_visible(False)
            for kind, color in COLORS.items():
                if rows := parts.get(f"{kind}-{factor}"):
                    _draw(panel, rows, key, kind, color)
    base = Search()
    figure.suptitle(
        f"One factor varied at a time around beam {base.beam}, {base.expand} expansions, horizon "
        f"{base.horizon}, context {base.context}, {base.observation_dim} + {base.action_dim} "
        "dimensions",
        fontsize=10,
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return {"growth": figure}


def _draw(panel: Any, rows: list[dict[str, Any]], key: str, kind: str, color: str) -> None:
    x = [row["x"] for row in rows]
    panel.plot(x, [row[key] for row in rows], "o-", color=color, label=kind, ms=4)
    if key == "ms":
        bound = [row["bound_ms"] for row in rows]
        panel.plot(x, bound, "--", color=color, lw=1, label=f"{kind}: matrix products alone")


def markdown(parts: Mapping[str, Any]) -> str:
    """Every point, and how fast time grows."""
    lines = [
        "| model | factor | value | one plan, ms (median) | matrix products alone, ms | "
        "peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    growth = []
    for kind in COLORS:
        for factor, (_, label, _) in FACTORS.items():
            rows = parts.get(f"{kind}-{factor}", [])
            lines += [
                f"| {kind} | {label} | {row['x']} | {row['ms']:.1f} | {row['bound_ms']:.1f} | "
                f"{row['megabytes']:.1f} |"
                for row in rows
            ]
            if rows:
                x, ms = [row["x"] for row in rows], [row["ms"] for row in rows]
                growth.append(f"{kind}, {label}: {exponent(x, ms):.2f}")
    if not growth:
        return ""
    threads = next(iter(parts.values()))[0]["threads"]
    tail = f"Exponent of time over the larger half (1 = linear): {'; '.join(growth)}."
    return "\n".join([*lines, "", f"{tail} Threads: {threads}."])
