"""What a score stands beside: published numbers, and controllers that are no planners.

Two are given the layout and a shortest path: they show what the environment, the starts and the
tracking controller allow. One pushes straight at the goal without any plan: what it scores is owed
to the maze and the controller, not to planning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor

from forethought.config import ControlConfig
from forethought.envs.controllers import ShortestPathPolicy
from forethought.envs.maze import MazeEnv
from forethought.policy import Controller, Policy, make_controller
from forethought.types import Trajectory

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


class StraightToGoal:
    """The controller without a plan: every step it is asked to be at the goal (walls or not)."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Nothing to forget."""

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        assert goal is not None, "mazes have goals"
        return self._controller(goal, observation)


def reference_policies(env_id: str, control: ControlConfig) -> dict[str, Policy]:
    """Named policies: the same controller on a shortest path, the data's own, and no plan.

    Only the data's own if ``control`` tracks nothing, as for models that act by themselves.
    """
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if not isinstance(env, MazeEnv):
        return {}
    policies: dict[str, Policy] = {
        "behavior controller (knows the maze)": ShortestPathPolicy(env.layout, jitter=True)
    }
    if control.controller == "track_observations" and control.gains:
        controller = make_controller(control, ACTION_DIM)

        def track(path: Tensor, step: int, observation: Tensor) -> Tensor:
            plan = Trajectory(
                observations=path[None],
                actions=path.new_zeros(1, len(path), 0),
                times=torch.arange(len(path)),
            )
            row = min(step + round(controller.look_ahead), len(path) - 1)
            return controller(controller.prepare(plan)[:, row], observation[None])[0]

        policies = {
            f"same controller on the shortest path at {PATH_SPEED:g} units/s": ShortestPathPolicy(
                env.layout, track, speed=PATH_SPEED
            ),
            **policies,
            "same controller straight to the goal (no plan)": StraightToGoal(controller),
        }
    return policies
