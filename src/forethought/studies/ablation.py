"""What each piece of the maze planner adds: one is changed at a time, on matched starts.

The full system is the shipped checkpoint with the settings stored in it. A row of ``PIECES``
changes one piece of planning or control and keeps the weights; a row of ``ablation_training``
changes one piece of the model and is trained anew, all of them for the same processor time. A
difference is the mean over episodes of (row - full system) from the same start, with its 95 %
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from forethought.checkpoint import load_config, load_model
from forethought.config import Experiment
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import Diffuser
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.registry import recipes, studies
from forethought.studies.ablation_show import markdown, plot
from forethought.studies.ablation_training import VARIANTS, trained_row
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.timed_rows import checkpoint_of, planned_row

EPISODES = 200
CORE_SECONDS = 120.0  # of training for each row of ``VARIANTS``
MINUTES = {"large": 2.0, "multi-large": 2.0, "medium": 1.2, "umaze": 0.7}

Change = Callable[[Experiment], Experiment]
Cut = Callable[[Diffuser], Diffuser]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One change to the full system: to its settings, or to the rows of its plans."""

    group: str
    label: str
    change: Change = lambda experiment: experiment
    cut: Cut = lambda model: model


def _control(**fields: Any) -> Change:
    return lambda experiment: replace(experiment, control=replace(experiment.control, **fields))


def _planner(**fields: Any) -> Change:
    def change(experiment: Experiment) -> Experiment:
        planner = experiment.require_planner()
        assert isinstance(planner, DiffusionPlannerConfig), "a maze recipe's planner"
        changed = replace(planner, **fields)
        return replace(experiment, planner=changed)

    return change


def _gains(position: float, velocity: float) -> tuple[tuple[float, ...], ...]:
    """For observations (row, col, v_row, v_col) and actions (row, col)."""
    return ((position, 0.0, velocity, 0.0), (0.0, position, 0.0, velocity))


def _inverse_dynamics(experiment: Experiment) -> Experiment:
    """The action that brings the velocity planned for the next step, from the log's push."""
    gains = _gains(0.0, 1 / experiment.control.pursuit.acceleration)
    return _control(controller="track_observations", gains=gains)(experiment)


def _thesis_length(experiment: Experiment) -> Experiment:
    """Every plan as long as the thesis's for this maze; replanning keeps its end."""
    thesis = recipes[f"{experiment.name}-thesis"]().planner
    return _control(goal_time="fixed")(_planner(length=thesis.length)(experiment))


def halve_reach(model: Diffuser) -> Diffuser:
    """The same weights as a model of half as many rows: it sees half as far, and says so."""
    config = replace(model.config, horizon=model.config.horizon // 2)
    short = config.build(model.spaces)
    known = model.state_dict()
    short.load_state_dict(
        {
            name: known[name][: len(value)] if value.ndim else known[name]
            for name, value in short.state_dict().items()
        }
    )
    return short.eval().requires_grad_(False)


def end_at_arrival(model: Diffuser) -> Diffuser:
    """The same model, whose plans have no more rows than reach the arrival."""
    model.config = replace(model.config, horizon=model.network.multiple)
    return model


PIECES = {
    "full": Piece(group="full", label="full system"),
    "clock": Piece(
        group="control",
        label="path tracked by the clock (PD)",
        change=_control(controller="track_observations", gains=_gains(10.0, 1.0), look_ahead=4.0),
    ),
    "inverse": Piece(
        group="control", label="inverse dynamics of the planned velocity", change=_inverse_dynamics
    ),
    "not-held": Piece(
        group="control", label="goes on planning at the goal", change=_control(settled_within=())
    ),
    "length": Piece(group="arrival", label="fixed length of the thesis", change=_thesis_length),
    "no-doubt": Piece(group="arrival", label="no doubt", change=_planner(patience=0.0)),
    "half-reach": Piece(group="arrival", label="half the reach", cut=halve_reach),
    "cut": Piece(group="arrival", label="plans end at their arrival", cut=end_at_arrival),
    **{
        f"candidates-{count}": Piece(
            group="candidates",
            label=f"{count} candidates, judged",
            change=_planner(candidates=count),
        )
        for count in (4, 16)
    },
    **{
        f"every-{steps}": Piece(
            group="cadence",
            label=f"a plan every {steps} steps" if steps else "one plan an episode",
            change=_control(replan_every=steps),
        )
        for steps in (5, 30, 45, 60, 0)
    },
    **{
        f"steps-{steps}": Piece(
            group="denoising",
            label=f"{steps} network call{'s' if steps > 1 else ''} a plan",
            change=_planner(sampler=SamplerConfig(steps=steps)),
        )
        for steps in (1, 3, 8)
    },
    "warm": Piece(
        group="denoising",
        label="warm start, half the calls",
        change=_planner(warm_start=0.5),
    ),
}
BRIEF = ("full", "every-5", "every-45", "every-0", "clock", "length")
ROWS = {
    "large": tuple(PIECES),
    "medium": BRIEF,
    "umaze": BRIEF,
    "multi-large": ("full", "no-doubt", "not-held"),
}


@studies.register("ablation")
def ablation(core_seconds: float = CORE_SECONDS) -> Study:
    """What each piece of the maze planner adds, one changed at a time (beyond the thesis)."""
    parts = [
        Part(
            name=f"{cell}-{name}",
            minutes=MINUTES[cell],
            compute=partial(_row, cell=cell, piece=PIECES[name]),
        )
        for cell, names in ROWS.items()
        for name in names
    ]
    parts += [
        Part(
            name=f"trained-{key}",
            minutes=1.5 + core_seconds / 60,
            compute=partial(_trained, key=key, core_seconds=core_seconds),
        )
        for key in VARIANTS
    ]
    return Study(
        title="Ablation: what each piece of the maze planner adds, on matched starts",
        parts=tuple(parts),
        plot=lambda found: plot(_in_order(found, parts)),
        markdown=lambda found: markdown(_in_order(found, parts)),
    )


def _in_order(found: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """What is there, in the order of the study's parts."""
    return {part.name: found[part.name] for part in parts if part.name in found}


def _row(settings: StudySettings, *, cell: str, piece: Piece) -> dict[str, Any]:
    folder = checkpoint_of(settings, cell.split("-")[-1])
    experiment, model = piece.change(load_config(folder)["experiment"]), load_model(folder)
    assert isinstance(model, Diffuser), "the shipped maze planners"
    env = experiment.env.replace("maze2d-", "multi2d-") if "multi" in cell else experiment.env
    row = planned_row(
        piece.cut(model),
        env,
        experiment.require_planner(),
        experiment.control,
        n=settings.episodes or EPISODES,
        seed=settings.seed,
    )
    facts = {"group": piece.group, "label": piece.label, "checkpoint": str(folder)}
    return {**facts, **row}


def _trained(settings: StudySettings, *, key: str, core_seconds: float) -> dict[str, Any]:
    n = settings.episodes or EPISODES
    return trained_row(settings, key, core_seconds=core_seconds, n=n)
