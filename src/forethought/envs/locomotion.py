"""Gymnasium's MuJoCo tasks with the returns that score 0 and 100, as D4RL counts them.

Hopper, Walker2d and HalfCheetah are Gymnasium's ``-v5``; D4RL's reference returns (Fu et al. 2020)
were measured with older versions, which differ in details. Reacher-v5 has the ten dimensions of
thesis A.3 without the constant zero; its reward is for the state reached, minus the squared action.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

ReferenceReturns = tuple[float, float] | None


class Hopper(HopperEnv):
    """Hopper-v5: observations (11,), actions (3,); falls end an episode."""

    def __init__(self, *, reference_returns: ReferenceReturns = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.reference_returns = reference_returns


class Walker2d(Walker2dEnv):
    """Walker2d-v5: observations (17,), actions (6,); falls end an episode."""

    def __init__(self, *, reference_returns: ReferenceReturns = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.reference_returns = reference_returns


class HalfCheetah(HalfCheetahEnv):
    """HalfCheetah-v5: observations (17,), actions (6,); no ending of its own."""

    def __init__(self, *, reference_returns: ReferenceReturns = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.reference_returns = reference_returns


class Reacher(ReacherEnv):
    """Reacher-v5: observations (10,), actions (2,); no ending of its own."""

    def __init__(self, *, reference_returns: ReferenceReturns = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.reference_returns = reference_returns
