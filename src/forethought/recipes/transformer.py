"""Trajectory Transformers: locomotion, four rooms, MultiRoom, short walks in a maze.

``transformer/TASK-QUALITY``: the factored model with quantile bins, 4 to 30 minutes of one core;
``-uniform`` has uniform bins, ``-flat`` the flat model with windows of 20 transitions. Tokens are
those of the released code (reward-to-go without the present reward, which no token attends to; a
stop token; -100 in place of a fall's reward), but actions have no larger weight in the loss: of
200,000 steps the noise of their policy would be learned by heart. Networks are smaller than the
thesis's (3 layers of 96 instead of 4 of 128) because one core trains on some ten million tokens in
that time, the released runs on thousands of millions. On expert data the model imitates: it has no
reward tokens, and its planner looks for the likeliest plan (Algorithm 4).

``transformer/maze-{medium,large}-stitch``: a smaller factored model for the sparse task of
``envs/maze_reach.py``, whose plans of 4 steps see a fraction of the way (beam 8; on trial starts
beam 32 and 12 steps were no better at ten times the cost). It plans by its own
reward-to-go; ``--planner.critic PATH`` lets the Q of an IQL checkpoint lead instead.

``-thesis`` and ``-released``, the settings as printed and as published: ``transformer_published``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from forethought.config import ControlConfig, Experiment, TrainConfig
from forethought.envs.multiroom import CELL_KINDS
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.token_config import TokenModelConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.planners.beam_search import CutOffs, RewardSearch
from forethought.registry import recipes

TASKS = ("hopper", "walker2d", "halfcheetah")
QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")
VARIANTS = ("", "-uniform", "-flat", "-flat-uniform")


def training(steps: int, *, batch_size: int, learning_rate: float) -> TrainConfig:
    """Ours: averaged weights, cosine decay."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        precision="fp32",
        save_every=500,
    )


RECEDING = ControlConfig(
    controller="follow_actions", replan_every=1, goal_time="receding", together=True
)
_SMALL: dict[str, Any] = {
    "width": 96,
    "depth": 3,
    "heads": 4,
    "dropout": 0.0,
    "reconstruct": "mean",
}
LOCOMOTION_DISCOUNT = 0.998
"""of rewards-to-go, and of the search: at the thesis's 0.99 a fall some hundred steps ahead counts
for little, and a fast gait that ends in one is worth as much as a safe one"""
_OFFLINE: dict[str, Any] = {
    "return_token": "without_reward",
    "hide_returns": True,
    "stop_token": True,
    "terminal_reward": "replace",
    "terminal_amount": -100.0,
    "discount": LOCOMOTION_DISCOUNT,
}
_IMITATION: dict[str, Any] = {"reward_token": False, "return_token": "none"}


def locomotion(task: str, quality: str, variant: str = "") -> Experiment:
    """A Trajectory Transformer on locomotion data."""
    imitates, is_flat = quality == "expert", "flat" in variant
    settings = _SMALL | (_IMITATION if imitates else _OFFLINE)
    settings["tokenizer"] = "uniform" if "uniform" in variant else "quantile"
    model = FactoredTransformerConfig(context=5, horizon=10, head_width=96, **settings)
    if is_flat:
        model = TransformerConfig(context=5, horizon=15, **settings)
    return Experiment(
        name=f"transformer/{task}-{quality}{variant}",
        dataset=f"{task}-{quality}",
        env=f"forethought/{task}-v0",
        model=model,
        train=training(
            _steps(task, imitates=imitates, is_flat=is_flat),
            batch_size=16 if is_flat else 64,
            learning_rate=3e-3,
        ),
        planner=_planner(task, quality, is_flat=is_flat),
        control=RECEDING,
    )


def _steps(task: str, *, imitates: bool, is_flat: bool) -> int:
    if is_flat:
        return 3_000
    if imitates:
        return 4_000 if task == "hopper" else 14_000
    return 2_500  # beyond, actions' noise is learned by heart


