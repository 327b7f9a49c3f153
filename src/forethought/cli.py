"""The command line: ``forethought data | train | evaluate | plan | study | report | ...``.

Each command is a frozen dataclass whose fields are its flags (read by tyro) and a ``run`` method. A
recipe's own settings are flags too: ``forethought train diffuser/maze-umaze --train.steps 100``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from gymnasium.error import Error as GymnasiumError
from rich.console import Console

import forethought.envs  # noqa: F401  registers the environments
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
from forethought.registry import recipes
from forethought.training import TrainingInterrupted

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


_COMMANDS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "bench": Bench,
    "plan": Plan,
    "study": Study,
    "report": Report,
    "list": List,
    "demo": Demo,
}
_DATA_COMMANDS: dict[str, Any] = {"build": DataBuild, "info": DataInfo, "import": DataImport}

_HELP = """forethought: learn generative models of trajectories from logged data, and plan with
them.

  forethought demo                             see all of it run, in minutes
  forethought list                             what there is: recipes, data sets, environments
  forethought data build maze-umaze            make a data set (or: data import FILE, info FOLDER)
  forethought train diffuser/maze-umaze        learn from it
  forethought evaluate runs/diffuser/maze-umaze/seed0 --episodes 100
  forethought bench runs/diffuser/maze-umaze/seed0         score against planning time, here
  forethought plan pretrained/diffuser/maze-large --start 1 1 --goal 7 9
  forethought study table-5-1                  recompute a table or figure of the thesis
  forethought report runs --out report         tables, figures, one HTML page

Every command explains its flags: forethought train diffuser/maze-umaze --help
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; user errors become one line on stderr and exit code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _parse(words).run()
    except TrainingInterrupted as error:
        command = shlex.join(word for word in words if word != "--resume")
        _fail(f"{error}. Saved; go on with:\n  forethought {command} --resume", code=130)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except (ValueError, KeyError, OSError, ArithmeticError, ImportError, GymnasiumError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        _fail("error: " + " ".join(str(message).split()), code=1)


def _fail(message: str, *, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)


def _parse(words: list[str]) -> Any:
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        raise SystemExit(0)
    if words[0] == "--version":
        print(forethought.__version__)
        raise SystemExit(0)
    name, rest = words[0], words[1:]
    known = _COMMANDS
    if name == "data" and rest and rest[0] not in ("-h", "--help"):
        name, rest, known = rest[0], rest[1:], _DATA_COMMANDS
    elif name == "data":
        print(
            "forethought data build NAME | info FOLDER | import FILE --out FOLDER  (each has "
            "--help)"
        )
        raise SystemExit(0)
    if name not in known:
        names = [*known, "data"] if known is _COMMANDS else list(known)
        raise ValueError(commands.did_you_mean(name, names, kind="command"))
    program = f"forethought {'data ' if known is _DATA_COMMANDS else ''}{name}"
    return _parse_command(known[name], program, rest)


def _parse_command(command: Any, program: str, words: list[str]) -> Any:
    """Parse flags; commands about a recipe or checkpoint take its settings as defaults."""
    fields = {field.name: field for field in dataclasses.fields(command)}
    if command is not Train and "planner" not in fields:
        return _parse_flags(command, program, words)
    first = next(iter(fields)).upper()
    if words and words[0] in ("-h", "--help"):
        print(f"usage: {program} {first} [flags]\n\n{command.__doc__}")
        print(f"\nAll its flags: {program} {first} --help. Recipes: forethought list")
        raise SystemExit(0)
    if not words or words[0].startswith("-"):
        raise ValueError(f"{first} comes first: {program} {first} [flags]; see `forethought list`")
    experiment: Experiment = commands.find_experiment(words[0], is_recipe=command is Train)
    command = _for_experiment(command, experiment)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(command):
        if field.name in ("model", "train", "planner", "control", "online"):
            given[field.name] = getattr(experiment, field.name)
        elif field.default is not dataclasses.MISSING:
            given[field.name] = field.default
        else:
            given[field.name] = tyro.MISSING
    return _parse_flags(command, program, words, default=command(**given))


def _for_experiment(command: Any, experiment: Experiment) -> Any:
    """The command with the flags that fit the experiment; ValueError if it can have none."""
    if command is Train:
        if experiment.planner is None:
            return Train
        return TrainPlanner if experiment.online is None else TrainOnline
    if command is Evaluate and experiment.planner is None:
        return EvaluatePredictions
    experiment.require_planner()
    return command


def _parse_flags(command: Any, program: str, words: list[str], **default: Any) -> Any:
    """``tyro.cli``, with its box of an error message turned into a line like all others."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                command, args=words, prog=program, description=command.__doc__, **default
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip(" │╭╮╰╯─") for line in box.getvalue().splitlines()[1:]]
    text = "; ".join(line for line in lines if line.strip("-"))
    raise ValueError(text.replace(":;", ":"))


__all__ = ["main", "recipes"]
