"""Q-guided planning against IQL alone, where rewards are sparse and short walks must be joined.

Thesis Section 4.4 and Table 4.2 (AntMaze), here with the ball: ``reach-medium`` and
``reach-large``, one far goal each, learned from ``maze-LAYOUT-stitch``, whose episodes are at most
four moves long while the way takes 10 and 18. Rows on the same starts: behavior cloning, IQL, the
Trajectory Transformer led by its own reward-to-go, and the same Transformer led by IQL's values;
IQL, and what its values lead, once for each of its training seeds. A plan sees a small part
of the way, so what leads it must know the rest.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forethought.checkpoint import load_config, load_model
from forethought.config import Experiment, PlannerConfig
from forethought.data.episodes import EpisodeDataset
from forethought.envs.controllers import ShortestPathPolicy
from forethought.envs.maze import GOAL_RADIUS
from forethought.envs.maze_reach import MazeReachEnv, cell_distances
from forethought.models.base import ValueModel, require
from forethought.planners.beam_search import CutOffs
from forethought.registry import recipes, studies
from forethought.rollout import evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.constraints import share
from forethought.studies.iql_rows import open_dataset
from forethought.studies.locomotion_rows import score_row, trained, training_facts
from forethought.studies.q_guided_show import LAYOUTS, ROWS, markdown, plot
from forethought.studies.rows import row_of

SWEEP_LAYOUT = "medium"
EPISODES, SWEEP_EPISODES, PATHS = 100, 50, 8
CRITIC_SEEDS = (0, 1, 2)
SWEEP_SEED = 1_000  # added to the table's; its starts are no row's
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "beam": [{"beam": beam} for beam in (1, 4, 8, 32, 64)],
    "horizon": [{"horizon": horizon} for horizon in (1, 2, 4, 8, 12)],
    "expand": [{"expand": expand} for expand in (1, 2, 4, 8)],
    "actions": [{"actions": CutOffs(cdf=cdf)} for cdf in (0.0, 0.3, 0.6)]
    + [{"actions": CutOffs(top=20)}],
    "observations": [{"observations": cut} for cut in (CutOffs(top=1), CutOffs(top=10), CutOffs())],
}
"""of the Q-guided search, one at a time"""


@studies.register("q-guided")
def q_guided() -> Study:
    """By maze: the data, the critic's values, rows; then each sweep of the Q-guided search."""
    parts = [part for layout in LAYOUTS for part in _parts_of(layout)]
    for name in SWEEPS:
        parts.append(Part(name=f"sweep-{name}", minutes=10.0, compute=partial(sweep, name=name)))
    return Study(
        title="Q-guided planning against IQL alone: one far goal, short walks, a sparse reward",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def _parts_of(layout: str) -> list[Part]:
    longer = 1.0 if layout == "medium" else 2.0  # episodes of Large are
    acting, planned = partial(acting_row, layout=layout), partial(planned_row, layout=layout)
    reference = partial(reference_row, layout=layout)
    parts = [
        Part(name=f"data-{layout}", minutes=0.5, compute=partial(data_facts, layout=layout)),
        Part(name=f"reference-{layout}", minutes=0.2, compute=reference),
        Part(name=f"bc-{layout}", minutes=2.5, compute=partial(acting, key="bc")),
    ]
    for seed in CRITIC_SEEDS:
        compute = partial(acting, key="iql", train_seed=seed)
        parts.append(Part(name=f"iql-{layout}-seed{seed}", minutes=6.5, compute=compute))
    parts += [
        Part(name=f"value-{layout}", minutes=0.1, compute=partial(value_map, layout=layout)),
        Part(name=f"return-{layout}", minutes=15.0, compute=partial(planned, key="return")),
    ]
    for key in ("q", "v"):
        for seed in CRITIC_SEEDS if key == "q" else CRITIC_SEEDS[:1]:
            compute = partial(planned, key=key, critic_seed=seed)
            name = f"{key}-{layout}-seed{seed}"
            parts.append(Part(name=name, minutes=4.0 * longer, compute=compute))
    return parts


def data_of(layout: str) -> str:
    """Name of a maze's data set, and of its recipes."""
    return f"maze-{layout}-stitch"


def data_facts(settings: StudySettings, *, layout: str) -> dict[str, Any]:
    """Sizes of the data, and how near its episodes come to leading from the start to the goal."""
    dataset = open_dataset(settings, data_of(layout))
    return {
        "name": data_of(layout),
        "fingerprint": dataset.fingerprint,
        **coverage(dataset, layout),
    }


def coverage(dataset: EpisodeDataset, layout: str) -> dict[str, Any]:
    """How much of the way single episodes cover, and all of them joined.

    An episode joins the cells it visits; ``joined`` says whether chains of such cells lead from the
    task's start to a place within reach of its goal.
    """
    env = MazeReachEnv(layout)
    to_goal, target = cell_distances(env.layout, env.layout.target), np.array(env.layout.target)
    both, most, reached = 0, 0, {env.start}
    visits = []
    for episode in dataset:
        points = episode.observations[:, :2]
        at_goal = bool((np.linalg.norm(points - target, axis=1) <= GOAL_RADIUS).any())
        cells = {env.layout.cell_of(point) for point in points}
        cells |= {env.layout.target} if at_goal else set()
        both += at_goal and env.start in cells
        moves = [to_goal[cell] for cell in cells]
        most = max(most, max(moves) - min(moves))
        visits.append(cells)
    grows = True
    while grows:
        before = len(reached)
        for cells in visits:
            if cells & reached:
                reached |= cells
        grows = len(reached) > before
    lengths = np.diff(dataset.starts) - 1
    return {
        "episodes": len(dataset),
        "steps": dataset.n_steps,
        "median_length": float(np.median(lengths)),
        "longest": int(lengths.max()),
        "rewarded": int(dataset.terminated.sum()),
        "moves_of_the_way": to_goal[env.start],
        "most_moves_nearer": most,
        "from_start_to_goal": int(both),
        "joined": env.layout.target in reached,
    }


def reference_row(settings: StudySettings, *, layout: str) -> dict[str, Any]:
    """The data's waypoint controller, which knows the maze, without its noise."""
    env_id = recipes["iql/" + data_of(layout)]().env
    policy = ShortestPathPolicy(MazeReachEnv(layout).layout, jitter=True)
    n, protocol = settings.episodes or EPISODES, {"controller": "waypoints of the shortest path"}
    result = evaluate(policy, env_id, n, settings.seed, n_parallel=n, protocol=protocol)
    return with_success(row_of(ROWS["reference"][0], result))


def with_success(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its share of successes and an interval that holds at 0 and 1 too."""
    hits = sum(arrival is not None for arrival in row["arrivals"])
    return {**row, "success": share(hits, row["n"])}


def acting_row(
    settings: StudySettings, *, layout: str, key: str, train_seed: int = 0
) -> dict[str, Any]:
    """IQL or behavior cloning by itself, trained now unless it is there."""
    experiment = seeded(f"{key}/{data_of(layout)}", train_seed)
    folder, curve = trained(settings, experiment)
    row = score_row(
        folder,
        experiment,
        experiment.require_planner(),
        ROWS[key][0],
        episodes=settings.episodes or EPISODES,
        seed=settings.seed,
        keep_paths=PATHS,
    )
    facts = training_facts(settings, experiment, folder)
    return {**with_success(row), "training": facts, **({"curve": curve} if curve else {})}


def seeded(recipe: str, train_seed: int) -> Experiment:
    """A recipe with another training seed, and a name of its own for it."""
    experiment: Experiment = recipes[recipe]()
    if not train_seed:
        return experiment
    train = replace(experiment.train, seed=train_seed)
    return replace(experiment, name=f"{experiment.name}-seed{train_seed}", train=train)


def planned_row(
    settings: StudySettings, *, layout: str, key: str, critic_seed: int = 0
) -> dict[str, Any]:
    """The Transformer with its recipe's search; key: "return", or whose values lead, "q" or "v"."""
    experiment: Experiment = recipes["transformer/" + data_of(layout)]()
    folder, _ = trained(settings, experiment)
    planner, critic = led_by(settings, layout, key, critic_seed)
    row = score_row(
        folder,
        experiment,
        planner,
        ROWS[key][0],
        episodes=settings.episodes or EPISODES,
        seed=settings.seed,
        keep_paths=PATHS,
    )
    row["protocol"]["critic"] = critic
    return with_success(row) | {"training": training_facts(settings, experiment, folder)}


def led_by(
    settings: StudySettings, layout: str, key: str, critic_seed: int
) -> tuple[PlannerConfig, dict[str, Any] | None]:
    """The recipe's planner with a critic, and what is to be known of the critic."""
    planner: Any = recipes["transformer/" + data_of(layout)]().require_planner()
    if key == "return":
        return planner, None
    folder, _ = trained(settings, seeded("iql/" + data_of(layout), critic_seed))
    config = load_config(folder)
    facts = {
        "recipe": config["experiment"].name,
        "train_seed": critic_seed,
        "updates": config["experiment"].train.steps,
        "dataset": config["dataset"]["fingerprint"],
    }
    value = "action" if key == "q" else "state"
    return replace(planner, critic=str(folder), critic_value=value), facts


def sweep(settings: StudySettings, *, name: str) -> list[dict[str, Any]]:
    """The Q-guided search with one setting changed, on starts that no row uses."""
    experiment: Experiment = recipes["transformer/" + data_of(SWEEP_LAYOUT)]()
    folder, _ = trained(settings, experiment)
    base, critic = led_by(settings, SWEEP_LAYOUT, "q", 0)
    n, seed, rows = settings.episodes or SWEEP_EPISODES, settings.seed + SWEEP_SEED, []
    for change in SWEEPS[name]:
        row = score_row(folder, experiment, changed(base, change), name, episodes=n, seed=seed)
        row["protocol"]["critic"] = critic
        rows.append(with_success(row))
    return rows


def changed(planner: Any, change: dict[str, Any]) -> PlannerConfig:
    """The planner with settings of its own, or of its search for rewards, replaced."""
    own = {key: value for key, value in change.items() if key in ("beam", "horizon")}
    searched = {key: value for key, value in change.items() if key not in own}
    return replace(planner, **own, reward=replace(planner.reward, **searched))


def value_map(settings: StudySettings, *, layout: str) -> dict[str, Any]:
    """V of a ball at rest all over the maze, from IQL's first training seed."""
    folder: Path = trained(settings, seeded("iql/" + data_of(layout), 0))[0]
    critic = require(load_model(folder), ValueModel, needed_by="the map of values")
    maze = MazeReachEnv(layout).layout
    rows, columns = (np.arange(0.0, size, 0.1) - 0.7 + 0.05 for size in maze.shape)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).astype(np.float32)
    states = torch.from_numpy(np.concatenate([points, np.zeros_like(points)], axis=-1))
    values = critic.state_value(states.flatten(0, 1)).unflatten(0, states.shape[:2])
    known = np.where(maze.is_free(points), values.numpy(), np.nan)
    return {
        "layout": "\n".join(maze.rows),
        "cell": 0.1,
        "values": [[None if np.isnan(v) else round(float(v), 3) for v in line] for line in known],
    }
