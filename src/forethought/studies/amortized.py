"""Amortization (the thesis's outlook): a policy distilled from the planner, which plans where lost.

For each maze a small ensemble is distilled from the shipped Diffuser (``distillation.py``). Shown:
its score alone beside the planner's on the same starts and how fast it acts; whether the novelty it
feels says where it is wrong; and the score against the share of steps that were planned, as the
threshold on the novelty goes from never to always.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from forethought.agents.amortized import Amortized, AmortizedConfig
from forethought.checkpoint import WEIGHTS, load_config, load_model
from forethought.config import ControlConfig, Experiment, TrainConfig
from forethought.distillation import AmortizedPolicy, DistillationConfig, distill, play_episodes
from forethought.evaluation import make_policy
from forethought.planners.reactive import ReactiveConfig
from forethought.policy import PlanningPolicy
from forethought.registry import studies
from forethought.rollout import evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import PARALLEL, checkpoint_of, lost, row_of, score_text

LAYOUTS = ("umaze", "medium", "large")
EPISODES = 100
QUANTILES = (0.0, 0.5, 0.8, 0.95, 0.99, 1.0)
"""thresholds: never novel (1) to always (0), as quantiles of the novelty in held-out episodes"""
BINS = 10
PROBE_SEED = 2_000_000  # of the episodes that the calibration is checked on
PROBE_EPISODES = 20


@studies.register("amortized")
def amortized() -> Study:
    """A policy distilled from the planner: speed, calibration, score against planned steps."""
    parts = [
        Part(name=f"{kind}-{layout}", minutes=minutes, compute=partial(compute, layout=layout))
        for layout in LAYOUTS
        for kind, minutes, compute in (
            ("distill", 8.0, _distill),
            ("calibration", 0.5, _calibration),
            ("scores", 4.0, _scores),
        )
    ]
    return Study(
        title="Amortization: acting by what planning taught, planning where that is novel",
        parts=tuple(parts),
        plot=_plot,
        markdown=_markdown,
    )


@dataclass(frozen=True)
class _Pair:
    """The planner's policy, the student, and where they act."""

    policy: PlanningPolicy
    student: Amortized
    env: str


def _folder(settings: StudySettings, layout: str) -> Path:
    return settings.pretrained / "amortized" / f"maze-{layout}"


def _load(settings: StudySettings, layout: str) -> _Pair:
    teacher, folder = checkpoint_of(settings, layout), _folder(settings, layout)
    experiment: Experiment = load_config(teacher)["experiment"]
    policy = make_policy(load_model(teacher), experiment.planner, experiment.control)
    student = load_model(folder)
    assert isinstance(policy, PlanningPolicy) and isinstance(student, Amortized), folder
    return _Pair(policy, student, experiment.env)


def _distill(settings: StudySettings, *, layout: str) -> dict[str, Any]:
    """Distill into ``pretrained/amortized/maze-LAYOUT`` unless it is there."""
    teacher, folder = checkpoint_of(settings, layout), _folder(settings, layout)
    taught: Experiment = load_config(teacher)["experiment"]
    if not (folder / WEIGHTS).exists():
        policy = make_policy(load_model(teacher), taught.planner, taught.control)
        assert isinstance(policy, PlanningPolicy), "the teacher plans"
        experiment = Experiment(
            name=f"amortized/maze-{layout}",
            dataset=f"episodes of {taught.name}",
            env=taught.env,
            model=AmortizedConfig(),
            train=TrainConfig(
                steps=6_000, batch_size=256, learning_rate=2e-3, ema_decay=0.995, save_every=10**9
            ),
            planner=ReactiveConfig(),
            control=ControlConfig(),
        )
        distill(
            experiment,
            policy,
            folder,
            scratch=settings.runs / "amortized" / layout,
            say=settings.console.print,
        )
    model = load_model(folder)
    assert isinstance(model, Amortized), "just made"
    return {
        "checkpoint": str(folder),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "threshold": float(model.threshold),
        "distillation": vars(DistillationConfig()),
    }


def _calibration(settings: StudySettings, *, layout: str) -> dict[str, Any]:
    """On planner episodes never trained on: error of the student by how novel it found the step."""
    pair = _load(settings, layout)
    episodes = play_episodes(pair.policy, pair.env, PROBE_EPISODES, PROBE_SEED)
    observations = torch.from_numpy(np.concatenate([e.observations[:-1] for e in episodes]))
    taken = torch.from_numpy(np.concatenate([e.actions for e in episodes]))
    actions, novelty = pair.student.act_and_judge(observations)
    error = (actions - taken).square().mean(dim=1).sqrt().numpy()
    novel = novelty.numpy()
    order = novel.argsort()
    bins = [
        {"novelty": float(novel[part].mean()), "error": float(error[part].mean()), "n": len(part)}
        for part in np.array_split(order, BINS)
    ]
    threshold = float(pair.student.threshold)
    above = novel > threshold
    ranks = np.stack([values.argsort().argsort() for values in (novel, error)])
    correlations: Any = np.corrcoef(ranks)
    return {
        "steps": len(error),
        "bins": bins,
        "rank_correlation": float(correlations[0, 1]),
        "threshold": threshold,
        "share_above": float(above.mean()),
        "error_above": float(error[above].mean()) if above.any() else None,
        "error_below": float(error[~above].mean()),
        "quantiles": {str(q): float(np.quantile(novel, q)) for q in QUANTILES},
        "rate_hz": _rate(pair.student, observations),
    }


