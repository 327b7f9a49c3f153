"""What the commands do, one function each, free of argument parsing."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from rich.table import Table

from forethought import report
from forethought.checkpoint import (
    TRAIN_STATE,
    WEIGHTS,
    Device,
    find_device,
    load_config,
    load_model,
    write_result,
)
from forethought.config import ControlConfig, Experiment, PlannerConfig, to_json
from forethought.data.episodes import EpisodeDataset
from forethought.data.imports import import_dataset
from forethought.data.summary import print_summary
from forethought.envs.maze import MazeEnv
from forethought.evaluation import make_policy
from forethought.figures import figure_strip
from forethought.plan_file import execute_plan
from forethought.policy import PlanningPolicy
from forethought.registry import Registry, datasets, did_you_mean, recipes, studies
from forethought.studies.base import Study, StudySettings, run_study
from forethought.training import train_experiment


def build_data(name: str, out: Path | None, seed: int, steps: int | None, console: Console) -> Path:
    """Build a registered data set and save it; None = as many steps as its builder says."""
    builder = datasets[name]
    if steps is None:
        steps = inspect.signature(builder).parameters["n_steps"].default
    out = out or Path("data") / name
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"building {name}", total=steps)
        dataset = builder(
            seed=seed, n_steps=steps, on_progress=lambda done: progress.update(task, completed=done)
        )
    dataset.save(out)
    console.print(f"{dataset.n_steps:,} steps in {out} (fingerprint {dataset.fingerprint})")
    return out


def show_data(path: Path, console: Console) -> None:
    """Print a data set's summary."""
    print_summary(EpisodeDataset.open(path), console)


def import_data(source: str, out: Path, console: Console) -> None:
    """Convert another format and save it."""
    dataset = import_dataset(source)
    dataset.save(out)
    console.print(f"{len(dataset):,} episodes, {dataset.n_steps:,} steps in {out}")
    if not dataset.rewards.any():
        console.print("no rewards were read: all are zero")


def open_data(experiment: Experiment, path: str | None, console: Console) -> EpisodeDataset:
    """The experiment's data set: a given folder, or data/NAME, built first if it is missing."""
    folder = Path(path) if path else Path(experiment.dataset)
    if folder.is_dir() or path:
        return EpisodeDataset.open(folder)
    folder = Path("data") / experiment.dataset
    if not folder.is_dir():
        build_data(experiment.dataset, folder, 0, None, console)
    return EpisodeDataset.open(folder)


def find_recipe(name: str) -> Experiment:
    """The experiment of a registered recipe, or of ``my_file.py:my_recipe``."""
    file, separator, function = name.rpartition(":")
    if not separator or not file.endswith(".py"):
        return recipes[name]()
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a recipe is a name or FILE.py:FUNCTION")
    module = _load_file(path.resolve(), path.stat().st_mtime_ns)
    if function not in vars(module):
        raise ValueError(did_you_mean(function, sorted(vars(module)), kind=f"function in {path}"))
    return vars(module)[function]()


