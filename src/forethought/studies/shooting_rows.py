"""Shooting on the true dynamics of a maze: the rows "MPPI", "CEM" and "random shooting".

The planner knows the physics and the goal, nothing is learned. Two rewards: ``sparse``, the task's
own (1 for each step within 0.5 of the goal), and ``distance``, minus the straight distance to the
goal, which leads into dead ends. The thesis (Table 5.1) does not say which its MPPI had.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import gymnasium
from torch import Tensor

from forethought.config import to_json
from forethought.envs.maze import GOAL_RADIUS, MazeEnv
from forethought.envs.maze_dynamics import MazeDynamics
from forethought.planners.shooting import (
    CEM,
    MPPI,
    CEMConfig,
    MPPIConfig,
    RandomShooting,
    Reward,
    ShootingConfig,
    ShootingPlanner,
)
from forethought.planners.shooting_policy import ShootingPolicy

Method = Literal["mppi", "cem", "random"]
RewardName = Literal["sparse", "distance"]


def _distance(reached: Tensor, goal: Tensor | None) -> Tensor:
    assert goal is not None, "mazes have goals"
    row, col = (reached[:, :2] - goal[:, :2]).unbind(dim=1)
    return (row * row + col * col).sqrt()


def sparse_reward(reached: Tensor, action: Tensor, goal: Tensor | None) -> Tensor:
    """The task's: 1 within 0.5 of the goal."""
    return (_distance(reached, goal) <= GOAL_RADIUS).to(reached)


def distance_reward(reached: Tensor, action: Tensor, goal: Tensor | None) -> Tensor:
    """Minus the straight distance to the goal, through walls or not."""
    return -_distance(reached, goal)


REWARDS: dict[RewardName, Reward] = {"sparse": sparse_reward, "distance": distance_reward}

_BUDGET = {"horizon": 96, "hold": 12, "shift": 24}
SETTINGS: dict[Method, tuple[type[ShootingPlanner], ShootingConfig]] = {
    "mppi": (MPPI, MPPIConfig(**_BUDGET, samples=256, noise=0.7, temperature=0.1)),
    "cem": (CEM, CEMConfig(**_BUDGET, samples=128, iterations=2, elites=16, noise=0.7)),
    "random": (RandomShooting, ShootingConfig(**_BUDGET, samples=256)),
}


def shooting_policy(
    env_id: str, method: Method, *, reward: RewardName = "sparse", **changes: Any
) -> ShootingPolicy:
    """The tuned policy for a registered maze, Maze2D or Multi2D; the goal comes with every call.

    changes: of the settings, for tuning
    """
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if not isinstance(env, MazeEnv):
        raise ValueError(f"{env_id} is no maze; the true dynamics are known for mazes only")
    if method not in SETTINGS or reward not in REWARDS:
        raise ValueError(
            f"method {method!r} with reward {reward!r}; methods are {', '.join(SETTINGS)}, rewards "
            f"{', '.join(REWARDS)}"
        )
    kind, config = SETTINGS[method]
    config = replace(config, **changes)
    return ShootingPolicy(kind(MazeDynamics(env.layout), REWARDS[reward], config, action_dim=2))


def shooting_protocol(method: Method, reward: RewardName) -> dict[str, Any]:
    """What a score's record says of its policy."""
    config = SETTINGS[method][1]
    return {
        "planner": {"kind": method, "reward": reward, **to_json(config)},
        "replan_every": config.shift,
        "candidates": config.samples * config.iterations,
        "network_calls": 0,
        "controller": "follow_actions",
        "dynamics": "true (batched closed-form contacts)",
    }
