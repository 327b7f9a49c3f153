"""Tasks made at test time, executed: each beside the same planner without the task.

In Maze2D-Large, with the shipped model and on the same starts and goals in every row:

    waypoints  two places off the usual route, in order
    timed      the same two places, at given steps of the episode
    speed      a limit on the speed
    reward     a reward that training never saw: keep to the middle of every corridor
    composed   the same reward and the speed limit

Measured on the executed path, not on the plan, up to the arrival. Plans are tracked by the clock:
``pursue_path`` would drive as fast as it can.
Thesis Section 5.4, "Test-time flexibility" and "Temporal compositionality".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forethought.checkpoint import load_config, load_model
from forethought.config import ControlConfig
from forethought.controllers import make_controller
from forethought.envs.maze import TIME_STEP, MazeEnv
from forethought.envs.maze_layout import LAYOUTS, Cell, Layout
from forethought.guides.terms import Term, reward, speed_limit
from forethought.models.base import GuidanceConfig, Model, SamplerConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.planners.tasks import TaskPlanner
from forethought.policy import PlanningPolicy
from forethought.registry import studies
from forethought.scores import mean_and_interval, share
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.constraints import draw_cases
from forethought.studies.test_time_tasks_show import markdown, plot

EPISODES, MOST_STEPS, LAYOUT = 50, 800, "large"
CANDIDATES = 16
WITHIN = 0.5  # environment units: a place counts as visited
STEPS_A_CELL = 36  # of a waypoint's time; the log takes about 25
LONGEST_TOUR = 20  # cells
SPEED, SPEED_MARGIN = 3.0, 0.6  # units/s; the log's ball reaches 5.2
WEIGHT = 1.5  # of the unseen reward, in the guide
BY_CLOCK: dict[str, Any] = {
    "controller": "track_observations",
    "gains": ((10.0, 0.0, 1.0, 0.0), (0.0, 10.0, 0.0, 1.0)),
    "look_ahead": 4.0,
}
Case = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked for, and how its execution is measured.

    terms, waypoints, timed: what the planner is given of a case
    keeps_waypoints: whether the row without the task still has its waypoints (but no times)
    measure: path (T, 4) and case to numbers; booleans become shares
    """

    terms: Callable[[Case], list[Term]] = lambda case: []
    waypoints: bool = False
    timed: bool = False
    keeps_waypoints: bool = False
    measure: Callable[[np.ndarray, Case], dict[str, Any]]


def centered(observations: Tensor) -> Tensor:
    """(batch, horizon, O) -> (batch,): minus the mean squared distance to the centers of cells;
    along a corridor it varies little, across it is highest in the middle."""
    place = observations[..., :2]
    return -(place - place.detach().round()).square().sum(dim=-1).mean(dim=-1)


def middle() -> Term:
    """The unseen reward as a term."""
    return reward(lambda observations: WEIGHT * centered(observations), name="middle")


def slow() -> Term:
    """The speed limit as a term."""
    return speed_limit(SPEED, time_step=TIME_STEP, margin=SPEED_MARGIN)


def visits(path: np.ndarray, case: Case) -> dict[str, Any]:
    """Whether both places are visited in order."""
    here = 0
    for place in case["waypoints"]:
        near = np.linalg.norm(path[here:, :2] - place, axis=1) <= WITHIN
        if not near.any():
            return {"visited": False}
        here += int(near.argmax())
    return {"visited": True}


def timed_visits(path: np.ndarray, case: Case) -> dict[str, Any]:
    """How far from each place at its time."""
    apart = [
        float(np.linalg.norm(path[min(at, len(path) - 1), :2] - place))
        for at, place in zip(case["times"], case["waypoints"], strict=True)
    ]
    return {"on_time": max(apart) <= WITHIN, "off": float(np.mean(apart))}


def speeding(path: np.ndarray, case: Case) -> dict[str, Any]:
    """Share of steps above the limit and the largest speed, units/s."""
    speed = np.linalg.norm(path[:, 2:], axis=1)
    return {
        "never_above": bool((speed <= SPEED).all()),
        "above": float((speed > SPEED).mean()),
        "most": float(speed.max()),
    }


def centeredness(path: np.ndarray, case: Case) -> dict[str, Any]:
    """The unseen reward of the executed path, and the mean distance off a corridor's middle."""
    across = np.abs(path[:, :2] - path[:, :2].round()).min(axis=1)
    return {
        "reward": float(centered(torch.from_numpy(path)[None])[0]),
        "across": float(across.mean()),
    }


def composed(path: np.ndarray, case: Case) -> dict[str, Any]:
    """Both at once."""
    return {**speeding(path, case), **centeredness(path, case)}


TASKS = {
    "waypoints": Task(waypoints=True, measure=visits),
    "timed": Task(waypoints=True, timed=True, keeps_waypoints=True, measure=timed_visits),
    "speed": Task(terms=lambda case: [slow()], measure=speeding),
    "reward": Task(terms=lambda case: [middle()], measure=centeredness),
    "composed": Task(terms=lambda case: [middle(), slow()], measure=composed),
}