@functools.lru_cache
def _load_file(path: Path, _changed: int) -> ModuleType:
    """A file as a module; run once, unless it has changed."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def find_experiment(subject: str, *, is_recipe: bool) -> Experiment:
    """The settings of a recipe, or those stored in a checkpoint folder."""
    return find_recipe(subject) if is_recipe else load_config(subject)["experiment"]


def train(
    experiment: Experiment,
    out: Path | None,
    data: str | None,
    device: Device,
    resume: bool,
    console: Console,
) -> None:
    """Train an experiment into a checkpoint folder."""
    out = out or Path("runs") / experiment.name / f"seed{experiment.train.seed}"
    if resume and not (out / TRAIN_STATE).exists():
        raise FileNotFoundError(f"{out} holds no saved state to resume; train without --resume")
    if not resume and (out / TRAIN_STATE).exists():
        raise FileExistsError(
            f"{out} holds an earlier run; go on with --resume, or choose another --out"
        )
    if not resume and (out / WEIGHTS).exists():
        raise FileExistsError(f"{out} holds a trained model; choose another --out")
    found = find_device(device)
    if experiment.online is not None:
        _train_online(experiment, out, str(found), resume, console)
        return
    dataset = open_data(experiment, data, console)
    window, longest = getattr(experiment.model, "window", 0), int(np.diff(dataset.starts).max()) - 1
    if window > longest:
        console.print(
            f"windows of {window} transitions, but the longest episode has {longest}: the rest is "
            "padding, which costs time; see model.context and model.horizon"
        )
    console.print(f"training {experiment.name} for {experiment.train.steps:,} steps into {out}")
    train_experiment(experiment, dataset, out, device=found, resume=resume)
    words = "" if experiment.planner is None else " --episodes 100"
    advice = f"score it with\n  forethought evaluate {out}{words}"
    if not experiment.env:
        advice = f"the recipe names no environment to act in; its model is in {out}"
    console.print(f"done; {advice}")


def _train_online(
    experiment: Experiment, out: Path, device: str, resume: bool, console: Console
) -> None:
    from forethought.online import DATASET, train_online

    console.print(
        f"training {experiment.name} in {experiment.env} for {experiment.train.steps:,} updates "
        f"into {out}"
    )
    train_online(experiment, out, device=device, resume=resume)
    console.print(
        f"done; what it did is in {out / DATASET}; score it with\n  forethought evaluate {out}"
    )


def plan_once(
    path: Path,
    points: tuple[tuple[float, float], tuple[float, float]],
    planner: PlannerConfig,
    control: ControlConfig,
    out: Path,
    seed: int,
    console: Console,
) -> None:
    """Plan and execute once in a maze; write plan.json, plan.png and the viewer, plan.html."""
    config = load_config(path)
    model = load_model(path)
    env = gymnasium.make(config["experiment"].env, disable_env_checker=True)
    if not isinstance(env.unwrapped, MazeEnv):
        raise ValueError(
            f"`forethought plan` draws plans in mazes; {path} was trained for "
            f"{config['experiment'].env}. `forethought evaluate {path}` acts there"
        )
    options = {"start": points[0], "goal": points[1]}
    policy = make_policy(model, planner, control)
    if not isinstance(policy, PlanningPolicy):
        raise ValueError(f"{path} acts without planning; `forethought evaluate` scores it")
    data = execute_plan(env, policy, options, seed) | {"recipe": config["experiment"].name}
    out.mkdir(parents=True, exist_ok=True)
    write_result(out / "plan.json", data)
    figure_strip(data).savefig(out / "plan.png", dpi=150)
    page = report.write_html([data], out / "plan.html", title=f"A plan of {data['recipe']}")
    arrived = "arrives" if data["success"] else "does not arrive"
    console.print(
        f"plan of {data['arrival']} steps in {1e3 * data['seconds']:.1f} ms; executed, it "
        f"{arrived}. "
        f"See {out / 'plan.png'}, or open {page} to look through its making"
    )


def make_report(
    results: tuple[Path, ...], out: Path, markdown: Path | None, console: Console
) -> None:
    """Write report.html and figures, and the Markdown tables if asked for."""
    loaded = report.load_results(results)
    page = report.write_report(loaded, out)
    if markdown:
        report.write_results_markdown(loaded, markdown)
    console.print(f"{len(loaded)} results; open {page}")


def run_and_draw_study(
    name: str,
    settings: StudySettings,
    file: Path,
    figures: Path,
    *,
    only: tuple[str, ...],
    redo: bool,
    budget: float | None,
) -> None:
    """Compute what is missing of a study, draw its figures, print its tables."""
    study: Study = studies[name]()
    unknown = [part for part in only if not study.matching(part)]
    if unknown:
        names = [known.name for known in study.parts]
        raise ValueError(did_you_mean(unknown[0], names, kind=f"part of {name}"))
    result = run_study(name, study, settings, file, only=only, redo=redo, budget_minutes=budget)
    if not result["parts"]:
        raise ValueError(f"{file} holds no part of {name} yet; run it without --plot-only")
    figures.mkdir(parents=True, exist_ok=True)
    for label, figure in study.plot(result["parts"]).items():
        path = figures / f"{name}-{label}.png"
        figure.savefig(path, dpi=150)
        settings.console.print(f"drawn: {path}")
    settings.console.print(Markdown(study.markdown(result["parts"])))


def list_names(recipe: str, console: Console) -> None:
    """Print recipes, data sets and environments, the recipes of a family, or one's settings."""
    family = [name for name in recipes if name.startswith(f"{recipe.rstrip('/')}/")]
    if family:
        _print_names("recipes", recipes, family, console)
        return
    if recipe:
        console.print_json(json.dumps(to_json(find_recipe(recipe))))
        return
    for title, registry in (("recipes", recipes), ("data sets", datasets), ("studies", studies)):
        _print_names(title, registry, list(registry), console)
    names = [name for name in gymnasium.registry if name.startswith("forethought/")]
    console.print("environments\n  " + "\n  ".join(sorted(names)))
    console.print("\nAll settings of a recipe: forethought list RECIPE")


def _print_names(title: str, registry: Registry, names: list[str], console: Console) -> None:
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True, min_width=max(map(len, names)))
    table.add_column()
    for name in names:
        entry = registry[name]
        doc = getattr(entry, "func", entry).__doc__ or ""
        table.add_row(name, entry().title if registry is studies else doc.partition("\n")[0])
    console.print(table)
