"""Soft actor-critic: behavior policies for later chapters, and the thesis's Chapter 3 tasks.

``sac/{hopper,walker2d,halfcheetah}`` are for about two hours of one core each: a million
environment steps, at one update for every two (docs/decisions.md). The others follow the paper, at
one update an environment step; 200,000 steps are the thesis's replay buffer (Table A.2).
``sac-small/TASK`` is for learning curves of several seeds in minutes: networks of 64, normalized
critics, and no more steps than the task needs. The agents with a model contain the same SAC.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from forethought.agents.sac import SACConfig
from forethought.config import Experiment, OnlineConfig, TrainConfig
from forethought.planners.reactive import ReactiveConfig
from forethought.registry import recipes


def sac_experiment(
    task: str, model: SACConfig, online: OnlineConfig, *, steps: int, learning_rate: float = 3e-4
) -> Experiment:
    """SAC in ``forethought/TASK-v0``."""
    return Experiment(
        name=f"sac/{task}",
        dataset="",
        env=f"forethought/{task}-v0",
        model=model,
        train=TrainConfig(
            steps=steps,
            batch_size=256,
            learning_rate=learning_rate,
            warmup_steps=0,
            schedule="constant",
            max_gradient_norm=0.0,
            ema_decay=0.0,
            precision="fp32",
            save_every=5_000,
            log_every=1_000,
        ),
        planner=ReactiveConfig(),
        online=online,
    )


def locomotion(task: str) -> Experiment:
    """SAC in Hopper, Walker2d or HalfCheetah."""
    online = OnlineConfig(n_envs=2, steps_per_update=2.0, evaluate_every=20_000)
    return sac_experiment(task, SACConfig(), online, steps=500_000)


def small_task(task: str, *, normalize: bool = False) -> Experiment:
    """SAC in a task of thesis Chapter 3."""
    online = OnlineConfig(
        random_steps=1_000,
        buffer_size=200_000,
        normalize_observations=normalize,
        evaluate_every=2_000,
    )
    return sac_experiment(task, SACConfig(), online, steps=199_000, learning_rate=1e-3)


SMALL_STEPS = {"pendulum": 5_000, "acrobot": 6_000, "mountain-car": 12_000, "reacher": 10_000}
"""environment steps, of which the first 200 (mountain car: 1,000, its episodes are long) random"""
SMALL_SAC = {"pendulum": SACConfig(width=64, critic_layer_norm=True, reward_scale=0.1)}
"""Pendulum's values are in the hundreds, which critics that begin at zero are slow to reach"""


def learning_curve(task: str, *, steps: int | None = None, updates_per_step: int = 1) -> Experiment:
    """SAC at the size of Figure 3.5, evaluated twenty times or more."""
    experiment = small_task(task, normalize=task == "mountain-car")
    assert experiment.online is not None, "small tasks learn online"
    random_steps = 1_000 if task == "mountain-car" else 200
    updates = updates_per_step * ((steps or SMALL_STEPS[task]) - random_steps)
    return replace(
        experiment,
        name=f"sac-small/{task}",
        model=SMALL_SAC.get(task, SACConfig(width=64, critic_layer_norm=True)),
        train=replace(experiment.train, steps=updates),
        online=replace(
            experiment.online,
            random_steps=random_steps,
            steps_per_update=1 / updates_per_step,
            evaluate_every=250 if task == "pendulum" else 500,
            snapshots=0,
        ),
    )


for _task in ("hopper", "walker2d", "halfcheetah"):
    recipes.register(f"sac/{_task}")(partial(locomotion, _task))
for _task in ("pendulum", "acrobot", "mountain-car", "reacher"):
    recipes.register(f"sac/{_task}")(partial(small_task, _task, normalize=_task == "mountain-car"))
    recipes.register(f"sac-small/{_task}")(partial(learning_curve, _task))
