"""Figure 5.3d: rewards that training never saw, alone and added up, and what following them costs.

A reward is minus the distance at which a plan passes a place. The guide's gradient bends the plan
toward the place, and may bend it through a wall: how much is decided by where the gradient enters
(``at``), how large its steps are (``scale``), how many are taken, and the noise level at which it
stops, so that the last denoising steps can mend the plan. The part ``guidance`` measures reward
against feasibility over all of these, on tasks of its own; the part ``rewards`` then uses the
settings with the most plans that are feasible and pass both places.

Several candidates are judged in three ways: by reward, by the model's judge of transitions
(``Diffuser.plausibility``), and by reward among the more plausible half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from forethought.envs.maze import TIME_STEP
from forethought.envs.maze_layout import CENTER_SHIFT, Cell
from forethought.guides import weighted_sum
from forethought.models.base import GuidanceConfig, SamplerConfig
from forethought.models.diffuser import Diffuser
from forethought.scores import mean_and_interval
from forethought.studies.base import StudySettings
from forethought.studies.figure_5_3_plans import (
    MAZE,
    MOVING,
    are_feasible,
    cells_between,
    checkpoint_path,
    interpolate,
    load_large,
    sample_plans,
)
from forethought.studies.figure_5_3_tables import guidance_name
from forethought.types import Guide, Trajectory

ROWS = 36  # of a plan
CLOSE = 0.5  # a place is visited if the path comes this near, in units of cells
EVERY_LEVEL = SamplerConfig(kind="ddpm", steps=0)
GUIDED = replace(EVERY_LEVEL, guidance=GuidanceConfig(at="clean", scale=100.0))  # the sweep's best
SWEEP_SEED = 1_000  # added to the study's: the sweep's tasks are not those of the table


def _plain(at: Literal["mean", "noisy", "clean"], scale: float, **more: int) -> GuidanceConfig:
    return GuidanceConfig(at=at, scale=scale, scale_by_variance=False, **more)


SWEEP = (
    *(_plain("noisy", scale) for scale in (0.03, 0.1, 0.3)),
    *(_plain("mean", scale) for scale in (0.01, 0.03, 0.1)),
    *(_plain("clean", scale) for scale in (0.01, 0.03, 0.1)),
    *(_plain("clean", scale, inner_steps=4) for scale in (0.0025, 0.0075, 0.025)),
    *(_plain(at, scale, stop_level=16) for at in ("mean", "clean") for scale in (0.1, 0.3, 1.0)),
    *(_plain(at, scale, stop_level=32) for at in ("mean", "clean") for scale in (0.3, 1.0, 3.0)),
    *(
        GuidanceConfig(at=at, scale=scale)  # the thesis's form, with "mean" and 0.1
        for at in ("noisy", "mean", "clean")
        for scale in (0.1, 10.0, 30.0, 100.0, 300.0)
    ),
    *(GuidanceConfig(at="mean", scale=scale, inner_steps=4) for scale in (3.0, 10.0, 30.0)),
)


@dataclass(frozen=True)
class Tasks:
    """pairs: of start and goal;  places: (tasks, 2, 2), A and B, in observation coordinates"""

    pairs: list[tuple[Cell, Cell]]
    places: Tensor

    def guides(self, samples: int) -> dict[str, Guide | None]:
        """No reward, each place's, and their sum, for ``samples`` plans of every task."""
        by = [pass_by(self.places[:, side].repeat_interleave(samples, dim=0)) for side in (0, 1)]
        both = weighted_sum((1.0, by[0]), (1.0, by[1]))
        return {"no reward": None, "A": by[0], "B": by[1], "A + B": both}


def pass_by(places: Tensor) -> Guide:
    """Minus the distance of each plan's nearest row to its place (batch, 2), softly minimal."""

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        offset = trajectory.observations[..., :2] - places[:, None]
        distance = (offset.square().sum(dim=-1) + 1e-6).sqrt()
        return 0.1 * torch.logsumexp(-distance / 0.1, dim=-1)

    return guide


def draw_tasks(count: int, generator: Generator) -> Tasks:
    """Starts, goals and two places off the shortest path that a detour of a few cells visits."""
    cells, found = MAZE.free_cells(), []
    while len(found) < count:
        start, goal, a, b = (cells[i] for i in generator.integers(len(cells), size=4))
        path = MAZE.shortest_path(start, goal)
        if not 8 <= len(path) - 1 <= 10 or a in path or b in path or cells_between(a, b) < 3:
            continue
        if cells_between(start, a) + cells_between(a, b) + cells_between(b, goal) <= 12:
            found.append((start, goal, a, b))
    places = torch.tensor([[a, b] for _, _, a, b in found]) + CENTER_SHIFT
    return Tasks([(start, goal) for start, goal, _, _ in found], places)


def measure(paths: Tensor, places: Tensor, seconds: float) -> dict[str, Tensor]:
    """What plans (tasks, samples, rows, 2), ``seconds`` from row to row, earn and whether they are
    legal: each (tasks, samples)."""
    points = interpolate(paths)[:, :, None]  # (tasks, samples, 1, points, 2)
    nearest = (points - places[:, None, :, None]).norm(dim=-1).amin(dim=-1)
    both = (nearest <= CLOSE).all(dim=-1).float()
    feasible = are_feasible(paths, seconds).float()
    return {
        "reward_a": -nearest[..., 0],
        "reward_b": -nearest[..., 1],
        "visits_both": both,
        "feasible": feasible,
        "useful": both * feasible,
    }


