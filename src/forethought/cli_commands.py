"""The commands of ``forethought`` and their flags: each a frozen dataclass that tyro reads, and a
``run`` method. ``cli.py`` finds the one that was asked for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from forethought import commands
from forethought.checkpoint import Device
from forethought.config import (
    ControlConfig,
    Experiment,
    ModelConfig,
    OnlineConfig,
    PlannerConfig,
    TrainConfig,
)
from forethought.evaluation import EvaluationSettings, evaluate_checkpoint
from forethought.predictions import PredictionSettings, evaluate_predictions

console = Console()
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
Recipe = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class DataBuild:
    """Build a data set from scratch: maze-umaze, maze-medium, pendulum-policy and others."""

    name: Name
    out: Path | None = None
    """folder to write; default data/NAME"""
    seed: int = 0
    steps: int | None = None
    """environment steps; by default as many as the data set's builder says (mazes: a million)"""

    def run(self) -> None:
        commands.build_data(self.name, self.out, self.seed, self.steps, console)


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Print what a data set holds: episodes, steps, dimensions, ranges, histograms."""

    path: File

    def run(self) -> None:
        commands.show_data(self.path, console)


@dataclass(frozen=True, kw_only=True)
class DataImport:
    """Convert D4RL HDF5, OGBench npz or Minari data into a data-set folder."""

    source: Source
    """a file, or the id of a local Minari data set"""
    out: Path
    """folder to write"""

    def run(self) -> None:
        commands.import_data(self.source, self.out, console)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe; its settings follow as flags (see them with `forethought list RECIPE`)."""

    recipe: Recipe
    """a name from `forethought list`, or my_file.py:my_recipe"""
    out: Path | None = None
    """checkpoint folder; default runs/RECIPE/seedN"""
    data: str | None = None
    """data-set folder; default data/DATASET, built first if it does not exist"""
    device: Device = "auto"
    resume: bool = False
    """go on from the folder's last saved state"""
    model: ModelConfig
    train: TrainConfig

    def experiment(self) -> Experiment:
        """The recipe with the settings given as flags."""
        recipe = commands.find_recipe(self.recipe)
        return dataclasses.replace(recipe, model=self.model, train=self.train)

    def run(self) -> None:
        commands.train(self.experiment(), self.out, self.data, self.device, self.resume, console)


@dataclass(frozen=True, kw_only=True)
class TrainPlanner(Train):
    """Train a recipe that plans; its settings follow as flags."""

    planner: PlannerConfig
    control: ControlConfig

    def experiment(self) -> Experiment:
        changed = super().experiment()
        return dataclasses.replace(changed, planner=self.planner, control=self.control)


@dataclass(frozen=True, kw_only=True)
class TrainOnline(TrainPlanner):
    """Train an agent that gathers its own data; its settings follow as flags."""

    online: OnlineConfig

    def run(self) -> None:
        if self.data is not None:
            raise ValueError(
                f"--data {self.data}: {self.recipe} gathers its own data; leave it out"
            )
        experiment = dataclasses.replace(self.experiment(), online=self.online)
        commands.train(experiment, self.out, None, self.device, self.resume, console)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a checkpoint: plan, execute in physics, write a JSON with the protocol."""

    path: File
    """checkpoint folder"""
    settings: Annotated[EvaluationSettings, tyro.conf.arg(name="")] = EvaluationSettings()
    out: Path | None = None
    """result file; default PATH/evaluation/TASK-seedS.json"""
    planner: PlannerConfig
    control: ControlConfig

    def run(self) -> None:
        evaluate_checkpoint(self.path, self.settings, self.planner, self.control, self.out, console)


@dataclass(frozen=True, kw_only=True)
class EvaluatePredictions:
    """Score a gamma-model: distances from simulated occupancies, value errors, a JSON."""

    path: File
    """checkpoint folder"""
    settings: Annotated[PredictionSettings, tyro.conf.arg(name="")] = PredictionSettings()
    out: Path | None = None
    """result file; default PATH/evaluation/TASK-seedS.json"""

    def run(self) -> None:
        evaluate_predictions(self.path, self.settings, self.out, console)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Score a checkpoint against its speed on this machine: table, Pareto plot, JSON."""

    path: File
    """checkpoint folder"""
    episodes: int = 100
    """per row"""
    seed: int = 0
    quick: bool = False
    """fewer rows"""
    out: Path = Path("runs/bench")
    """folder for bench.json and bench.png"""
    planner: PlannerConfig
    control: ControlConfig

    def run(self) -> None:
        from forethought.bench import BenchSettings, run_bench

        settings = BenchSettings(episodes=self.episodes, seed=self.seed, quick=self.quick)
        run_bench(self.path, settings, self.planner, self.control, self.out, console)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Make one plan between two points of a maze: a picture of the denoising, and JSON."""

    path: File
    """checkpoint folder"""
    start: tuple[float, float]
    """row and column, in the frame of the observations"""
    goal: tuple[float, float]
    seed: int = 0
    out: Path = Path("runs/plan")
    """folder for plan.json and plan.png"""
    planner: PlannerConfig
    control: ControlConfig

    def run(self) -> None:
        points = (self.start, self.goal)
        commands.plan_once(
            self.path, points, self.planner, self.control, self.out, self.seed, console
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compute and draw a figure or table of the thesis: table-5-1, figure-5-3, ..."""

    name: Name
    out: Path | None = None
    """result file; default results/NAME.json. Parts it holds already are not computed again"""
    figures: Path = Path("runs/figures")
    """folder for the pictures"""
    plot_only: bool = False
    """draw what the result file holds; needs no model"""
    only: tuple[str, ...] = ()
    """parts to compute, all by default"""
    redo: bool = False
    """compute parts even if the file holds them"""
    budget: float | None = None
    """minutes; parts that would take longer are left for later"""
    episodes: int = 0
    """episodes a row; 0 = as published in docs/results.md"""
    seed: int = 0

    def run(self) -> None:
        from forethought.studies.base import StudySettings

        commands.run_and_draw_study(
            self.name,
            StudySettings(episodes=self.episodes, seed=self.seed, console=console),
            self.out or Path("results") / f"{self.name}.json",
            self.figures,
            only=self.only,
            redo=self.redo,
            budget=0.0 if self.plot_only else self.budget,
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """Turn result files into tables, figures and one self-contained HTML page."""

    results: tyro.conf.Positional[tuple[Path, ...]] = (Path("results"),)
    """files or folders; default results/"""
    out: Path = Path("runs/report")
    markdown: Path | None = None
    """also write the Markdown tables to this file"""

    def run(self) -> None:
        commands.make_report(self.results, self.out, self.markdown, console)


@dataclass(frozen=True, kw_only=True)
class List:
    """List recipes, data sets and environments, or all settings of one recipe."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = ""

    def run(self) -> None:
        commands.list_names(self.recipe, console)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole job in minutes: data, training, planning, execution, scores, report."""

    out: Path = Path("runs/demo")
    train_seconds: float = 60.0
    """about how long to train the small model"""
    episodes: int = 100
    """episodes per score"""
    seed: int = 0

    def run(self) -> None:
        from forethought.demo import run_demo

        run_demo(self.out, self.train_seconds, self.episodes, self.seed, console)
