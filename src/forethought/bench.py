"""``forethought bench``: what a checkpoint scores against how fast it plans on this machine.

One setting is varied at a time around the checkpoint's own: denoising steps, candidates, steps
between plans, and wall-clock budgets. All rows share their starts. A row that no other beats in
both score and time is on the Pareto front.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.console import Console
from rich.table import Table
from torch import Tensor

from forethought.checkpoint import current_commit, hardware, load_config, load_model, write_result
from forethought.config import ControlConfig, PlannerConfig, to_json
from forethought.evaluation import find_env, interval_text, make_policy
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.policy import PlanningPolicy, Policy
from forethought.rollout import evaluate

STEPS, CANDIDATES = (1, 2, 3, 4, 8), (1, 4, 16)
CADENCE = (0.5, 1, 2)  # multiples of the checkpoint's replan_every
BUDGETS_MS = (5.0, 10.0, 20.0, 50.0)
BUDGET_CANDIDATES = 64  # at most, where a budget leaves time for them


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How long the bench may take, and on which starts."""

    episodes: int = 100
    seed: int = 0
    quick: bool = False
    """fewer settings"""


@dataclass(frozen=True)
class Setting:
    """One row's planner and control, and what is special about it."""

    factor: str
    value: float
    planner: PlannerConfig
    control: ControlConfig


def settings_of(
    planner: PlannerConfig, control: ControlConfig, *, quick: bool = False
) -> list[Setting]:
    """The rows: the checkpoint's own settings first, then one factor at a time."""
    rows = [Setting("as given", 0, planner, control)]
    if not isinstance(planner, DiffusionPlannerConfig):
        return rows
    own: Any = planner  # to a type checker registered classes are plain types
    steps, candidates = (STEPS[:2], ()) if quick else (STEPS, CANDIDATES)
    budgets, cadence = (BUDGETS_MS[:2], ()) if quick else (BUDGETS_MS, CADENCE)
    for n in steps:
        if n != own.sampler.steps:
            sampler = replace(own.sampler, steps=n)
            rows.append(Setting("steps", n, replace(own, sampler=sampler), control))
    for n in candidates:
        if n != own.candidates:
            rows.append(Setting("candidates", n, replace(own, candidates=n), control))
    for multiple in cadence:
        every = round(multiple * control.replan_every)
        if every and every != control.replan_every:
            changed = replace(control, replan_every=every)
            rows.append(Setting("replan_every", every, planner, changed))
    for budget in budgets if own.sampler.steps else ():
        most = max(BUDGET_CANDIDATES, own.candidates)
        limited = replace(own, budget_ms=budget, candidates=most)
        rows.append(Setting("budget_ms", budget, limited, control))
    return rows


