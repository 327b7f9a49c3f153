"""No planning: the model itself maps an observation to an action (IQL, behavior cloning, ...)."""

from __future__ import annotations

from dataclasses import dataclass

from forethought.config import PlannerConfig
from forethought.models.base import Actor, Model, require
from forethought.registry import planners


@planners.register("reactive")
@dataclass(frozen=True, kw_only=True)
class ReactiveConfig(PlannerConfig):
    """Of a model that acts by itself; control settings do not apply to it."""

    def build(self, model: Model) -> Actor:
        return require(model, Actor, needed_by="a reactive policy")
