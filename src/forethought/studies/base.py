"""What a study is: parts that are computed once and kept, and figures drawn from them alone.

``forethought study NAME`` computes the parts that ``results/NAME.json`` does not hold yet, saving
after each, so a study can be stopped at any time and goes on later. Drawing reads that file only:
``forethought study NAME --plot-only`` needs no model, data set or simulator.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from forethought.checkpoint import current_commit, hardware, write_result


@dataclass(frozen=True, kw_only=True)
class Part:
    """One piece of a study's work, saved as soon as it is done.

    minutes: about how long it takes on two CPU cores
    compute: takes the settings, returns anything JSON can hold
    """

    name: str
    minutes: float
    compute: Callable[[StudySettings], Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A figure or table: how it is computed, part by part, and how it is drawn.

    title: what it shows, and where in the thesis it stands
    plot: from the computed parts by name (some may be missing yet) to figures by name
    markdown: from the same to tables and findings in Markdown
    """

    title: str
    parts: tuple[Part, ...]
    plot: Callable[[Mapping[str, Any]], dict[str, Figure]]
    markdown: Callable[[Mapping[str, Any]], str]

    def matching(self, name: str) -> list[Part]:
        """The part of that name, or all whose names begin with it and a hyphen."""
        exact = [part for part in self.parts if part.name == name]
        return exact or [part for part in self.parts if part.name.startswith(f"{name}-")]


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What the user chose; the defaults are those of the published results."""

    episodes: int = 0
    """episodes a row; 0 = the study's own number"""
    seed: int = 0
    pretrained: Path = Path("pretrained")
    data: Path = Path("data")
    runs: Path = Path("runs/studies")
    """scratch folder: models a study trains, checkpoints to resume them from"""
    console: Console = field(default_factory=Console)


def run_study(
    name: str,
    study: Study,
    settings: StudySettings,
    file: Path,
    *,
    only: tuple[str, ...] = (),
    redo: bool = False,
    budget_minutes: float | None = None,
) -> dict[str, Any]:
    """Compute what ``file`` does not hold yet, saving after each part; returns its content.

    only: names of the parts wanted, or how they begin ("reacher" for "reacher-truth"), all by
        default;  redo: compute them even if they are there
    budget_minutes: parts that are estimated to end after this long are left for later
    """
    console, result = settings.console, load_study(file, name)
    wanted = {part.name for each in only for part in study.matching(each)}
    chosen = [part for part in study.parts if not only or part.name in wanted]
    due = [part for part in chosen if redo or part.name not in result["parts"]]
    minutes = sum(part.minutes for part in due)
    console.print(f"{study.title}\n{len(due)} of {len(study.parts)} parts, about {minutes:.0f} min")
    began = time.monotonic()
    for part in due:
        spent = (time.monotonic() - began) / 60
        if budget_minutes is not None and spent + part.minutes > budget_minutes:
            console.print(f"  {part.name}: left for later ({part.minutes:.0f} min)")
            continue
        console.print(f"  {part.name} (about {part.minutes:.0f} min) ...")
        start = time.monotonic()
        content = part.compute(settings)
        result = load_study(file, name)  # again: another process may have added parts of its own
        result["parts"][part.name] = content
        result["provenance"][part.name] = _provenance(time.monotonic() - start, settings)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_result(file, result)
    return result


def load_study(file: Path, name: str) -> dict[str, Any]:
    """A study's result file, or an empty result if there is none yet."""
    if not file.exists():
        return {"kind": "study", "study": name, "parts": {}, "provenance": {}}
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        found = result["study"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged or no study's result ({error!r}); move it away"
        ) from error
    if found != name:
        raise ValueError(f"{file} holds the study {found!r}, not {name!r}; choose another --out")
    return result


def _provenance(seconds: float, settings: StudySettings) -> dict[str, Any]:
    return {
        "command": "forethought " + shlex.join(sys.argv[1:]),
        "commit": current_commit(),
        "seed": settings.seed,
        "made": date.today().isoformat(),
        "wall_seconds": round(seconds, 1),
        "hardware": hardware(),
    }
