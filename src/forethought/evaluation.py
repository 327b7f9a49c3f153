"""Scoring a checkpoint: its policy, its protocol, and reference rows on the same starts."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from forethought.checkpoint import (
    Device,
    current_commit,
    find_checkpoint,
    find_device,
    hardware,
    load_config,
    load_model,
    write_result,
)
from forethought.config import ControlConfig, Experiment, PlannerConfig, to_json
from forethought.controllers import make_controller
from forethought.envs.maze import MazeEnv
from forethought.failures import causes_of_failure, failed_examples
from forethought.models.base import Actor, Model
from forethought.planners.reactive import ReactiveConfig
from forethought.policy import PlanningPolicy, ReactivePolicy
from forethought.references import ceiling, published_scores, reference_policies
from forethought.registry import did_you_mean
from forethought.rollout import Evaluation, evaluate

N_EXAMPLES = 8  # executed paths kept in a result file, for its figures
N_FAILURES = 6  # and of failed episodes


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How many episodes, where, and beside what."""

    episodes: int = 100
    seed: int = 0
    multi: bool = False
    """random goals (Multi2D) instead of the maze's target"""
    parallel: int = 50
    """environments side by side; the score does not depend on it"""
    references: bool = True
    """also run the reference controllers on the same starts (mazes)"""
    device: Device = "cpu"
    """where the network runs; a seed means the same noise on each"""


def make_policy(
    model: Model, planner: PlannerConfig, control: ControlConfig
) -> PlanningPolicy | ReactivePolicy:
    """The policy that the settings describe."""
    built = planner.build(model)
    if isinstance(built, Actor):
        return ReactivePolicy(built)
    return PlanningPolicy(
        built,
        make_controller(control, model.spaces.action_dim),
        replan_every=control.replan_every,
        goal_time=control.goal_time,
        settled_within=control.settled_within,
        together=control.together,
    )


def evaluate_checkpoint(
    path: Path,
    settings: EvaluationSettings,
    planner: PlannerConfig,
    control: ControlConfig,
    out: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Score a checkpoint beside reference controllers on the same starts; write and print."""
    config = load_config(path)
    experiment: Experiment = config["experiment"]
    if settings.multi and "maze2d-" not in experiment.env:
        raise ValueError(f"--multi is for maze2d tasks; this checkpoint's is {experiment.env}")
    env_id = experiment.env.replace("maze2d-", "multi2d-") if settings.multi else experiment.env
    env_id = find_env(env_id, config)
    _check_critic(getattr(planner, "critic", ""), experiment)
    model = load_model(path).to(find_device(settings.device))
    policy = make_policy(model, planner, control)
    protocol = checkpoint_protocol(path, config, planner, control) | {"device": settings.device}
    imagined: list[np.ndarray | None] = []  # first plans, one an episode

    def keep_plans() -> None:
        if isinstance(policy, PlanningPolicy):
            imagined.extend(None if p is None else p.numpy() for p in policy.first_references)

    result = _run(policy, env_id, settings, protocol, f"evaluating {path}", console, keep_plans)
    if isinstance(policy, PlanningPolicy):
        result.protocol.update(plan_times(policy))
    data = {"kind": "evaluation", "recipe": experiment.name, **result.to_json()}
    if all(episode.successes is None for episode in result.paths):
        data["success_rate"] = None  # nothing is to be reached in this task
    data["references"] = _references(env_id, settings, control, console)
    if settings.references:
        data["references"] = ceiling(env_id, result.episodes) + data["references"]
    data["published"] = published_scores(env_id)
    data |= _maze_examples(env_id, result, imagined or [None] * result.n)
    task = env_id.split("/")[-1].removesuffix("-v0")
    out = out or path / "evaluation" / f"{task}-seed{settings.seed}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_result(out, data)
    _print_scores(data, console)
    console.print(f"written to {out}")
    return data


def plan_times(policy: PlanningPolicy) -> dict[str, Any]:
    """How many plans a policy has made, and the wall time of one."""
    times = 1e3 * np.array(policy.plan_seconds)
    return {
        "plans": len(times),
        "plan_ms": {
            "median": round(float(np.median(times)), 2),
            "p99": round(float(np.percentile(times, 99)), 2),
        },
    }


def _run(
    policy: Any,
    env_id: str,
    settings: EvaluationSettings,
    protocol: dict[str, Any],
    label: str,
    console: Console,
    after_wave: Callable[[], None] = lambda: None,
) -> Evaluation:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(label, total=settings.episodes)

        def on_episode(done: int) -> None:
            after_wave()
            progress.update(task, completed=done)

        return evaluate(
            policy,
            env_id,
            settings.episodes,
            settings.seed,
            n_parallel=settings.parallel,
            protocol=protocol,
            on_episode=on_episode,
        )


def find_env(env_id: str, config: dict[str, Any]) -> str:
    """The id in Gymnasium's registry, what registers it imported; refuse what does not fit."""
    module, has_module, name = env_id.rpartition(":")
    if has_module and str(Path.cwd()) not in sys.path:  # Gymnasium imports the module
        sys.path.insert(0, str(Path.cwd()))
    if has_module:
        importlib.import_module(module)
    if name not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("forethought/")]
        raise ValueError(
            did_you_mean(env_id, known, kind="environment")
            + ". Name one of your own MODULE:ID, MODULE being what registers it with Gymnasium: "
            "a file in this folder, without .py, or an installed package"
        )
    env = gymnasium.make(name, disable_env_checker=True)
    shape, dim = env.observation_space.shape, config["spaces"].observation_dim
    env.close()
    if shape != (dim,):
        raise ValueError(
            f"{env_id} has observations of shape {shape}; this checkpoint was trained on "
            f"observations of {dim} dimensions"
        )
    return name