def compute_rewards(
    settings: StudySettings, *, n_tasks: int = 24, samples: int = 4
) -> dict[str, Any]:
    """Plans with no reward, with "pass by A", "pass by B", and with their sum: what each earns."""
    model, n_tasks = load_large(settings), settings.episodes or n_tasks
    tasks = draw_tasks(n_tasks, np.random.default_rng(settings.seed))
    seconds = model.config.stride * TIME_STEP
    rows, paths_of = {}, {}
    for name, guide in tasks.guides(samples).items():
        plans = sample_plans(model, tasks.pairs, ROWS, GUIDED, samples, settings.seed, guide)
        paths = plans.observations[..., :2]
        measures = measure(paths, tasks.places, seconds)
        rows[name] = {key: _summary(value) for key, value in measures.items()}
        paths_of[name] = paths
    return {
        "rows": rows,
        "examples": [_example(tasks, paths_of, seconds)],
        "protocol": _protocol(settings, model, n_tasks, samples)
        | {"guidance": vars(GUIDED.guidance)},
    }


def compute_guidance(
    settings: StudySettings, *, n_tasks: int = 12, samples: int = 8
) -> dict[str, Any]:
    """Reward against feasibility of "A + B" over ``SWEEP``, with three ways to choose a plan."""
    model, n_tasks = load_large(settings), settings.episodes or n_tasks
    tasks = draw_tasks(n_tasks, np.random.default_rng(SWEEP_SEED + settings.seed))
    guide = tasks.guides(samples)["A + B"]
    rows = [_sweep_row(model, tasks, None, None, samples, settings.seed)]
    for guidance in SWEEP:
        rows.append(_sweep_row(model, tasks, guide, guidance, samples, settings.seed))
        shown = {k: round(rows[-1]["any"][k]["mean"], 3) for k in ("reward", "feasible", "useful")}
        settings.console.print(f"    {guidance_name(vars(guidance))}: {shown}")
    return {"rows": rows, "protocol": _protocol(settings, model, n_tasks, samples)}


def _sweep_row(
    model: Diffuser,
    tasks: Tasks,
    guide: Guide | None,
    guidance: GuidanceConfig | None,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Summaries of all plans ("any") and of the one each way of choosing keeps for a task."""
    sampler = EVERY_LEVEL if guidance is None else replace(EVERY_LEVEL, guidance=guidance)
    paths, plausible = sample_and_judge(model, tasks, sampler, samples, seed, guide)
    measures = measure(paths, tasks.places, model.config.stride * TIME_STEP)
    reward = measures.pop("reward_a") + measures.pop("reward_b")
    measures = {"reward": reward, **measures}
    summaries: dict[str, Any] = {"any": {key: _summary(v) for key, v in measures.items()}}
    for way, kept in choices(reward, plausible).items():
        chosen = {key: value.gather(1, kept[:, None]) for key, value in measures.items()}
        summaries[way] = {key: _summary(value) for key, value in chosen.items()}
    return {"guidance": None if guidance is None else vars(guidance), **summaries}


def choices(reward: Tensor, plausible: Tensor) -> dict[str, Tensor]:
    """The candidate (tasks,) that each way of choosing keeps, of values (tasks, samples)."""
    half = plausible >= plausible.median(dim=1, keepdim=True).values
    return {
        "by reward": reward.argmax(dim=1),
        "by judge": plausible.argmax(dim=1),
        "by reward among the plausible half": reward.where(half, -torch.inf).argmax(dim=1),
    }


def sample_and_judge(
    model: Diffuser,
    tasks: Tasks,
    sampler: SamplerConfig,
    samples: int,
    seed: int,
    guide: Guide | None,
) -> tuple[Tensor, Tensor]:
    """Paths (tasks, samples, ROWS, 2) and their plausibility (tasks, samples)."""
    plans = sample_plans(model, tasks.pairs, ROWS, sampler, samples, seed, guide)
    arrival = torch.full((len(tasks.pairs),), int(MOVING * (ROWS - 1)) * model.config.stride)
    judged = model.plausibility(plans, arrival)
    assert judged is not None, "the shipped model has a judge"
    return plans.observations[..., :2], judged


def _protocol(
    settings: StudySettings, model: Diffuser, n_tasks: int, samples: int
) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint_path(settings),
        "tasks": n_tasks,
        "plans_per_task": samples,
        "rows": ROWS,
        "network_calls": model.config.denoising_steps,
        "sampler": "ddpm",
        "interval": "over tasks",
    }


def _example(tasks: Tasks, paths_of: dict[str, Tensor], seconds: float) -> dict[str, Any]:
    """The first task on which most plans of the sum are useful, all plans of each kind."""
    useful = measure(paths_of["A + B"], tasks.places, seconds)["useful"].sum(dim=1)
    best = int(useful.argmax())
    paths = {name: paths[best].numpy().round(2).tolist() for name, paths in paths_of.items()}
    start, goal = tasks.pairs[best]
    places = tasks.places[best].tolist()
    return {"start": list(start), "goal": list(goal), "places": places, "paths": paths}


def _summary(values: Tensor) -> dict[str, Any]:
    """Mean of values (tasks, samples) with an interval over tasks."""
    mean, low, high = mean_and_interval(values.mean(dim=1).tolist())
    return {"mean": mean, "interval": [low, high]}
