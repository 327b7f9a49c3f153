"""What every planner offers: an observation and a goal in, a plan out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from forethought.models.base import Generator, OnStep
from forethought.types import Plan, Trajectory


class Planner(ABC):
    """Plans for a batch of environments at once."""

    chooses_arrival: bool = False
    """whether ``plan`` picks by itself when to be at the goal (else: at the plan's fixed length)"""

    context: int = 0
    """past transitions that ``plan`` wants to be given as ``history``"""

    on_step: OnStep | None = None
    """sees intermediate plans, where the planner has any"""

    @abstractmethod
    def plan(
        self,
        observation: Tensor,
        *,
        goal: Tensor | None = None,
        history: Trajectory | None = None,
        previous: Plan | None = None,
        remaining: Tensor | None = None,
        generator: Generator = None,
    ) -> Plan:
        """Plan from ``observation`` (batch, O) toward ``goal`` (batch, O), in environment units.

        history: past steps, for models with a context;  previous: the last plan, for warm starts
        remaining: (batch,) environment steps until the arrival, if that is fixed already
        generator: one, or one per environment
        """
