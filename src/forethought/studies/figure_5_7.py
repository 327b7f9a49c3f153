"""Thesis Figure 5.7, in a maze: how few denoising steps a plan needs, with and without warm start.

Warm: the previous plan, shifted by the steps executed since, is noised to the k lowest of the N
levels and denoised through all of those k. Cold: k steps of DDIM from pure noise, spaced over all
levels. Checkpoint, controller and cadence are the shipped ones; only the sampler differs.

Also thesis Section C.3 item 9: predicting the noise or the clean trajectory makes no great
difference. Two U-Maze models, equal but for that, train for the same number of steps and act with
few and more sampler steps; beside the score stands what the controller may hide, the
share of first plans with a point in a wall.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from forethought.checkpoint import WEIGHTS, load_config, load_model
from forethought.commands import open_data
from forethought.config import Experiment, PlannerConfig
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import DiffuserConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.recipes.maze import maze_umaze
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import checkpoint_of, lost, planned_row, score_text
from forethought.training import train_experiment

LAYOUT, EPISODES = "large", 100
LEVELS = 64  # of the shipped models; the thesis has 20 (locomotion)
COLD = (1, 2, 3, 4, 6, 8, 13, 16, 32, 64)
WARM = (1, 2, 3, 6, 13, 32)
TENTH = 6  # of the 64 levels: the thesis's claim is about a tenth
PREDICTION_STEPS = (2, 8)  # of the sampler, for the rows on noise and clean prediction
PREDICTION_TRAINING = {"steps": 1_200, "batch_size": 32}


@studies.register("figure-5-7")
def figure_5_7() -> Study:
    """Score against the number of denoising steps, with and without warm start (Figure 5.7)."""
    cold = [_part("cold", k, _cold) for k in COLD]
    warm = [_part("warm", k, _warm) for k in WARM]
    prediction = Part(name="prediction", minutes=16.0, compute=_prediction)
    return Study(
        title="Figure 5.7: warm-starting planning (Maze2D-Large), and Section C.3 item 9",
        parts=(*cold, *warm, prediction),
        plot=_plot,
        markdown=_markdown,
    )


def _part(kind: str, steps: int, compute: Callable[..., Any]) -> Part:
    minutes = 0.5 + 0.11 * steps
    return Part(name=f"{kind}-{steps}", minutes=minutes, compute=partial(compute, steps=steps))


def _cold(settings: StudySettings, *, steps: int) -> dict[str, Any]:
    return _row(settings, SamplerConfig(kind="ddim", steps=steps), warm_start=0.0, calls=steps)


def _warm(settings: StudySettings, *, steps: int) -> dict[str, Any]:
    every_level = SamplerConfig(kind="ddim", steps=0)
    return _row(settings, every_level, warm_start=steps / LEVELS, calls=steps)


def _row(
    settings: StudySettings, sampler: SamplerConfig, *, warm_start: float, calls: int
) -> dict[str, Any]:
    folder = checkpoint_of(settings, LAYOUT)
    experiment, model = load_config(folder)["experiment"], load_model(folder)
    planner = replace(experiment.planner, sampler=sampler, warm_start=warm_start)
    n = settings.episodes or EPISODES
    row = planned_row(model, experiment.env, planner, experiment.control, n=n, seed=settings.seed)
    return {**row, "network_calls": calls, "checkpoint": str(folder)}


def _prediction(settings: StudySettings) -> list[dict[str, Any]]:
    """Two small U-Maze models, equal but for what the network predicts, at several step counts."""
    rows = []
    for prediction in ("clean", "noise"):
        experiment, folder = _train_small(settings, prediction)
        model, facts = load_model(folder), json.loads((folder / "training.json").read_text())
        for steps in PREDICTION_STEPS:
            planner = _with_steps(experiment.require_planner(), steps)
            n = settings.episodes or EPISODES
            row = planned_row(
                model, experiment.env, planner, experiment.control, n=n, seed=settings.seed
            )
            training = {**PREDICTION_TRAINING, "seconds": facts["train_seconds"]}
            rows.append({**row, "prediction": prediction, "steps": steps, "training": training})
    return rows


def _with_steps(planner: PlannerConfig, steps: int) -> PlannerConfig:
    assert isinstance(planner, DiffusionPlannerConfig), "this recipe's planner"
    own: Any = planner  # to a type checker registered classes are plain types
    return replace(own, sampler=replace(own.sampler, steps=steps))


def _train_small(settings: StudySettings, prediction: str) -> tuple[Experiment, Path]:
    """The U-Maze recipe with a smaller network, and where its weights are; trains if need be."""
    recipe = maze_umaze()
    assert isinstance(recipe.model, DiffuserConfig), "this recipe's model"
    experiment = replace(
        recipe,
        model=replace(recipe.model, prediction=prediction, dim=32),
        train=replace(recipe.train, **PREDICTION_TRAINING),
    )
    folder = settings.runs / f"figure-5-7-{prediction}-{experiment.train.steps}"
    if not (folder / "training.json").exists():
        data = settings.data / experiment.dataset
        dataset = open_data(experiment, str(data) if data.is_dir() else None, settings.console)
        train_experiment(experiment, dataset, folder, resume=(folder / WEIGHTS).exists())
    return experiment, folder


def _plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for kind, color, label in (
        ("cold", "#3d6fb4", "from noise alone"),
        ("warm", "#d9772b", "warm: from the previous plan"),
    ):
        rows = _rows(parts, kind)
        if not rows:
            continue
        calls = [row["network_calls"] for row in rows]
        means = [row["score"]["mean"] for row in rows]
        axes.plot(calls, means, "o-", color=color, label=label)
        if all(row["score"]["interval"] for row in rows):
            low, high = zip(*(row["score"]["interval"] for row in rows), strict=True)
            axes.fill_between(calls, low, high, color=color, alpha=0.15, linewidth=0)
    reference = _reference(parts)
    if reference:
        floor = 0.97 * reference["score"]["mean"]
        axes.axhline(floor, color="#888", linewidth=1, linestyle="--")
        axes.text(1, floor, " 3 % below all steps", color="#666", va="top", fontsize=8)
    axes.set_xscale("log", base=2)
    ticks = sorted({*COLD, *WARM})
    axes.set_xticks(ticks, labels=[str(k) for k in ticks])
    axes.minorticks_off()
    axes.set(xlabel=f"denoising steps a plan (of {LEVELS})", ylabel="score, Maze2D-Large")
    lowest = min(
        (row["score"]["mean"] for row in [*_rows(parts, "cold"), *_rows(parts, "warm")]),
        default=0.0,
    )
    axes.set_ylim(bottom=0.85 * lowest)  # not from zero: the differences are a few percent
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return {"steps": figure}


def _rows(parts: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    steps = COLD if kind == "cold" else WARM
    return [parts[f"{kind}-{k}"] for k in steps if f"{kind}-{k}" in parts]


def _reference(parts: Mapping[str, Any]) -> dict[str, Any] | None:
    return parts.get(f"cold-{LEVELS}")


def _markdown(parts: Mapping[str, Any]) -> str:
    found = [*_rows(parts, "cold"), *_rows(parts, "warm")]
    lines = []
    if found:
        lines += [_protocol_line(found[0]), "", *_steps_table(parts), "", *_tenth_line(parts)]
    if "prediction" in parts:
        lines += ["", *_prediction_lines(parts["prediction"])]
    return "\n".join(lines)


def _protocol_line(row: dict[str, Any]) -> str:
    control = row["control"]
    return (
        f"Maze2D-{LAYOUT.capitalize()}, {row['n']} matched starts, {control['controller']}, "
        f"planning again every {control['replan_every']} steps, one candidate. A warm run's plans "
        "are made from noise with all steps where there is nothing to warm up from: the first of "
        "an episode, and one that would arrive later than the plan before it. “Calls” is the "
        "mean over all plans. “Lost” is against all steps from noise, by episode. “Through walls”: "
        "first plans with a point in a wall."
    )


def _steps_table(parts: Mapping[str, Any]) -> list[str]:
    lines = [
        "| start | steps | calls a plan | score [95 %] | success | lost, % [95 %] | "
        "through walls | median plan, ms | plans |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reference = _reference(parts)
    for kind in ("cold", "warm"):
        for row in _rows(parts, kind):
            loss = "–"
            if reference and row is not reference:
                loss = _lost_text(row, reference)
            lines.append(
                f"| {kind} | {row['network_calls']} | {row['calls_a_plan']:.1f} | "
                f"{score_text(row)} | {row['success_rate']:.0%} | {loss} | "
                f"{row['through_walls']:.0%} | {row['plan_ms']['median']} | {row['plans']} |"
            )
    return lines


def _tenth_line(parts: Mapping[str, Any]) -> list[str]:
    """The thesis's claim in one sentence, and what warm starting adds at the same step count."""
    warm, cold = parts.get(f"warm-{TENTH}"), parts.get(f"cold-{TENTH}")
    reference = _reference(parts)
    if not warm or not reference:
        return []
    text = (
        f"A warm start with a tenth of the steps ({TENTH} of {LEVELS}) loses "
        f"{_lost_text(warm, reference)} % of the score with all steps"
    )
    if cold:
        text += f", and {_lost_text(warm, cold)} % of that with {TENTH} steps from noise"
    return [text + " (paired, 95 %)."]


