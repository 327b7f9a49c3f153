"""Imports point down only, from each module to its own layer or a lower one.

Counted are imports that run when a module is imported; those inside functions and under
``if TYPE_CHECKING:`` are free.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent

# a folder's layer is that of all its modules
LAYERS = {
    "types": 0,
    "registry": 0,
    "config": 0,
    "checkpoint": 0,
    "data": 1,
    "envs": 1,
    "nn": 2,
    "models": 3,
    "agents": 3,
    "planners": 4,
    "guides": 4,
    "controllers": 5,
    "safety": 5,
    "policy": 5,
    "rollout": 6,
    "scores": 6,
    "distances": 6,
    "occupancy": 6,
    "collector": 6,
    "datasets": 7,
    "training": 7,
    "distillation": 7,
    "failures": 6,
    "online": 7,
    "snapshots": 7,
    "progress": 7,
    "references": 7,
    "prediction_tables": 8,
    "predictions": 8,
    "report": 8,
    "figures": 8,
    "viewer": 8,
    "study_sections": 8,
    "plan_file": 8,
    "recipes": 8,
    "studies": 8,
    "bench": 8,
    "commands": 8,
    "evaluation": 8,
    "demo": 8,
    "cli_commands": 8,
    "cli_parse": 8,
    "cli": 9,
    "__main__": 9,
    "__init__": 9,  # the public names, from every layer
}


def module_of(path: Path) -> str:
    """Dotted name below the package, e.g. ``models.diffuser``; an __init__ is its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def layer_of(module: str) -> int:
    return LAYERS[module.split(".")[0]]


def running_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, however deep in if, try, with, loops and classes."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from running_statements(statement.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from running_statements(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from running_statements(handler.body)


def imports_of(module: str, source: str) -> set[str]:
    """Modules of the package that ``source`` imports when it is imported itself."""
    found = set()
    for statement in running_statements(ast.parse(source).body):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert not statement.level, f"{module} uses a relative import; write the full name"
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "forethought":
                continue
            # "from forethought.types import Pin" names a value: its module is the longest match
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts = parts[:-1]
            found.add(".".join(parts) or "__init__")
    return found


GRAPH = {name: imports_of(name, path.read_text("utf-8")) for name, path in MODULES.items()}


def test_every_module_has_a_layer():
    unknown = sorted({name for name in MODULES if name.split(".")[0] not in LAYERS})
    assert not unknown, (
        f"no layer is known for {', '.join(unknown)}; decide it with the table in the design notes "
        "and add it to LAYERS in tests/test_layers.py"
    )


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in LAYERS])
def test_imports_point_down(module):
    upward = {name for name in GRAPH[module] if layer_of(name) > layer_of(module)}
    assert not upward, (
        f"{module} (layer {layer_of(module)}) imports "
        + ", ".join(f"{name} (layer {layer_of(name)})" for name in sorted(upward))
        + "; move the import into a function or the code to another layer"
    )


def test_data_and_environments_ignore_each_other():
    for module, imported in GRAPH.items():
        folders = {name.split(".")[0] for name in imported}
        if module.split(".")[0] == "data":
            assert "envs" not in folders, f"{module} imports an environment"
        if module.split(".")[0] == "envs":
            assert "data" not in folders, f"{module} imports data"


def test_no_cycles():
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module in done:
            return
        for name in sorted(GRAPH[module]):
            visit(name, (*trail, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_reader_of_imports_sees_what_runs_and_nothing_else():
    source = """
from typing import TYPE_CHECKING
import forethought.envs
from forethought import cli, __version__
from forethought.models.diffuser import Diffuser
if TYPE_CHECKING:
    from forethought.policy import Policy
else:
    import forethought.scores
try:
    import numpy
except ImportError:
    from forethought.training import train
def late():
    from forethought.commands import evaluate
class Thing:
    from forethought.data import views
"""
    assert imports_of("x", source) == {
        "envs",
        "cli",
        "__init__",
        "models.diffuser",
        "scores",
        "training",
        "data.views",
    }
