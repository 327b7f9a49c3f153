"""The whole job in minutes: build data, train, plan, execute, score, report.

A small U-Maze Diffuser is trained for about a minute and scored beside the shipped model of the
same maze, the reference controllers and the thesis.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from forethought import commands, evaluation
from forethought.config import Experiment
from forethought.data.episodes import EpisodeDataset
from forethought.registry import recipes
from forethought.training import time_steps, train_experiment

DATA_STEPS = 200_000
RECIPE = "diffuser/maze-umaze"


def run_demo(out: Path, train_seconds: float, episodes: int, seed: int, console: Console) -> None:
    """Run everything into folder ``out`` (replaced if it exists) and print where the report is."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    if out.exists():
        _remove_earlier_demo(out)
    out.mkdir(parents=True)
    console.rule("1/4  data: a scripted controller wanders through a U-shaped maze")
    data = commands.build_data("maze-umaze", out / "data", seed, DATA_STEPS, console)
    dataset = EpisodeDataset.open(data)

    console.rule(f"2/4  training a small Diffuser for about {train_seconds:.0f} s")
    experiment = _small_experiment(dataset, train_seconds, seed)
    model_dir = out / "model"
    train_experiment(experiment, dataset, model_dir, device="cpu")

    console.rule("3/4  planning to the goal, and executing the plans in physics")
    settings = evaluation.EvaluationSettings(episodes=episodes, seed=seed)
    results = out / "results"
    results.mkdir()
    scores = {"trained just now": _score(model_dir, settings, results / "demo.json", console)}
    shipped = find_pretrained(RECIPE)
    if shipped is None:
        console.print(
            "(the shipped model is not here: the demo was not run from a source checkout)"
        )
    else:
        alone = replace(settings, references=False)
        scores["shipped model"] = _score(shipped, alone, results / "shipped.json", console)
    points = ((1.0, 1.0), (3.0, 1.0))
    source = shipped or model_dir
    planner, control = experiment.require_planner(), experiment.control
    commands.plan_once(source, points, planner, control, results, seed, console)

    console.rule("4/4  report")
    commands.make_report((results,), out / "report", None, console)
    _print_table(scores, console)
    minutes = (time.perf_counter() - began) / 60
    console.print(
        f"[bold]report: {(out / 'report' / 'report.html').resolve()}[/] ({minutes:.1f} min)"
    )


def _remove_earlier_demo(out: Path) -> None:
    """Empty ``out`` if a demo made it; anything else is not ours to delete."""
    if any(out.iterdir()) and not (out / "data" / "dataset.json").is_file():
        raise FileExistsError(f"{out} exists and is not an earlier demo; choose another --out")
    shutil.rmtree(out)


def find_pretrained(recipe: str) -> Path | None:
    """The shipped checkpoint of a recipe: beside the source tree, or below the working folder."""
    for root in (Path(__file__).parents[2], Path.cwd()):
        folder = root / "pretrained" / recipe
        if folder.is_dir():
            return folder
    return None


def _small_experiment(dataset: EpisodeDataset, seconds: float, seed: int) -> Experiment:
    full = recipes[RECIPE]()
    model = replace(full.model, dim=32, reach_pairs=256, reach_width=128)  # type: ignore[call-arg]
    train = replace(full.train, batch_size=32, seed=seed, learning_rate=2e-3, ema_decay=0.99)
    experiment = replace(full, name="demo", model=model, train=train)
    steps = max(20, int(seconds / time_steps(experiment, dataset, n_steps=10)))
    return replace(experiment, train=replace(train, steps=steps, warmup_steps=min(50, steps // 4)))


def _score(
    path: Path, settings: evaluation.EvaluationSettings, out: Path, console: Console
) -> dict[str, Any]:
    experiment = commands.find_experiment(str(path), is_recipe=False)
    planner, control = experiment.require_planner(), experiment.control
    return evaluation.evaluate_checkpoint(path, settings, planner, control, out, console)


def _print_table(scores: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table(title="Maze2D U-Maze, normalized score (100 = D4RL's reference expert)")
    for column in ("", "score", "95 % interval", "success", "one plan"):
        table.add_column(column)
    for name, data in scores.items():
        table.add_row(
            name,
            f"{data['score']['mean']:.1f}",
            evaluation.interval_text(data["score"]),
            f"{data['success_rate']:.0%}",
            f"{data['protocol']['plan_ms']['median']:.0f} ms",
        )
    for row in next(iter(scores.values()))["published"]:
        table.add_row(f"{row['name']}, published", f"{row['score']:.1f}", "", "", "")
    console.print(table)