@studies.register("test-time-tasks")
def test_time_tasks() -> Study:
    """Waypoints, times, a speed limit and a user's reward, executed."""
    parts = [
        Part(name=f"{name}/{row}", minutes=2, compute=partial(_row, name=name, row=row))
        for name in TASKS
        for row in ("without", "with")
    ]
    return Study(
        title="Tasks given at test time, executed (thesis Section 5.4)",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def draw_tasks(layout: Layout, n: int, seed: int) -> list[dict[str, Any]]:
    """Starts, goals and an obstacle as in ``constraints``; two waypoints off the shortest route, on
    a tour of at most ``LONGEST_TOUR`` cells; and their times."""
    generator, cases = np.random.default_rng([seed, 1]), []
    for case in draw_cases(layout, "gap", 20 * n, seed):
        start, goal = (_cell(case[end]) for end in ("start", "goal"))
        direct, free = set(layout.shortest_path(start, goal)), layout.free_cells()
        others = [cell for cell in free if cell not in direct]
        for _ in range(30):
            first, second = (others[i] for i in generator.choice(len(others), 2, replace=False))
            legs = [_distance(layout, *pair) for pair in ((start, first), (first, second))]
            length = sum(legs) + _distance(layout, second, goal)
            if min(legs) >= 2 and length <= LONGEST_TOUR:
                steps = np.cumsum(legs) * STEPS_A_CELL
                places = [list(layout.center_of(cell)) for cell in (first, second)]
                cases.append({**case, "waypoints": places, "times": steps.tolist()})
                break
        if len(cases) == n:
            return cases
    raise ValueError(f"only {len(cases)} of {n} cases found; draw fewer")


def _cell(point: list[float]) -> Cell:
    return round(point[0]), round(point[1])


def _distance(layout: Layout, first: Cell, second: Cell) -> int:
    return len(layout.shortest_path(first, second)) - 1


def _row(settings: StudySettings, *, name: str, row: str) -> dict[str, Any]:
    folder = settings.pretrained / "diffuser" / f"maze-{LAYOUT}"
    model, task = load_model(folder), TASKS[name]
    control = replace(load_config(folder)["experiment"].control, **BY_CLOCK)
    n, env = settings.episodes or EPISODES, MazeEnv(LAYOUT)
    records, states, asked = [], None, row == "with"
    for index, case in enumerate(draw_tasks(LAYOUTS[LAYOUT], n, settings.seed)):
        planner = make_planner(model, task, case, asked=asked)
        planner.states = states
        path, arrived = execute(
            planner,
            control,
            env,
            case,
            ordered=task.waypoints and (asked or task.keeps_waypoints),
            seed=settings.seed + index,
        )
        states = planner.states
        records.append({"success": arrived, "steps": len(path) - 1, **task.measure(path, case)})
        if index < 4:
            records[-1] |= {"path": path[::6, :2].round(2).tolist(), "case": _rounded(case)}
    protocol = {
        "env": f"maze2d-{LAYOUT}",
        "candidates": CANDIDATES,
        "network_calls": 3,
        "replan_every": control.replan_every,
        "controller": control.controller,
        "seed": settings.seed,
    }
    return {"n": n, "protocol": protocol, "measured": summary(records), "episodes": records}


def make_planner(model: Model, task: Task, case: Case, *, asked: bool) -> TaskPlanner:
    """The planner of one case, with the task or without it."""
    guidance = GuidanceConfig(at="clean", scale=0.5, scale_by_variance=False, inner_steps=2)
    config = DiffusionPlannerConfig(
        candidates=CANDIDATES, sampler=SamplerConfig(steps=3, guidance=guidance)
    )
    waypoints = None
    if task.waypoints and (asked or task.keeps_waypoints):
        waypoints = torch.tensor([[*place, 0.0, 0.0] for place in case["waypoints"]])
    return TaskPlanner(
        model,
        config,
        terms=task.terms(case) if asked else [],
        waypoints=waypoints,
        times=case["times"] if task.timed and asked else None,
    )


def execute(
    planner: TaskPlanner,
    control: ControlConfig,
    env: MazeEnv,
    case: Case,
    *,
    ordered: bool,
    seed: int,
) -> tuple[np.ndarray, bool]:
    """Observations (T, 4) up to the arrival, and whether there was one.

    ordered: at the goal only after both waypoints; before, the way may lead through it
    """
    policy = PlanningPolicy(
        planner,
        make_controller(control, 2),
        replan_every=control.replan_every,
        goal_time="receding",
        settled_within=control.settled_within,
    )
    policy.reset(1, [seed])
    observation, _ = env.reset(options={"start": case["start"], "goal": case["goal"]})
    path, goal = [observation], torch.from_numpy(env.goal_observation)[None]
    for _ in range(MOST_STEPS):
        action = policy(torch.from_numpy(path[-1])[None], goal)[0].numpy()
        observation, _, _, _, info = env.step(action)
        path.append(observation)
        if info["success"] and (not ordered or visits(np.stack(path), case)["visited"]):
            return np.stack(path), True
    return np.stack(path), False


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of booleans (Wilson) and means of numbers, each with its 95 % interval."""
    found: dict[str, Any] = {}
    for key, value in records[0].items():
        if key in ("path", "case"):
            continue
        column = [record[key] for record in records]
        if isinstance(value, bool):
            found[key] = share(sum(column), len(column))
        else:
            mean, low, high = mean_and_interval(column)
            found[key] = {"mean": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}
    return found


def _rounded(case: Case) -> dict[str, Any]:
    return {name: np.round(value, 3).tolist() for name, value in case.items()}
