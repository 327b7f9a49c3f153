"""Figure 4.6: reaching points in four rooms by likelihood search, the goal put in front.

The Trajectory Transformer has seen episodes that end where they end, and each episode's last
observation stands before its tokens ("anti-causal conditioning"). Told another goal, the likeliest
continuation leads there; no rewards are used. Every row acts from the same 200 random starts to the
same random goals: the planner, the same model without search (one beam, one step: its likeliest
next action), and the scripted agent that made the data, without its noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from forethought.checkpoint import load_config, load_model
from forethought.envs.four_rooms import DOOR, DOOR_HALF_WIDTH, controller_actions
from forethought.evaluation import checkpoint_protocol, make_policy, plan_times
from forethought.figures import INK, MUTED
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.policy import PlanningPolicy
from forethought.registry import recipes, studies
from forethought.rollout import Evaluation, evaluate
from forethought.scores import share
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.locomotion_rows import trained
from forethought.studies.rows import row_of

RECIPE, EPISODES, SHOWN = "transformer/four-rooms", 200, 24
ROWS: dict[str, tuple[str, dict[str, int]]] = {
    "planner": ("Trajectory Transformer, beam search", {}),
    "no-search": ("the same, likeliest next action", {"beam": 1, "horizon": 1}),
}


@studies.register("figure-4-6")
def figure_4_6() -> Study:
    """Random starts to random goals in four rooms."""
    parts = [
        Part(name=name, minutes=10.0 if name == "planner" else 1.0, compute=partial(act, row=name))
        for name in ROWS
    ]
    parts.append(Part(name="controller", minutes=0.2, compute=controller))
    return Study(
        title="Figure 4.6: goal reaching in four rooms",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def act(settings: StudySettings, *, row: str) -> dict[str, Any]:
    """Reach goals with the model, trained now if it has not been."""
    label, changes = ROWS[row]
    found = reach_goals(settings, RECIPE, settings.episodes or EPISODES, changes)
    return {**row_of(label, found), "paths": shown_paths(found)}


def reach_goals(
    settings: StudySettings, recipe: str, episodes: int, changes: Mapping[str, int]
) -> Evaluation:
    """Act by likelihood search towards random goals; trains the recipe's model first if need be.

    changes: to the recipe's planner
    """
    experiment = recipes[recipe]()
    folder, _ = trained(settings, experiment)
    planner = experiment.require_planner()
    assert isinstance(planner, BeamPlannerConfig), "the recipe searches with beams"
    planner = replace(planner, **changes)
    policy = make_policy(load_model(folder), planner, experiment.control)
    protocol = checkpoint_protocol(folder, load_config(folder), planner, experiment.control)
    found = evaluate(
        policy, experiment.env, episodes, settings.seed, n_parallel=episodes, protocol=protocol
    )
    assert isinstance(policy, PlanningPolicy), "beams make plans"
    found.protocol.update(plan_times(policy))
    return found


class _Controller:
    """The agent of the data, without noise."""

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Nothing is remembered."""

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        assert goal is not None, "four rooms have goals"
        return torch.from_numpy(controller_actions(observation.double().numpy(), goal.numpy()))


def controller(settings: StudySettings) -> dict[str, Any]:
    """The same starts and goals."""
    env = recipes[RECIPE]().env
    episodes = settings.episodes or EPISODES
    found = evaluate(_Controller(), env, episodes, settings.seed, n_parallel=episodes)
    found.protocol["controller"] = "scripted, no noise"
    return {**row_of("the agent of the data, no noise", found), "paths": shown_paths(found)}


def shown_paths(found: Evaluation) -> list[dict[str, Any]]:
    """The first episodes' positions and goals, and every failed one's."""
    failed = [i for i, record in enumerate(found.episodes) if not record["success"]]
    kept = sorted({*range(min(SHOWN, found.n)), *failed[:SHOWN]})
    return [
        {
            "episode": index,
            "success": found.episodes[index]["success"],
            "goal": found.episodes[index]["goal"],
            "path": np.round(found.paths[index].observations, 3).tolist(),
        }
        for index in kept
    ]


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Executed paths, one panel a row: darker later, failures in red."""
    present = [name for name in (*ROWS, "controller") if name in parts]
    if not present:
        return {}
    figure = Figure(figsize=(3.6 * len(present), 3.9), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(present), squeeze=False)[0]
    for panel, name in zip(panels, present, strict=True):
        draw_rooms(panel)
        for shown in parts[name]["paths"]:
            path = np.array(shown["path"])
            color = "#3d6fb4" if shown["success"] else "#c8323c"
            shades = np.linspace(0.25, 1.0, len(path) - 1)
            for start, end, shade in zip(path[:-1], path[1:], shades, strict=True):
                panel.plot(*np.stack([start, end]).T, color=color, alpha=shade, lw=1.5)
            panel.plot(*path[0], "o", ms=5, mfc="white", mec=INK, mew=1.2, zorder=3)
            panel.plot(*shown["goal"], "o", ms=5, mfc="#e8743b", mec="none", zorder=3)
        reached = f"{parts[name]['success_rate']:.1%} of {parts[name]['n']} reached"
        panel.set_title(f"{parts[name]['method']}\n{reached}", fontsize=9)
    explain_paths(figure)
    return {"paths": figure}


def explain_paths(figure: Figure) -> None:
    """A key of starts, goals, and ways that arrive or fail."""
    marks = {
        "start": {"marker": "o", "ls": "", "mfc": "white", "mec": INK, "mew": 1.2},
        "goal": {"marker": "o", "ls": "", "mfc": "#e8743b", "mec": "none"},
        "way that arrives": {"color": "#3d6fb4", "lw": 2},
        "way that fails": {"color": "#c8323c", "lw": 2},
    }
    handles = [Line2D([], [], label=label, **style) for label, style in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def draw_rooms(axis: Any) -> None:
    """Outer walls, and the half walls with their doors."""
    axis.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color=INK, lw=2)
    ends = [-1, -DOOR - DOOR_HALF_WIDTH, -DOOR + DOOR_HALF_WIDTH]
    for first, last in ((ends[0], ends[1]), (ends[2], -ends[2]), (-ends[1], 1)):
        axis.plot([first, last], [0, 0], color=MUTED, lw=3)
        axis.plot([0, 0], [first, last], color=MUTED, lw=3)
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.axis("off")


def markdown(parts: Mapping[str, Any]) -> str:
    """Shares of goals reached, and steps needed."""
    return reached_table(
        parts,
        (*ROWS, "controller"),
        "Random starts and goals, the same for every row; a goal is reached within 0.08 of it, in "
        "at most 100 steps. Steps: median of those that arrive.",
    )


def reached_table(parts: Mapping[str, Any], names: Sequence[str], text: str) -> str:
    """A row for each part that is there: share of goals reached, steps, cost of a plan."""
    lines = [
        text,
        "",
        "| | reached [95 %] | n | steps | ms a plan |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        if row := parts.get(name):
            low, high = share(round(row["success_rate"] * row["n"]), row["n"])["interval"]
            steps = [step for step in row["arrivals"] if step is not None]
            cost = row["protocol"].get("plan_ms", {}).get("median")
            lines.append(
                f"| {row['method']} | {row['success_rate']:.1%} [{low:.1%}, {high:.1%}] | "
                f"{row['n']} | {np.median(steps) if steps else float('nan'):.0f} | "
                f"{'–' if cost is None else f'{cost:.1f}'} |"
            )
    return "\n".join(lines)
