"""Settings of the Trajectory Transformer as printed and as released, for recipes to start from.

No data set is registered for them yet; a recipe adds one. Where the thesis is silent (context of a
window, dropout's place, clipping), the released code (jannerm/trajectory-transformer, 8834a6e)
completes it.
"""

from __future__ import annotations

from forethought.config import TrainConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.planners.beam_search import CutOffs, RewardSearch

THESIS_MODEL = TransformerConfig(
    context=5, horizon=15, head="shared", return_token="with_reward", dropout=0.1
)
"""Appendix B.1; windows as long as context and horizon of B.5 together"""

THESIS_PLANNER = BeamPlannerConfig(
    beam=256, horizon=15, context=5, reward=RewardSearch(expand=2, actions=CutOffs(top=20))
)
"""Appendix B.5: width 256, greedy observations, actions from the likeliest 20 tokens"""

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
"""windows of 10 transitions"""

RELEASED_PLANNER = BeamPlannerConfig(
    beam=128,
    horizon=15,
    context=4,
    reward=RewardSearch(expand=2, actions=CutOffs(cdf=0.6)),
    crop=5,
)
"""Differs from the released code: sequences slide when they outgrow the window of 10 transitions,
not at 5. ``TransformerConfig(context=4, horizon=1)`` slides at 5."""


def thesis_training(steps: int, seed: int = 0) -> TrainConfig:
    """Appendix B.1: Adam, rate 2.5e-4 after 2,000 steps of warm-up, batch 256; 80 epochs are
    ``80 * windows / 256`` steps."""
    return TrainConfig(
        steps=steps,
        batch_size=256,
        learning_rate=2.5e-4,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        warmup_steps=2_000,
        max_gradient_norm=1.0,
        ema_decay=0.0,
        seed=seed,
    )
