"""IQL and behavior cloning: the model-free rows of thesis Tables 5.1 (Section C.1) and 4.1.

``iql/maze-*``: one task, the data's reward at the maze's evaluation target (Maze2D).
``iql/multi-*``: the same networks given a goal, with geometric hindsight goals (Multi2D).
Networks and step sizes are the paper's. Batches are half as large as the paper's: on one core that
gives 1.6 times the updates, and values travel by updates. Weights are averaged, which stands for
the paper's decay of the policy's step size: snapshots of a run then compare. Expectile and
temperature are from the thesis's grid, chosen on U-Maze (``forethought study table-5-1``).

``iql/{hopper,walker2d,halfcheetah}-QUALITY``: the paper's settings for locomotion, expectile 0.7,
temperature 3, batches of 256, rewards scaled by the range of returns; 50,000 updates instead of a
million. ``bc/TASK-QUALITY``: behavior cloning with the same policy network.

``iql/maze-{medium,large}-stitch``: the sparse task of ``envs/maze_reach.py``, with the paper's
expectile for AntMaze, 0.9. Its rewards there are 0 at the goal and -1
elsewhere; ours are 100 at the goal and 0 elsewhere, which gives the same values but for a constant
at discount 0.99, as long as episodes end at the goal alone. Rewards of 10 steps come before a
value, for over the 190 steps of the way errors of single steps feed on themselves until all values
are those at the goal; temperature 1 instead of 10, for differences between actions are noisier than
that. ``bc/...``: behavior cloning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from forethought.agents.bc import BCConfig
from forethought.agents.iql import IQLConfig
from forethought.config import Experiment, TrainConfig
from forethought.planners.reactive import ReactiveConfig
from forethought.registry import recipes

LAYOUTS = ("umaze", "medium", "large")
TASKS = ("hopper", "walker2d", "halfcheetah")
QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")
BC_STEPS, IQL_STEPS = 20_000, 50_000


def iql_experiment(task: str, layout: str) -> Experiment:
    """IQL in a maze; task: "maze" (Maze2D, one goal) or "multi" (Multi2D, any goal)."""
    is_multi = task == "multi"
    return Experiment(
        name=f"iql/{task}-{layout}",
        dataset=f"maze-{layout}",
        env=f"forethought/{'multi2d' if is_multi else 'maze2d'}-{layout}-v0",
        model=IQLConfig(goal_dims=(0, 1) if is_multi else ()),
        train=TrainConfig(
            steps=50_000,
            batch_size=128,
            learning_rate=3e-4,
            warmup_steps=0,
            schedule="constant",
            max_gradient_norm=0.0,
            ema_decay=0.999,
            precision="fp32",
            save_every=5_000,
            log_every=1_000,
        ),
        planner=ReactiveConfig(),
    )


def locomotion(task: str, quality: str) -> Experiment:
    """IQL on locomotion data."""
    experiment = iql_experiment("maze", "umaze")
    return replace(
        experiment,
        name=f"iql/{task}-{quality}",
        dataset=f"{task}-{quality}",
        env=f"forethought/{task}-v0",
        model=IQLConfig(expectile=0.7, temperature=3.0, scale_returns=True),
        train=replace(experiment.train, steps=IQL_STEPS, batch_size=256),
    )


def stitch(layout: str) -> Experiment:
    """IQL on short walks in a maze, for one far goal."""
    experiment = iql_experiment("maze", layout)
    return replace(
        experiment,
        name=f"iql/maze-{layout}-stitch",
        dataset=f"maze-{layout}-stitch",
        env=f"forethought/reach-{layout}-v0",
        model=IQLConfig(
            n_steps=10, expectile=0.9, temperature=1.0, scale_returns=True, return_range=100.0
        ),
        train=replace(experiment.train, steps=15_000),
    )


def clone(experiment: Experiment) -> Experiment:
    """Behavior cloning on the data of an experiment with IQL."""
    return replace(
        experiment,
        name=experiment.name.replace("iql/", "bc/"),
        model=BCConfig(),
        train=replace(experiment.train, steps=BC_STEPS, batch_size=256),
    )


def cloned(build: Callable[..., Experiment], *names: str) -> Experiment:
    """Behavior cloning on the data of the IQL recipe with the same name."""
    return clone(build(*names))


for _layout in ("medium", "large"):
    recipes.register(f"iql/maze-{_layout}-stitch")(partial(stitch, _layout))
    recipes.register(f"bc/maze-{_layout}-stitch")(partial(cloned, stitch, _layout))
for _task in TASKS:
    for _quality in QUALITIES:
        recipes.register(f"iql/{_task}-{_quality}")(partial(locomotion, _task, _quality))
        recipes.register(f"bc/{_task}-{_quality}")(partial(cloned, locomotion, _task, _quality))
for _task in ("maze", "multi"):
    for _layout in LAYOUTS:
        recipes.register(f"iql/{_task}-{_layout}")(partial(iql_experiment, _task, _layout))