# beam, horizon, mass of the least likely action tokens that is cut off, elites: chosen on Hopper,
# on starts that no table uses. Where the data's policies act well, a long search finds what the
# model is wrong about, and the noise in their actions is best averaged; where most act badly, a
# long search is needed
_SEARCHES = {
    "medium": (32, 1, 0.3, 16),
    "medium-replay": (32, 5, 0.3, 1),
    "medium-expert": (32, 1, 0.8, 16),
}


def _planner(task: str, quality: str, *, is_flat: bool) -> BeamPlannerConfig:
    if quality == "expert":
        if task == "hopper":
            return BeamPlannerConfig(search="likelihood", beam=32, horizon=5, context=5)
        # unstable gaits: the likeliest bins' noise makes them fall more often than the data's
        return BeamPlannerConfig(
            search="likelihood", beam=4, horizon=1, context=3, expected_action=True
        )
    if is_flat:  # the released search
        search = RewardSearch(expand=2, actions=CutOffs(cdf=0.6), discount=LOCOMOTION_DISCOUNT)
        return BeamPlannerConfig(beam=128, horizon=15, context=5, reward=search)
    beam, horizon, cut, elites = _SEARCHES[quality]
    search = RewardSearch(expand=2, actions=CutOffs(cdf=cut), discount=LOCOMOTION_DISCOUNT)
    return BeamPlannerConfig(beam=beam, horizon=horizon, context=5, reward=search, elites=elites)


for _task in TASKS:
    for _quality in QUALITIES:
        for _variant in VARIANTS:
            recipes.register(f"transformer/{_task}-{_quality}{_variant}")(
                partial(locomotion, _task, _quality, _variant)
            )


def goals(
    task: str, model: TokenModelConfig, *, steps: int, horizon: int, batch_size: int = 128
) -> Experiment:
    """Goal reaching by likelihood search, the goal put in front (thesis Section 4.3)."""
    return Experiment(
        name=f"transformer/{task}",
        dataset=task,
        env=f"forethought/{task}-v0",
        model=model,
        train=training(steps, batch_size=batch_size, learning_rate=1e-3),
        planner=BeamPlannerConfig(
            search="likelihood", beam=16, horizon=horizon, context=model.context
        ),
        control=RECEDING,
    )


_GOALS: dict[str, Any] = _IMITATION | {
    "goal": "final",
    "depth": 3,
    "reconstruct": "mean",
    "dropout": 0.0,
}


@recipes.register("transformer/four-rooms")
def four_rooms() -> Experiment:
    """A Trajectory Transformer that reaches goals in four rooms (thesis Figure 4.6)."""
    # a short history: the way it came says much about the next action, but what counts is the goal
    model = TransformerConfig(context=1, horizon=4, width=64, tokenizer="uniform", **_GOALS)
    return goals("four-rooms", model, steps=5_000, horizon=3)


@recipes.register("transformer/multiroom")
def multiroom() -> Experiment:
    """A Trajectory Transformer for maps never seen, which it is shown (thesis Appendix B.6)."""
    model = FactoredTransformerConfig(
        context=4,
        horizon=20,
        goal_dims=(0, 1),
        map_kinds=CELL_KINDS,
        map_places=(0, 1),
        tokenizer="uniform",
        n_bins=25,
        width=96,
        head_width=96,
        **_GOALS,
    )
    return goals("multiroom", model, steps=2_000, horizon=4, batch_size=64)


def stitch(layout: str) -> Experiment:
    """A Trajectory Transformer on short walks in a maze, for one far goal."""
    tokens = _OFFLINE | {"terminal_reward": "keep", "discount": 0.99}
    return Experiment(
        name=f"transformer/maze-{layout}-stitch",
        dataset=f"maze-{layout}-stitch",
        env=f"forethought/reach-{layout}-v0",
        model=FactoredTransformerConfig(
            context=2, horizon=12, **(_SMALL | tokens | {"width": 64, "head_width": 64})
        ),
        train=training(3_000, batch_size=64, learning_rate=3e-3),
        planner=BeamPlannerConfig(
            beam=8,
            horizon=4,
            context=2,
            reward=RewardSearch(expand=4, actions=CutOffs(), observations=CutOffs(top=1)),
        ),
        control=RECEDING,
    )


for _layout in ("medium", "large"):
    recipes.register(f"transformer/maze-{_layout}-stitch")(partial(stitch, _layout))