def _lost_text(row: dict[str, Any], reference: dict[str, Any]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*lost(row, reference))


def _prediction_lines(rows: list[dict[str, Any]]) -> list[str]:
    training = rows[0]["training"]
    seconds = {row["prediction"]: row["training"].get("seconds") for row in rows}
    spent = ", ".join(f"{k} {value / 60:.1f} min" for k, value in seconds.items() if value)
    control = rows[0]["control"]
    lines = [
        "Section C.3 item 9: two U-Maze models, equal but for what the network predicts "
        f"({training['steps']} training steps of {training['batch_size']} windows each"
        f"{spent and f': {spent}, one thread'}); {control['controller']}, planning again every "
        f"{control['replan_every']} steps.",
        "",
        "| prediction | sampler steps | score [95 %] | success | lost against clean, % [95 %] | "
        "through walls |",
        "|---|---|---|---|---|---|",
    ]
    clean = {row["steps"]: row for row in rows if row["prediction"] == "clean"}
    for row in rows:
        loss = _lost_text(row, clean[row["steps"]]) if row["prediction"] == "noise" else "–"
        lines.append(
            f"| {row['prediction']} | {row['steps']} | {score_text(row)} | "
            f"{row['success_rate']:.0%} | {loss} | {_share(row.get('through_walls'))} |"
        )
    return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