def _check_critic(path: str, experiment: Experiment) -> None:
    """Refuse values that were learned for another task, though of the same spaces."""
    if not path or not (folder := find_checkpoint(path)).is_dir():
        return  # there is none, or the planner says what is missing
    theirs = load_config(folder)["experiment"].env
    if theirs != experiment.env:
        raise ValueError(
            f"planner.critic {path} has values for {theirs}; this model acts in {experiment.env}. "
            "Train both on the same data set"
        )


def checkpoint_protocol(
    path: Path, config: dict[str, Any], planner: PlannerConfig, control: ControlConfig
) -> dict[str, Any]:
    """How a checkpoint is scored, was trained and on what, for the record beside its score."""
    training = path / "training.json"
    facts = json.loads(training.read_text()) if training.is_file() else {}
    settings = to_json(planner)
    sampler = settings.get("sampler", {})
    levels = to_json(config["experiment"].model).get("denoising_steps")
    return {
        "checkpoint": str(path),
        **_control_protocol(planner, control),
        "candidates": settings.get("candidates"),
        "network_calls": sampler.get("steps") or levels,
        "sampler": sampler.get("kind"),
        "planner": settings,
        "train_seconds": facts.get("train_seconds"),
        "train_steps": facts.get("steps"),
        "dataset": {key: config["dataset"].get(key) for key in ("name", "fingerprint", "seed")},
        "command": "forethought " + shlex.join(sys.argv[1:]),
        "commit": current_commit(),
        "made": date.today().isoformat(),
        "hardware": hardware(),
    }


def _control_protocol(planner: PlannerConfig, control: ControlConfig) -> dict[str, Any]:
    if isinstance(planner, ReactiveConfig):
        return {"controller": "the model's own actions"}
    return {
        "replan_every": control.replan_every,
        "goal_time": control.goal_time,
        "controller": control.controller,
        "control": to_json(control),
    }


def _references(
    env_id: str, settings: EvaluationSettings, control: ControlConfig, console: Console
) -> list[dict[str, Any]]:
    if not settings.references:
        return []
    rows = []
    for name, policy in reference_policies(env_id, control).items():
        result = _run(policy, env_id, settings, {}, name, console)
        rows.append({"name": name, "score": result.score, "success_rate": result.success_rate})
    return rows


def _maze_examples(
    env_id: str, result: Evaluation, imagined: Sequence[np.ndarray | None]
) -> dict[str, Any]:
    """The layout, the executed and the imagined path of the first episodes, and failures."""
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if not isinstance(env, MazeEnv):
        return {}
    examples = [
        {
            "start": rounded(episode.observations[0, :2]),
            "goal": rounded(episode.goal[:2]),
            "executed": rounded(episode.observations[:, :2]),
            "imagined": None if plan is None else rounded(plan[:, :2]),
            "success": record["success"],
        }
        for episode, plan, record in zip(result.paths, imagined, result.episodes, strict=True)
        if episode.goal is not None
    ]
    return {
        "layout": "\n".join(env.layout.rows),
        "examples": examples[:N_EXAMPLES],
        "failures": failed_examples(result.paths, imagined, env.layout, N_FAILURES),
        "causes": causes_of_failure(result.paths, env.layout),
    }


def rounded(array: Any) -> list:
    return np.round(np.asarray(array, dtype=np.float64), 3).tolist()


def interval_text(score: dict[str, Any]) -> str:
    """A score's interval for a table; one episode has none."""
    return "–" if score["interval"] is None else "{:.1f} to {:.1f}".format(*score["interval"])


def _print_scores(data: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{data['recipe']} in {data['protocol']['env']}, n = {data['n']}")
    unit = "return" if data["protocol"]["reference_returns"] is None else "score (normalized)"
    for column in ("", unit, "95 % interval", "success"):
        table.add_column(column)
    rows = [{"name": "planner", **data}, *data["references"]]
    for row in rows:
        rate, interval = row["success_rate"], interval_text(row["score"])
        success = "–" if rate is None else f"{rate:.1%}"
        table.add_row(row["name"], f"{row['score']['mean']:.1f}", interval, success)
    for row in data["published"]:
        table.add_row(f"{row['name']} (published)", f"{row['score']:.1f}", "", "")
    console.print(table)
    if "plan_ms" in data["protocol"]:
        console.print(f"one plan: median {data['protocol']['plan_ms']['median']} ms")