class _Timed:
    """A policy whose calls are timed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds, self.steps = 0.0, 0

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        self._policy.reset(n_envs, seeds)

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        began = time.perf_counter()
        action = self._policy(observation, goal, rows)
        self.seconds += time.perf_counter() - began
        self.steps += len(observation)
        return action


def run_bench(
    path: Path,
    settings: BenchSettings,
    planner: PlannerConfig,
    control: ControlConfig,
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Measure all rows; write bench.json and bench.png into ``out`` and print the table."""
    config = load_config(path)
    env_id, model = find_env(config["experiment"].env, config), load_model(path)
    rows = []
    for setting in settings_of(planner, control, quick=settings.quick):
        policy = make_policy(model, setting.planner, setting.control)
        timed = _Timed(policy)
        result = evaluate(timed, env_id, settings.episodes, settings.seed, n_parallel=50)
        seconds = [timed.seconds / timed.steps]  # of one decision, for a policy without plans
        if isinstance(policy, PlanningPolicy):
            seconds = policy.plan_seconds
        row = {
            "factor": setting.factor,
            "value": setting.value,
            "score": result.score,
            "success_rate": result.success_rate,
            "plan_ms": round(1e3 * float(np.median(seconds)), 3),
            "plan_ms_p99": round(1e3 * float(np.percentile(seconds, 99)), 3),
            "control_hz": round(timed.steps / timed.seconds, 1),
            "planner": to_json(setting.planner),
            "control": to_json(setting.control),
        }
        rows.append(row)
        console.print(f"{_name(row)}: {row['score']['mean']:.1f}, {row['plan_ms']:.2f} ms a plan")
    front = pareto_front(rows)
    data = {
        "kind": "bench",
        "recipe": config["experiment"].name,
        "checkpoint": str(path),
        "env": env_id,
        "episodes": settings.episodes,
        "seed": settings.seed,
        "hardware": {**hardware(), "threads": torch.get_num_threads()},
        "commit": current_commit(),
        "rows": [{**row, "on_front": index in front} for index, row in enumerate(rows)],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_result(out / "bench.json", data)
    figure = draw_bench(data)
    figure.savefig(out / "bench.png", dpi=150)
    _print(data, console)
    console.print(f"written to {out / 'bench.json'} and {out / 'bench.png'}")
    return data


def pareto_front(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Indices of rows that no other beats or equals in both score and time, fastest first."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["plan_ms"], -rows[i]["score"]["mean"]))
    front: list[int] = []
    for index in order:
        if not front or rows[index]["score"]["mean"] > rows[front[-1]]["score"]["mean"]:
            front.append(index)
    return front


def _name(row: dict[str, Any]) -> str:
    return row["factor"] if row["factor"] == "as given" else f"{row['factor']} {row['value']:g}"


def _print(data: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{data['recipe']} in {data['env']}, n = {data['episodes']} a row")
    for column in ("", "score", "95 % interval", "success", "plan ms", "p99", "control Hz", ""):
        table.add_column(column)
    for row in sorted(data["rows"], key=lambda row: row["plan_ms"]):
        table.add_row(
            _name(row),
            f"{row['score']['mean']:.1f}",
            interval_text(row["score"]),
            f"{row['success_rate']:.1%}",
            f"{row['plan_ms']:.2f}",
            f"{row['plan_ms_p99']:.2f}",
            f"{row['control_hz']:,.0f}",
            "front" if row["on_front"] else "",
        )
    console.print(table)


def draw_bench(data: dict[str, Any]) -> Figure:
    """Score against the time of a plan, a color for each factor, and the Pareto front."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    palette = {
        "as given": "#2d3848",
        "steps": "#3d6fb4",
        "candidates": "#d9772b",
        "replan_every": "#4f9d69",
        "budget_ms": "#a0527d",
    }
    for factor, color in palette.items():
        rows = [row for row in data["rows"] if row["factor"] == factor]
        if not rows:
            continue
        x, y = [row["plan_ms"] for row in rows], [row["score"]["mean"] for row in rows]
        bars = [row["score"]["interval"] for row in rows]
        spread = [
            [m - b[0] if b else 0, b[1] - m if b else 0] for m, b in zip(y, bars, strict=True)
        ]
        axes.errorbar(
            x,
            y,
            np.transpose(spread),
            fmt="o",
            color=color,
            label=factor,
            alpha=0.9,
            elinewidth=0.8,
        )
        for row in rows:
            if factor != "as given":
                point = (row["plan_ms"], row["score"]["mean"])
                axes.annotate(
                    f"{row['value']:g}", point, (4, 4), textcoords="offset points", fontsize=8
                )
    front = sorted((r for r in data["rows"] if r["on_front"]), key=lambda r: r["plan_ms"])
    axes.step(
        [row["plan_ms"] for row in front],
        [row["score"]["mean"] for row in front],
        where="post",
        color="#999",
        linewidth=1,
        zorder=0,
        label="Pareto front",
    )
    axes.set(xscale="log", xlabel="one plan, ms (median, this machine)", ylabel="score")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.set_title(f"{data['recipe']}, {data['episodes']} episodes a point", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _spread(score: dict[str, Any]) -> tuple[float, float]:
    """How far the interval reaches below and above the mean; nowhere for a single episode."""
    if score["interval"] is None:
        return 0.0, 0.0
    return score["mean"] - score["interval"][0], score["interval"][1] - score["mean"]
