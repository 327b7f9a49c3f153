"""Table 5.1: planners and model-free learners in Maze2D and Multi2D, on the same data and starts.

Rows run here: our Diffuser (shipped checkpoints), MPPI on the true dynamics, IQL (ours; with goals
for Multi2D), CQL, AWAC, ReBRAC and SAC-N (d3rlpy, trained by ``benchmarks/baselines``), and
controllers that know the maze or do not plan. The thesis's own Diffuser settings are timed, not
trained. Thesis Sections 5.5 and C.1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch

from forethought.checkpoint import hardware, load_config, load_model
from forethought.envs.maze import MazeEnv
from forethought.evaluation import checkpoint_protocol, make_policy, plan_times
from forethought.planners.base import Planner
from forethought.policy import PlanningPolicy
from forethought.references import reference_policies
from forethought.registry import recipes, studies
from forethought.rollout import evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.iql_rows import iql_grid, iql_row, open_dataset
from forethought.studies.published import CELLS, LAYOUTS
from forethought.studies.rows import BASELINES, read_row, row_file, row_of
from forethought.studies.shooting_rows import RewardName, shooting_policy, shooting_protocol
from forethought.studies.table_5_1_show import markdown, plot
from forethought.training import time_steps

EPISODES, MPPI_EPISODES = 400, 50
D3RLPY = ("cql", "awac", "rebrac", "sac-n")


@studies.register("table-5-1")
def table_5_1(baselines: Path = BASELINES) -> Study:
    """baselines: folder with the rows that take long to train (``benchmarks/baselines``)."""
    parts = [
        *(_part("diffuser", cell, 2, diffuser_row) for cell in CELLS),
        *(_part("references", cell, 3, reference_rows) for cell in CELLS),
        *(_part("thesis", layout, 1, thesis_timing) for layout in LAYOUTS),
        *(_part("mppi", cell, 10, lambda s, cell: mppi_row(s, cell, "sparse")) for cell in CELLS),
        *(
            _part("mppi-distance", cell, 10, lambda s, cell: mppi_row(s, cell, "distance"))
            for cell in CELLS
        ),
        Part(name="iql-grid", minutes=25, compute=lambda s: iql_grid(s, baselines)),
        *(_part("iql", cell, 15, lambda s, cell: iql_row(s, baselines, cell)) for cell in CELLS),
        *(
            _part(method, cell, 0.1, lambda _, cell, m=method: d3rlpy_row(baselines, m, cell))
            for method in D3RLPY
            for cell in CELLS
            if cell.startswith("maze2d")
        ),
    ]
    return Study(
        title="Table 5.1: Maze2D and Multi2D, three sizes, all rows on the same data and starts",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def _part(
    row: str, cell: str, minutes: float, compute: Callable[[StudySettings, str], Any]
) -> Part:
    return Part(name=f"{row}-{cell}", minutes=minutes, compute=partial(_call, compute, cell))


def _call(compute: Callable[[StudySettings, str], Any], cell: str, settings: StudySettings) -> Any:
    return compute(settings, cell)


def env_of(cell: str) -> str:
    """Environment of a cell such as "maze2d-umaze"."""
    return f"forethought/{cell}-v0"


def _checkpoint(settings: StudySettings, cell: str) -> Path:
    return settings.pretrained / "diffuser" / f"maze-{cell.split('-')[1]}"


def diffuser_row(settings: StudySettings, cell: str) -> dict[str, Any]:
    """The shipped Diffuser of the cell's maze, with the settings stored in it."""
    path = _checkpoint(settings, cell)
    config = load_config(path)
    experiment = config["experiment"]
    policy = make_policy(load_model(path), experiment.require_planner(), experiment.control)
    protocol = checkpoint_protocol(path, config, experiment.require_planner(), experiment.control)
    episodes = settings.episodes or EPISODES
    result = evaluate(
        policy, env_of(cell), episodes, settings.seed, n_parallel=50, protocol=protocol
    )
    if isinstance(policy, PlanningPolicy):
        result.protocol.update(plan_times(policy))
    return row_of("Diffuser", result)


def reference_rows(settings: StudySettings, cell: str) -> list[dict[str, Any]]:
    """Controllers on a shortest path, and one without a plan, on the same starts."""
    control = load_config(_checkpoint(settings, cell))["experiment"].control
    episodes, rows = settings.episodes or EPISODES, []
    for name, policy in reference_policies(env_of(cell), control).items():
        result = evaluate(policy, env_of(cell), episodes, settings.seed, n_parallel=50)
        rows.append(row_of(name, result))
    return rows


def thesis_timing(settings: StudySettings, layout: str) -> dict[str, Any]:
    """What the thesis's own settings cost on this machine: a few training steps, one whole plan.

    Both also in core-seconds, which other programs on the machine change little.
    """
    experiment = recipes[f"diffuser/maze-{layout}-thesis"]()
    dataset = open_dataset(settings, f"maze-{layout}")
    n_steps, began = 3, time.process_time()
    step_seconds = time_steps(experiment, dataset, n_steps=n_steps)
    step_core_seconds = (time.process_time() - began) / (n_steps + 1)  # with the first, untimed one
    model = experiment.model.build(dataset.spaces).eval()
    planner = experiment.require_planner().build(model)
    assert isinstance(planner, Planner), "the thesis recipes plan"
    env = gymnasium.make(env_of(f"maze2d-{layout}"), disable_env_checker=True).unwrapped
    assert isinstance(env, MazeEnv), "the mazes' environments are MazeEnv"
    start, _ = env.reset(seed=settings.seed)
    began = time.process_time()
    plan = planner.plan(
        torch.from_numpy(start)[None],
        goal=torch.from_numpy(env.goal_observation)[None],
        generator=torch.Generator().manual_seed(settings.seed),
    )
    return {
        "recipe": experiment.name,
        "trained": False,
        "step_seconds": step_seconds,
        "step_core_seconds": step_core_seconds,
        "train_steps": experiment.train.steps,
        "train_core_days": step_core_seconds * experiment.train.steps / 86_400,
        "plan_seconds": float(plan.stats["seconds"]),
        "plan_core_seconds": time.process_time() - began,
        "network_calls": experiment.model.denoising_steps,
        "hardware": hardware(),
    }


def mppi_row(settings: StudySettings, cell: str, reward: RewardName) -> dict[str, Any]:
    """MPPI, planning with the simulator itself; the thesis does not say which reward its MPPI had.

    reward: the task's own (sparse), or minus the straight distance to the goal
    """
    policy = shooting_policy(env_of(cell), "mppi", reward=reward)
    episodes, protocol = settings.episodes or MPPI_EPISODES, shooting_protocol("mppi", reward)
    result = evaluate(
        policy, env_of(cell), episodes, settings.seed, n_parallel=50, protocol=protocol
    )
    return row_of(f"MPPI, true dynamics, {reward} reward", result)


def d3rlpy_row(folder: Path, method: str, cell: str) -> dict[str, Any]:
    """A row that ``benchmarks/baselines/train_d3rlpy.py`` has written."""
    layout = cell.split("-")[1]
    how = f"python benchmarks/baselines/train_d3rlpy.py {method} {layout}"
    return read_row(row_file(folder, method, cell), how=f"{how}  (see requirements.txt beside it)")
