"""Settings that both Trajectory Transformers have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.tokenizers import Reconstruction, TokenizerKind
from forethought.data.trajectory_tokens import ReturnToken, TerminalReward, with_terminal_reward
from forethought.data.views import Windows
from forethought.nn.gpt import DropoutPlace, PositionKind


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig(ModelConfig):
    """Of tokens, windows, loss and network; subclasses add what is their own."""

    context: int = 5
    """past transitions that a plan may look back on"""
    horizon: int = 15
    """transitions of the longest plan, the current one included"""
    n_bins: int = 100
    """tokens per dimension, V"""
    tokenizer: TokenizerKind = "quantile"
    reconstruct: Reconstruction = "center"
    """what a token is decoded as: its bin's center (released code) or the mean of the data in it"""
    reward_token: bool = True
    return_token: ReturnToken = "with_reward"
    """reward-to-go from the present reward on (thesis) or from the next one (released code)"""
    hide_returns: bool = False
    """let no token attend to reward-to-go tokens (released code), so that they need not be known"""
    discount: float = 0.99
    """of the reward-to-go"""
    terminal_reward: TerminalReward = "keep"
    """what happens to the reward of a step that ends its episode (released code: replace)"""
    terminal_amount: float = -100.0
    """put in its place, or added to it"""
    stop_token: bool = False
    """predict the end of an episode: in place of the observation's first dimension comes a special
    token (released code: of every dimension)"""
    goal: Literal["none", "final"] = "none"
    """condition on the episode's last observation, put before everything else (thesis 4.3)"""
    goal_dims: tuple[int, ...] = ()
    """dimensions of the observation that a goal shows; all by default"""
    map_kinds: int = 0
    """kinds of cells of the episode's context, a map of integers that a small convolutional network
    sees and adds to all embeddings (thesis B.6); 0 = no map"""
    hidden_share: float = 0.0
    """probability with which each dimension of an observation is hidden (thesis 4.4: 0.5)"""
    action_weight: float = 1.0
    """loss weight of action tokens (released code: 5)"""
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.1
    dropout_at: DropoutPlace = "block"
    positions: PositionKind = "learned"
    band: int = 0
    """with positions rotary: attend to the latest ``band`` transitions only, so that sequences can
    grow for ever; 0 = to all"""

    def __post_init__(self) -> None:
        if self.context < 0 or self.horizon < 1 or self.window < 2:
            raise ValueError(
                f"model.context {self.context} must not be negative, model.horizon {self.horizon} "
                "must be positive, and together they must be at least 2 transitions"
            )
        if not 0 <= self.hidden_share < 1:
            raise ValueError(f"model.hidden_share is {self.hidden_share}; use 0 up to below 1")
        if self.band < 0 or self.action_weight < 0:
            raise ValueError(
                f"model.band {self.band} and model.action_weight {self.action_weight} must not be "
                "negative"
            )
        if self.band and (self.positions != "rotary" or self.goal != "none"):
            raise ValueError(
                "model.band needs model.positions rotary, for learned positions cannot slide, and "
                "model.goal none, for the goal in front would fall out of the band"
            )
        if self.return_token != "none" and not self.reward_token:
            raise ValueError("model.return_token needs model.reward_token: it follows the reward")

    @property
    def window(self) -> int:
        """Transitions of a training window."""
        return self.context + self.horizon

    def view(self, dataset: EpisodeDataset) -> Windows:
        return Windows(
            with_terminal_reward(dataset, self.terminal_reward, self.terminal_amount),
            self.window,
            pad="repeat",
            discount=self.discount,
            goal=self.goal,
        )
