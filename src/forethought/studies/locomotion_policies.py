"""The locomotion policies: learning curves of their SAC runs, and what the best of each earns.

The runs are those of ``sh benchmarks/run_sac.sh``, hours long and resumable; a part reads the curve
of one run as far as it has come, so it is computed anew (``--redo``) when the run has gone on.
Returns are of ten episodes of the deterministic policy; scores are normalized as D4RL's (Fu et al.
2020): 0 for a random policy, 100 for D4RL's expert.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.figures import MUTED
from forethought.online import CURVE
from forethought.registry import recipes, studies
from forethought.studies.base import Part, Study, StudySettings

TASKS = {"hopper": "#2f6690", "walker2d": "#e8743b", "halfcheetah": "#4f9d69"}
RUNS = Path("runs/sac")


@studies.register("locomotion-policies")
def locomotion_policies(runs: Path = RUNS) -> Study:
    """runs: folder of the SAC runs"""
    parts = tuple(
        Part(name=task, minutes=0.0, compute=partial(read_curve, task=task, runs=runs))
        for task in TASKS
    )
    return Study(
        title="Locomotion policies: learning curves of SAC",
        parts=parts,
        plot=plot,
        markdown=markdown,
    )


def read_curve(settings: StudySettings, *, task: str, runs: Path) -> dict[str, Any]:
    """The curve of a run so far, one row an evaluation, and its best snapshot."""
    file = runs / task / f"seed{settings.seed}" / CURVE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; train the policy with\n  TASKS={task} SEED={settings.seed} sh "
            "benchmarks/run_sac.sh\nwhich can be stopped and goes on where it was"
        )
    curve = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        {
            "env_steps": row["env_steps"],
            "updates": row["updates"],
            "return": round(row["return"], 1),
            "score": round(row["score"]["mean"], 1),
            "interval": np.round(row["score"]["interval"], 1).tolist(),
            "snapshot": row.get("snapshot", ""),
        }
        for row in curve["rows"]
    ]
    return {
        "recipe": curve["recipe"],
        "protocol": curve["protocol"],
        "seconds": curve["rows"][-1]["seconds"],
        "planned_updates": recipes[curve["recipe"]]().train.steps,
        "rows": rows,
    }


def best_row(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The evaluation with the highest return among those with a snapshot."""
    kept = [row for row in part["rows"] if row["snapshot"]] or part["rows"]
    return max(kept, key=lambda row: row["return"])


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Normalized score against environment steps."""
    if not parts:
        return {}
    figure = Figure(figsize=(6.4, 3.9), dpi=150, layout="constrained")
    axis = figure.subplots()
    for task, color in TASKS.items():
        if part := parts.get(task):
            steps = [row["env_steps"] / 1e6 for row in part["rows"]]
            low, high = np.array([row["interval"] for row in part["rows"]]).T
            axis.plot(steps, [row["score"] for row in part["rows"]], color=color, label=task)
            axis.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
    axis.axhline(100, color=MUTED, lw=0.8, ls="--")
    axis.set(xlabel="million environment steps", ylabel="D4RL-normalized score", xlim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return {"curves": figure}


def markdown(parts: Mapping[str, Any]) -> str:
    """One row a task."""
    lines = [
        "Ten episodes of the deterministic policy, one training seed; the best is the highest "
        "return among evaluations with a snapshot (chosen on these episodes, so a little too "
        "high). Shaded: 95 % interval over episodes.",
        "",
        "| task | environment steps | updates (planned) | last score | best return | best score "
        "[95 %] | at step | training hours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        if part := parts.get(task):
            last, best = part["rows"][-1], best_row(part)
            low, high = best["interval"]
            lines.append(
                f"| {task} | {last['env_steps']:,} | {last['updates']:,} "
                f"({part['planned_updates']:,}) | {last['score']:.1f} | {best['return']:,.0f} | "
                f"{best['score']:.1f} [{low:.1f}, {high:.1f}] | {best['env_steps']:,} | "
                f"{part['seconds'] / 3600:.1f} |"
            )
    return "\n".join(lines)
