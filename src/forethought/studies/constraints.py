"""Constraints that training never saw: hard terms on plans, and a new obstacle on the usual route.

Plans, in all three mazes: random starts and goals, a disc on the usual route and a speed limit;
violations are looked for at every interpolated environment step of plans projected onto both.
Executions: a disc that leaves a gap in the corridor (``gap``), or a box that closes it where the
maze has another way (``closed``); the share of executed paths that keep out, and that arrive, by
planner, with and without the filter on actions (``forethought.safety``). Starts, goals and
obstacles are the same in every row.
Thesis Section 5.4, "Test-time flexibility".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from forethought.checkpoint import load_config, load_model
from forethought.controllers import make_controller
from forethought.envs.maze import TIME_STEP, MazeEnv
from forethought.envs.maze_layout import LAYOUTS, Cell, Layout
from forethought.figures import draw_ends, draw_maze, draw_paths
from forethought.guides.terms import Term, keep_out, keep_out_box, speed_limit
from forethought.models.base import GuidanceConfig, Model, SamplerConfig
from forethought.planners.base import Planner
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig
from forethought.planners.tasks import TaskPlanner
from forethought.policy import PlanningPolicy
from forethought.registry import studies
from forethought.safety import SafeController, SafetyFilter
from forethought.scores import share
from forethought.studies.base import Part, Study, StudySettings
from forethought.types import Trajectory

PLANS, EPISODES = 1000, 100
MARGIN = 0.12  # of plans, for whoever executes them; environment units
CANDIDATES = 16
SPEED = 3.0  # units/s; the ball reaches 5.2 along an axis
GUIDED = GuidanceConfig(at="clean", scale=0.5, scale_by_variance=False, inner_steps=2)
MAZES = ("large", "medium", "umaze")
SHAPES = {"gap": ("disc", 0.25, 0.15), "closed": ("box", 0.7, 0.0)}  # size, shift off the center
ROWS = (
    "plain",
    "best of candidates",
    "guide",
    "guide + projection",
    "plain + filter",
    "guide + projection + filter",
)


@studies.register("constraints")
def constraints() -> Study:
    """Hard constraints on plans, and executions with a new obstacle."""
    parts = [Part(name="plans", minutes=1, compute=hard_plans)]
    parts += [
        Part(
            name=f"{kind}/{row}",
            minutes=4,
            compute=lambda settings, kind=kind, row=row: run_row(settings, kind, row),
        )
        for kind in SHAPES
        for row in ROWS
    ]
    return Study(
        title="Constraints and obstacles given at test time (thesis Section 5.4)",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def draw_cases(layout: Layout, kind: str, n: int, seed: int) -> list[dict[str, Any]]:
    """n starts and goals at least 7 cells apart, and an obstacle on the shortest way between."""
    generator, cases, free = np.random.default_rng(seed), [], layout.free_cells()
    while len(cases) < n:
        start, goal = (free[i] for i in generator.choice(len(free), 2, replace=False))
        path = layout.shortest_path(start, goal)
        inner = path[2:-2] if len(path) >= min(7, len(free)) else []
        if kind == "closed":
            inner = [cell for cell in inner if _has_detour(layout, start, goal, cell)]
        if not inner:
            continue
        cell = inner[generator.integers(len(inner))]
        shift = SHAPES[kind][2]
        case = {
            "start": np.add(start, generator.uniform(-0.1, 0.1, 2)).tolist(),
            "goal": np.add(goal, generator.uniform(-0.1, 0.1, 2)).tolist(),
            "center": [x + shift for x in layout.center_of(cell)],
        }
        if _is_clear(case, kind):
            cases.append(case)
    return cases


def _has_detour(layout: Layout, start: Cell, goal: Cell, closed: Cell) -> bool:
    rows = [list(row) for row in layout.rows]
    rows[closed[0]][closed[1]] = "#"
    try:
        Layout(tuple("".join(row) for row in rows)).shortest_path(start, goal)
    except ValueError:
        return False
    return True


def _is_clear(case: Mapping[str, Any], kind: str) -> bool:
    size = SHAPES[kind][1] + 0.2
    ends = np.array([case["start"], case["goal"]]) - case["center"]
    return bool((np.abs(ends).max(axis=1) > size).all())


def obstacle(case: Mapping[str, Any], kind: str, margin: float = 0.0) -> Term:
    """The case's obstacle as a hard term."""
    shape, size, _ = SHAPES[kind]
    center = case["center"]
    if shape == "disc":
        return keep_out(center, size, margin=margin, name="obstacle")
    low, high = [x - size for x in center], [x + size for x in center]
    return keep_out_box(low, high, margin=margin, name="obstacle")


