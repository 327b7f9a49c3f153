"""IQL in the mazes: the model-free rows of thesis Table 5.1 (Section C.1).

``iql/maze-*``: one task, the data's reward at the maze's evaluation target (Maze2D).
``iql/multi-*``: the same networks given a goal, with geometric hindsight goals (Multi2D).
Networks and step sizes are the paper's. Batches are half as large as the paper's: on one core that
gives 1.6 times the updates, and values travel by updates. Weights are averaged, which stands for
the paper's decay of the policy's step size: snapshots of a run then compare. Expectile and
temperature are from the thesis's grid, chosen on U-Maze (``forethought study table-5-1``).
"""

from __future__ import annotations

from forethought.agents.iql import IQLConfig
from forethought.config import Experiment, TrainConfig
from forethought.planners.reactive import ReactiveConfig
from forethought.registry import recipes

LAYOUTS = ("umaze", "medium", "large")


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


for _task in ("maze", "multi"):
    for _layout in LAYOUTS:
        recipes.register(f"iql/{_task}-{_layout}")(
            lambda task=_task, layout=_layout: iql_experiment(task, layout)
        )
