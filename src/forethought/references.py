"""What a score stands beside: published numbers, and controllers that are no planners.

Two are given the layout and a shortest path: they show what the environment, the starts and the
tracking controller allow. One pushes straight at the goal without any plan: what it scores is owed
to the maze and the controller, not to planning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import gymnasium
import torch
from torch import Tensor

from forethought.config import ControlConfig
from forethought.controllers import make_controller
from forethought.envs.controllers import ShortestPathPolicy, shortest_path_plan
from forethought.envs.maze import MazeEnv
from forethought.envs.maze_ceiling import fewest_steps
from forethought.envs.maze_reach import MazeReachEnv
from forethought.models.base import Generator
from forethought.planners.base import Planner
from forethought.policy import PlanningPolicy, Policy
from forethought.scores import mean_and_interval, normalized_score
from forethought.types import Plan, Trajectory

ACTION_DIM = 2  # of a maze: a push by row and by column
PATH_SPEED = 4.0  # units/s of the reference path: above the data's mean, below the limit of 5.2

# thesis Table 5.1, Diffuser's column: mean and standard error, normalized
_THESIS = {
    "maze2d-umaze": (113.9, 3.1),
    "maze2d-medium": (121.5, 2.7),
    "maze2d-large": (123.0, 6.4),
    "multi2d-umaze": (128.9, 1.8),
    "multi2d-medium": (127.2, 3.4),
    "multi2d-large": (132.1, 5.8),
}


def published_scores(env_id: str) -> list[dict[str, Any]]:
    """Published rows for an environment; not on our starts, so they compare only roughly."""
    task = env_id.split("/")[-1].removesuffix("-v0")
    if task not in _THESIS:
        return []
    score, error = _THESIS[task]
    source = "thesis Table 5.1 (mean and standard error)"
    return [{"name": "Diffuser (thesis)", "score": score, "error": error, "source": source}]


class PathPlanner(Planner):
    """Plans what a function answers: rows (steps, O) for observation (O,) and goal (O,)."""

    chooses_arrival = True

    def __init__(self, path_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._path_of = path_of

    def plan(
        self,
        observation: Tensor,
        *,
        goal: Tensor | None = None,
        history: Trajectory | None = None,
        previous: Plan | None = None,
        remaining: Tensor | None = None,
        generator: Generator = None,
    ) -> Plan:
        assert goal is not None and len(goal) == 1, "mazes have goals; one environment at a time"
        rows = self._path_of(observation[0], goal[0])[None]
        trajectory = Trajectory(
            observations=rows,
            actions=rows.new_zeros(*rows.shape[:2], 0),
            times=torch.arange(rows.shape[1]),
        )
        return Plan(trajectory=trajectory, stats={"seconds": 0.0})


def reference_policies(env_id: str, control: ControlConfig) -> dict[str, Policy]:
    """Named policies: the same controller on a shortest path, the data's own, and no plan.

    Only the data's own if ``control`` tracks nothing, as for models that act by themselves.
    """
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if not isinstance(env, MazeEnv):
        return {}
    behavior = "behavior controller (knows the maze)"
    policies: dict[str, Policy] = {behavior: ShortestPathPolicy(env.layout, jitter=True)}
    if control.gains or control.controller == "pursue_path":
        controller = make_controller(control, ACTION_DIM)
        speed = "" if control.controller == "pursue_path" else f" at {PATH_SPEED:g} units/s"

        def shortest(observation: Tensor, goal: Tensor) -> Tensor:
            ends = observation.tolist(), goal[:2].tolist()
            path = torch.from_numpy(shortest_path_plan(env.layout, *ends, PATH_SPEED))
            return torch.cat([path, goal[None]])

        def straight(observation: Tensor, goal: Tensor) -> Tensor:
            return torch.stack([goal, goal])

        path = PlanningPolicy(PathPlanner(shortest), controller)
        nothing = PlanningPolicy(PathPlanner(straight), controller)
        policies = {
            f"same controller on the shortest path{speed}": path,
            **policies,
            "same controller straight to the goal (no plan)": nothing,
        }
    return policies


def ceiling(env_id: str, episodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for the most the maze allows from these starts; none for other environments."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    maze, spec = env.unwrapped, env.spec
    if not isinstance(maze, MazeEnv) or spec is None or spec.max_episode_steps is None:
        return []
    if isinstance(maze, MazeReachEnv):  # pays once, on arrival, and that is what it allows
        return []
    scores = []
    for episode in episodes:
        late = fewest_steps(maze.layout, episode["start"], episode["goal"]) - 1
        total = float(spec.max_episode_steps - late)
        known = maze.reference_returns
        scores.append(total if known is None else normalized_score(total, known))
    mean, low, high = mean_and_interval(scores)
    name = "ceiling: shortest way at the speed limit, no acceleration"
    interval = [low, high] if isfinite(low) else None
    return [{"name": name, "score": {"mean": mean, "interval": interval}, "success_rate": 1.0}]