def hard_plans(settings: StudySettings) -> dict[str, Any]:
    """Violations at every interpolated step of plans under a disc and a speed limit."""
    n, worst, broken, unmet, kept, by_maze = settings.episodes or PLANS, [], 0, 0, [], {}
    cases = [
        (name, case)
        for place, name in enumerate(MAZES)
        for case in draw_cases(LAYOUTS[name], "gap", len(range(place, n, 3)), settings.seed)
    ]
    models = {name: load_model(settings.pretrained / "diffuser" / f"maze-{name}") for name in MAZES}
    for index, (name, case) in enumerate(cases):
        model = models[name]
        terms = [
            obstacle(case, "gap", margin=0.05),
            speed_limit(SPEED, time_step=TIME_STEP, margin=0.05),
        ]
        config = DiffusionPlannerConfig(candidates=8, sampler=SamplerConfig(steps=3))
        planner = TaskPlanner(model, config, terms=terms, detours=False)
        plan = planner.plan(
            _observation(case["start"]),
            goal=_observation(case["goal"]),
            generator=torch.Generator().manual_seed(settings.seed + index),
        )
        found = [float(v[0]) for v in plan.stats["violations"].values()]
        worst.append(max(found))
        broken += max(found) > 0
        unmet += not plan.stats["is_met"]
        by_maze[name] = by_maze.get(name, 0) + 1
        if name == "large" and len(kept) < 4:
            kept.append({**case, "path": _short(plan.trajectory.observations[0])})
    return {
        "plans": n,
        "by_maze": by_maze,
        "plans_with_violation": broken,
        "plans_reported_unmet": unmet,
        "largest_violation": max(worst),
        "protocol": {"candidates": 8, "network_calls": 3, "speed_limit": SPEED, "cases": "gap"},
        "examples": kept,
    }


def run_row(settings: StudySettings, kind: str, row: str) -> dict[str, Any]:
    """Execute plans of one planner past one kind of obstacle."""
    folder = settings.pretrained / "diffuser" / "maze-large"
    model, control = load_model(folder), load_config(folder)["experiment"].control
    n, env = settings.episodes or EPISODES, MazeEnv("large")
    shared: list[torch.Tensor] = []
    records = []
    for index, case in enumerate(draw_cases(LAYOUTS["large"], kind, n, settings.seed)):
        term = obstacle(case, kind, margin=MARGIN)
        planner = make_planner(row.removesuffix(" + filter"), model, term, shared)
        controller = make_controller(control, 2)
        if row.endswith("filter"):
            # the recipe's pursuit settings are what data.identify measures in the log
            controller = SafeController(controller, SafetyFilter(control.pursuit, [term]))
        policy = PlanningPolicy(
            planner,
            controller,
            replan_every=control.replan_every,
            goal_time="receding",
            settled_within=control.settled_within,
        )
        policy.reset(1, [settings.seed + index])
        path, success = _execute(policy, env, case)
        if isinstance(planner, TaskPlanner) and planner.states is not None:
            shared[:] = [planner.states]
        depth = float(obstacle(case, kind).violation(_path(path))[0])
        rounded = {name: [round(x, 3) for x in value] for name, value in case.items()}
        records.append({"case": rounded, "depth": round(depth, 4), "success": success})
        if index < 4:
            records[-1]["path"] = _short(path)
    kept = sum(record["depth"] <= 0 for record in records)
    arrived = sum(record["success"] for record in records)
    both = sum(record["success"] and record["depth"] <= 0 for record in records)
    return {
        "n": n,
        "keeps_out": share(kept, n),
        "success": share(arrived, n),
        "both": share(both, n),
        "protocol": {
            "candidates": 1 if row.startswith("plain") else CANDIDATES,
            "network_calls": 3,
            "replan_every": control.replan_every,
            "controller": control.controller,
            "guidance": repr(GUIDED) if "guide" in row else None,
            "margin": MARGIN,
            "filter": row.endswith("filter"),
            "seed": settings.seed,
        },
        "episodes": records,
    }