def _rate(student: Amortized, observations: torch.Tensor, calls: int = 2_000) -> dict[str, float]:
    """Decisions a second on one thread, one environment at a time, with the judgment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = np.empty(calls)
    for index in range(calls):
        observation = observations[index % len(observations)][None]
        began = time.perf_counter()
        student.act_and_judge(observation)
        seconds[index] = time.perf_counter() - began
    torch.set_num_threads(threads)
    quantiles = {name: 1 / np.quantile(seconds, q) for name, q in (("median", 0.5), ("p1", 0.99))}
    return {**{name: round(value) for name, value in quantiles.items()}, "calls": calls}


def _scores(settings: StudySettings, *, layout: str) -> list[dict[str, Any]]:
    """The planner, then mixtures from always planning where novel to never."""
    pair, n = _load(settings, layout), settings.episodes or EPISODES
    rows = []
    result = evaluate(pair.policy, pair.env, n, settings.seed, n_parallel=PARALLEL)
    rows.append({"name": "planner", "planned": 1.0, **row_of(result)})
    observed = play_episodes(pair.policy, pair.env, PROBE_EPISODES, PROBE_SEED)
    held = torch.from_numpy(np.concatenate([e.observations for e in observed]))
    _, novelty = pair.student.act_and_judge(held)
    for quantile in QUANTILES:
        if quantile == 0:
            continue  # always novel is the planner above
        threshold = float("inf") if quantile == 1 else float(novelty.quantile(quantile))
        mixture = AmortizedPolicy(pair.student, pair.policy, threshold)
        result = evaluate(mixture, pair.env, n, settings.seed, n_parallel=PARALLEL)
        row = {"name": f"quantile {quantile:g}", "planned": mixture.planned / mixture.steps}
        row["threshold"] = None if quantile == 1 else threshold
        rows.append({**row, **row_of(result)})
    rows[-1]["name"] = "student alone"
    return rows


def _plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    figures = {}
    colors = dict(zip(LAYOUTS, ("#3d6fb4", "#d9772b", "#4f9d69"), strict=True))
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for layout in LAYOUTS:
        rows, calibration = parts.get(f"scores-{layout}"), parts.get(f"calibration-{layout}")
        if rows:
            share = [100 * row["planned"] for row in rows]
            whole = rows[0]["score"]["mean"]
            score = [100 * row["score"]["mean"] / whole for row in rows]
            left.plot(share, score, "o-", color=colors[layout], label=layout)
        if calibration:
            bins = calibration["bins"]
            x, y = [b["novelty"] for b in bins], [b["error"] for b in bins]
            right.plot(x, y, "o-", color=colors[layout], label=layout)
    left.axhline(95, color="#888", linewidth=1, linestyle="--")
    left.set(xlabel="steps planned, %", ylabel="score, % of the planner's")
    right.set(
        xlabel="novelty (spread of the members)",
        ylabel="error against the planner's action (rms)",
        xscale="log",
        yscale="log",
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figures["mixture"] = figure
    return figures


def _markdown(parts: Mapping[str, Any]) -> str:
    lines = [
        "The student acts; where the novelty passes a threshold, a fresh plan is made and followed "
        "for the planner's own interval. Thresholds are quantiles of the novelty in planner "
        "episodes that were not trained on. “Lost” is against the planner, by episode on matched "
        "starts.",
        "",
        "| maze | policy | steps planned | score [95 %] | success | lost, % [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for layout in LAYOUTS:
        for row in parts.get(f"scores-{layout}", []):
            loss = "–"
            if row["name"] != "planner":
                loss = "{:.1f} [{:.1f}, {:.1f}]".format(*lost(row, parts[f"scores-{layout}"][0]))
            lines.append(
                f"| {layout} | {row['name']} | {row['planned']:.1%} | {score_text(row)} | "
                f"{row['success_rate']:.0%} | {loss} |"
            )
    lines += [
        "",
        "| maze | decisions/s, one thread, median (slowest 1 %) | threshold | steps above it | "
        "error above / below | rank correlation of novelty and error |",
        "|---|---|---|---|---|---|",
    ]
    for layout in LAYOUTS:
        if f"calibration-{layout}" not in parts:
            continue
        found = parts[f"calibration-{layout}"]
        rate, above = found["rate_hz"], found["error_above"]
        lines.append(
            f"| {layout} | {rate['median']:,} ({rate['p1']:,}) | {found['threshold']:.3f} | "
            f"{found['share_above']:.1%} | {'–' if above is None else f'{above:.3f}'} / "
            f"{found['error_below']:.3f} | {found['rank_correlation']:.2f} |"
        )
    return "\n".join(lines)
