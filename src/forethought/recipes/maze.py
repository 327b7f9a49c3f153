"""Diffuser in Maze2D: our best settings for a small CPU, the thesis's, and the released code's.

``diffuser/maze-*``: strided windows of observations only, tau^0 prediction, random goal times, a
small network, a handful of DDIM steps, arrival as early as the data's behavior allows; the path
is pursued at full speed. What pursuit knows of the ball, its velocity per action and its time
step, is what ``data.identify`` measures in the log (a test compares).
``-thesis``: the text of Sections 5.3 and C.3, completed by the released code where it is silent.
``-released``: the public maze2d branch. Where those two differ is listed in ``docs/thesis.md``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from forethought.config import ControlConfig, Experiment, PursuitConfig, TrainConfig
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import DiffuserConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.registry import recipes

# the layouts' horizons and denoising steps in the released configuration (thesis C.3 item 4)
_HORIZONS = {"umaze": 128, "medium": 256, "large": 384}
_DENOISING_STEPS = {"umaze": 64, "medium": 256, "large": 256}


def _position_and_velocity(position: float, velocity: float) -> tuple[tuple[float, ...], ...]:
    """Gains for observations (row, col, v_row, v_col) and actions (row, col)."""
    return ((position, 0.0, velocity, 0.0), (0.0, position, 0.0, velocity))


def _best(
    layout: str,
    *,
    stride: int,
    horizon: int,
    steps: int,
    planner: DiffusionPlannerConfig,
    replan: int,
) -> Experiment:
    return Experiment(
        name=f"diffuser/maze-{layout}",
        dataset=f"maze-{layout}",
        env=f"forethought/maze2d-{layout}-v0",
        model=DiffuserConfig(
            horizon=horizon,
            stride=stride,
            actions="none",
            pad="repeat",
            denoising_steps=64,
            condition_in_training="start_and_goal_time",
            mark_pins=True,
            dim=48,
            dim_mults=(1, 2, 4),
            blocks_per_level=1,
            activation="silu",
            reach_pairs=1024,
            octaves=4,
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=64,
            learning_rate=1e-3,
            betas=(0.9, 0.99),
            ema_decay=0.998,
            weight_decay=1e-4,
            save_every=500,
        ),
        planner=planner,
        control=ControlConfig(
            controller="pursue_path",
            pursuit=PursuitConfig(
                position=(0, 1),
                velocity=(2, 3),
                distance=1.2,
                speed=5.5,  # more than it can reach: full throttle
                acceleration=0.238,
                step_seconds=0.01,
            ),
            replan_every=replan,
            goal_time="receding",
            settled_within=(0.4, 0.4),  # of the position
        ),
    )


def _thesis(layout: str) -> Experiment:
    horizon = _HORIZONS[layout]
    return Experiment(
        name=f"diffuser/maze-{layout}-thesis",
        dataset=f"maze-{layout}",
        env=f"forethought/maze2d-{layout}-v0",
        model=DiffuserConfig(
            horizon=horizon, denoising_steps=_DENOISING_STEPS[layout], prediction="noise"
        ),
        train=TrainConfig(
            steps=500_000,
            batch_size=32,
            learning_rate=4e-5,
            warmup_steps=0,
            schedule="constant",
            max_gradient_norm=0.0,
            ema_decay=0.995,
            ema_every=10,
            ema_start=2000,
        ),
        planner=DiffusionPlannerConfig(
            length=horizon - 1, sampler=SamplerConfig(kind="ddpm", steps=0)
        ),
        control=ControlConfig(gains=_position_and_velocity(1.0, 1.0), look_ahead=1.0),
    )


def _released(layout: str) -> Experiment:
    thesis = _thesis(layout)
    return replace(
        thesis,
        name=f"diffuser/maze-{layout}-released",
        model=replace(thesis.model, prediction="clean", cut="target_exits"),
        train=replace(thesis.train, steps=2_000_000, batch_size=64, learning_rate=2e-4),
    )


@recipes.register("diffuser/maze-umaze")
def maze_umaze() -> Experiment:
    """Maze2D U-Maze, our best for two CPU cores."""
    planner = DiffusionPlannerConfig(sampler=SamplerConfig(steps=2))
    return _best("umaze", stride=8, horizon=32, steps=1_500, planner=planner, replan=15)


@recipes.register("diffuser/maze-medium")
def maze_medium() -> Experiment:
    """Maze2D Medium, our best for two CPU cores."""
    planner = DiffusionPlannerConfig(sampler=SamplerConfig(steps=2))
    return _best("medium", stride=8, horizon=48, steps=4_000, planner=planner, replan=15)


@recipes.register("diffuser/maze-large")
def maze_large() -> Experiment:
    """Maze2D Large, our best for two CPU cores."""
    planner = DiffusionPlannerConfig(sampler=SamplerConfig(steps=2))
    return _best("large", stride=12, horizon=48, steps=6_000, planner=planner, replan=15)


for _layout in _HORIZONS:
    recipes.register(f"diffuser/maze-{_layout}-thesis")(partial(_thesis, _layout))
    recipes.register(f"diffuser/maze-{_layout}-released")(partial(_released, _layout))