def make_planner(row: str, model: Model, term: Term, shared: list[torch.Tensor]) -> Planner:
    """The planner of a row; ``shared``: states an earlier planner of this model imagined."""
    if row == "plain":
        return DiffusionPlanner(model, _config(1, guided=False))
    if row == "guide":
        return DiffusionPlanner(model, _config(CANDIDATES, guided=True), terms=[term])
    if row == "best of candidates":
        return DiffusionPlanner(model, _config(CANDIDATES, guided=False), terms=[term])
    planner = TaskPlanner(model, _config(CANDIDATES, guided=True), terms=[term])
    if shared:
        planner.states = shared[0]
    return planner


def _config(candidates: int, *, guided: bool) -> DiffusionPlannerConfig:
    guidance = GUIDED if guided else GuidanceConfig(scale=0.0)
    return DiffusionPlannerConfig(
        candidates=candidates, sampler=SamplerConfig(steps=3, guidance=guidance)
    )


def _execute(
    policy: PlanningPolicy, env: MazeEnv, case: Mapping[str, Any]
) -> tuple[torch.Tensor, bool]:
    """(801, 4) observations of one episode, and whether it ends at the goal."""
    observation, info = env.reset(options={"start": case["start"], "goal": case["goal"]})
    path, goal = [observation], torch.from_numpy(env.goal_observation)[None]
    for _ in range(800):
        action = policy(torch.from_numpy(path[-1])[None], goal)[0].numpy()
        observation, _, _, _, info = env.step(action)
        path.append(observation)
    return torch.from_numpy(np.stack(path)), bool(info["success"])


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """One line of mazes for each row and kind: the first four executed paths."""
    figures = {}
    for kind in SHAPES:
        rows = [row for row in ROWS if f"{kind}/{row}" in parts]
        if not rows:
            continue
        figure = Figure(figsize=(9.6, 2.0 * len(rows)), dpi=150, layout="constrained")
        axes = figure.subplots(len(rows), 4, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            for ax in line:
                draw_maze(ax, LAYOUTS["large"])
            for ax, record in zip(line, parts[f"{kind}/{row}"]["episodes"][:4], strict=False):
                _draw_record(ax, record, kind, row)
        figures[kind] = figure
    return figures


def _draw_record(ax: Any, record: Mapping[str, Any], kind: str, row: str) -> None:
    case, size = record["case"], SHAPES[kind][1]
    y, x = case["center"]
    if SHAPES[kind][0] == "disc":
        angle = np.linspace(0, 2 * np.pi, 60)
        ax.fill(x + size * np.cos(angle), y + size * np.sin(angle), color="#c8323c", alpha=0.5)
    else:
        xs, ys = [x - size, x + size, x + size, x - size], [y - size, y - size, y + size, y + size]
        ax.fill(xs, ys, color="#c8323c", alpha=0.5)
    draw_paths(ax, [record["path"]], width=1.6)
    draw_ends(ax, case["start"], case["goal"])
    kept = "keeps out" if record["depth"] <= 0 else f"{record['depth']:.2f} inside"
    ax.set_title(f"{row}: {kept}{'' if record['success'] else ', lost'}", fontsize=7)


def markdown(parts: Mapping[str, Any]) -> str:
    """Tables of what has been computed."""
    lines = []
    if "plans" in parts:
        plans = parts["plans"]
        lines += [
            f"{plans['plans']} plans with a keep-out disc and a speed limit: "
            f"{plans['plans_with_violation']} with a violation at any interpolated step (largest "
            f"{plans['largest_violation']:.4f}), "
            f"{plans['plans_reported_unmet']} reported as unmet.",
            "",
        ]
    lines += [
        "| obstacle | planner | keeps out | arrives | both | n |",
        "|---|---|---|---|---|---|",
    ]
    for kind in SHAPES:
        for row in ROWS:
            part = parts.get(f"{kind}/{row}")
            if part is not None:
                cells = [_cell(part[name]) for name in ("keeps_out", "success", "both")]
                lines.append(f"| {kind} | {row} | {' | '.join(cells)} | {part['n']} |")
    return "\n".join(lines)


def _cell(item: Mapping[str, Any]) -> str:
    low, high = item["interval"]
    return f"{item['mean']:.1%} [{low:.1%}, {high:.1%}]"


def _observation(point: list[float]) -> torch.Tensor:
    return torch.tensor([[*point, 0.0, 0.0]])


def _path(observations: torch.Tensor) -> Trajectory:
    rows = observations[None]
    return Trajectory(
        observations=rows, actions=rows[..., :0], times=torch.arange(len(observations))
    )


def _short(path: torch.Tensor) -> list[list[float]]:
    return [[round(float(x), 2) for x in row[:2]] for row in path[::6]]
