"""Trajectory Transformers for locomotion as the thesis prints them and as their code was released.

``transformer/TASK-QUALITY-thesis`` follows Appendices B.1 and B.5; where the text is silent (the
context of a window, dropout's place, clipping), the released code completes it.
``transformer/TASK-QUALITY-released`` follows that code (jannerm/trajectory-transformer, 8834a6e),
data set by data set. On expert data, which that code does not know, there is ``-thesis`` alone: it
imitates (Algorithm 4). These runs take days of a processor; ``transformer/TASK-QUALITY`` minutes.

Differs from the released code: weight decay falls on embeddings too; the rate decays once, to
zero, where theirs falls to a tenth and rises again; the end of an episode is told by an
observation's first dimension, not by every column; sequences slide when they outgrow the window of
10 transitions, not at 5 (``--model.context 4 --model.horizon 1`` slides at 5).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from forethought.config import Experiment, TrainConfig
from forethought.datasets.locomotion import STEPS
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.planners.beam_search import CutOffs, RewardSearch
from forethought.recipes.transformer import QUALITIES, RECEDING, TASKS
from forethought.registry import recipes

BATCH = 256

THESIS_MODEL: dict[str, Any] = {"context": 5, "horizon": 15, "head": "shared", "dropout": 0.1}
"""Appendix B.1; windows as long as context and horizon of B.5 together"""

THESIS_SEARCH: dict[str, Any] = {"beam": 256, "horizon": 15, "context": 5}
"""Appendix B.5, with greedy observations and actions from the likeliest 20 tokens"""

THESIS_EPOCHS = 80

RELEASED_MODEL = TransformerConfig(
    context=5,
    horizon=5,
    head="per_column",
    return_token="without_reward",
    hide_returns=True,
    stop_token=True,
    terminal_reward="replace",
    terminal_amount=-100.0,
    action_weight=5.0,
    dropout=0.1,
    dropout_at="everywhere",
)

RELEASED_SEARCH = {
    "halfcheetah-medium": (32, 5),
    "halfcheetah-medium-replay": (32, 5),
    "halfcheetah-medium-expert": (32, 15),
    "walker2d-medium-expert": (128, 5),
    "walker2d-medium-replay": (32, 20),
}
"""beam and horizon; of the others (128, 15)"""

RELEASED_WINDOWS = {"hopper-medium-replay": 80_000_000, "walker2d-medium-replay": 80_000_000}
"""drawn in training; of the others 50,000,000, whatever the size of the data"""


def thesis(task: str, quality: str) -> Experiment:
    """As the thesis prints it (B.1, B.5): 80 epochs of the data set at its default size."""
    if quality == "expert":
        model = TransformerConfig(**THESIS_MODEL, reward_token=False, return_token="none")
        planner = BeamPlannerConfig(**THESIS_SEARCH, search="likelihood")
    else:
        model = TransformerConfig(**THESIS_MODEL, return_token="with_reward")
        search = RewardSearch(expand=2, actions=CutOffs(top=20))
        planner = BeamPlannerConfig(**THESIS_SEARCH, reward=search)
    windows = THESIS_EPOCHS * STEPS[quality]
    train = _training(windows, learning_rate=2.5e-4, warmup_steps=2_000)
    return _experiment(task, quality, "thesis", model, planner, train)


def released(task: str, quality: str) -> Experiment:
    """As the released code had it for this data set; the warm-up is one epoch."""
    name = f"{task}-{quality}"
    beam, horizon = RELEASED_SEARCH.get(name, (128, 15))
    cut = CutOffs(top=40) if name == "walker2d-medium-replay" else CutOffs(cdf=0.6)
    search = RewardSearch(expand=2, actions=cut)
    planner = BeamPlannerConfig(beam=beam, horizon=horizon, context=4, reward=search, crop=5)
    train = _training(
        RELEASED_WINDOWS.get(name, 50_000_000),
        learning_rate=6e-4,
        warmup_steps=STEPS[quality] // BATCH,
    )
    return _experiment(task, quality, "released", RELEASED_MODEL, planner, train)


def _training(windows: int, *, learning_rate: float, warmup_steps: int) -> TrainConfig:
    return TrainConfig(
        steps=windows // BATCH,
        batch_size=BATCH,
        learning_rate=learning_rate,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        warmup_steps=warmup_steps,
        ema_decay=0.0,
    )


def _experiment(
    task: str,
    quality: str,
    source: str,
    model: TransformerConfig,
    planner: BeamPlannerConfig,
    train: TrainConfig,
) -> Experiment:
    return Experiment(
        name=f"transformer/{task}-{quality}-{source}",
        dataset=f"{task}-{quality}",
        env=f"forethought/{task}-v0",
        model=model,
        train=train,
        planner=planner,
        control=RECEDING,
    )


for _task in TASKS:
    for _quality in QUALITIES:
        _name = f"transformer/{_task}-{_quality}"
        recipes.register(f"{_name}-thesis")(partial(thesis, _task, _quality))
        if _quality != "expert":
            recipes.register(f"{_name}-released")(partial(released, _task, _quality))
