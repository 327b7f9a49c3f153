"""What a line of words means: a command with its flags.

The commands and their flags are in ``cli_commands.py``. A recipe's own settings are flags too:
``forethought train diffuser/maze-umaze --train.steps 100``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import Any

import tyro

import forethought.envs  # noqa: F401  registers the environments
from forethought import commands
from forethought.cli_commands import (
    Bench,
    DataBuild,
    DataImport,
    DataInfo,
    Demo,
    Evaluate,
    EvaluatePredictions,
    List,
    Plan,
    Report,
    Study,
    Train,
    TrainOnline,
    TrainPlanner,
)
from forethought.config import Experiment

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


def parse(words: list[str]) -> Any:
    """The command, ready to ``run``; ValueError for words that mean nothing."""
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
    raise ValueError(_message_in(box.getvalue()))


def _message_in(box: str) -> str:
    """One line of a box's text: wrapped lines joined, its parts (after a rule) told apart."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        words = line.strip(" │╭╮╰╯─")
        if words.strip("-"):
            parts[-1].append(words)
        elif parts[-1]:
            parts.append([])
    return "; ".join(" ".join(lines) for lines in parts if lines)
