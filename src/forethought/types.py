"""The values that cross borders between layers: spaces, trajectories, transitions, pins, plans.

Time alignment of an episode with T steps (the convention of Gymnasium and Minari)::

    observations   o_0   o_1   o_2  ...  o_{T-1}   o_T        T + 1 rows
    actions        a_0   a_1   a_2  ...  a_{T-1}              T rows
    rewards        r_0   r_1   r_2  ...  r_{T-1}              r_t follows a_t and describes o_{t+1}

A window of it with stride k keeps every k-th observation; its actions are left out ("none") or all
k of them are stacked in one row ("block", k * action_dim wide). ``times`` says which environment
step each row belongs to, so that plans with different strides mean the same thing to a controller.

Axis legend, used in trailing comments: B batch or environment, K candidate, H horizon (rows), O
observation dimension, A action dimension, D = O + A features of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value", bound="_TensorValue")


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """Sizes of an environment's spaces; all that a model needs to be built empty.

    ``n_actions`` set means discrete actions, stored as one column of indices. ``context_shape`` is
    that of an episode's context, such as a map.
    """

    observation_dim: int
    action_dim: int
    n_actions: int | None = None
    context_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.observation_dim < 1 or self.action_dim < 0:
            raise ValueError(
                f"Spaces needs observation_dim >= 1 and action_dim >= 0, got "
                f"{self.observation_dim} and {self.action_dim}"
            )


class _TensorValue:
    """Moves and indexes a frozen dataclass whose fields are tensors (or None)."""

    _unbatched: tuple[str, ...] = ()

    def _map(self: Value, function: Callable[[Tensor], Tensor], *, skip: tuple[str, ...]) -> Value:
        changes = {}
        for item in fields(self):  # type: ignore[arg-type]
            tensor = getattr(self, item.name)
            if isinstance(tensor, Tensor) and item.name not in skip:
                changes[item.name] = function(tensor)
        return replace(self, **changes)  # type: ignore[type-var]

    def to(self: Value, device: torch.device | str) -> Value:
        """The same value with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device), skip=())

    def __getitem__(self: Value, index: Any) -> Value:
        """Index the leading (batch) axes of every batched tensor."""
        return self._map(lambda tensor: tensor[index], skip=self._unbatched)


@dataclass(frozen=True, kw_only=True)
class Trajectory(_TensorValue):
    """A batch of windows or plans, in environment units (thesis Eq. 5.2).

    observations: (*batch, horizon, observation_dim)
    actions: (*batch, horizon, action_dim), zero wide when the trajectory has none
    times: (horizon,) int64, environment steps, increasing
    rewards, returns_to_go: (*batch, horizon)
    observation_mask, action_mask: (*batch, horizon) bool, False = padding. They differ at an
        episode's last observation, which has no action.
    terminated: (*batch, horizon) bool, True where the episode ended (not by a time limit) with the
        observation of that row
    goal: (*batch, observation_dim);  context: (*batch, ...)
    """

    observations: Tensor
    actions: Tensor
    times: Tensor
    rewards: Tensor | None = None
    returns_to_go: Tensor | None = None
    observation_mask: Tensor | None = None
    action_mask: Tensor | None = None
    terminated: Tensor | None = None
    goal: Tensor | None = None
    context: Tensor | None = None

    _unbatched = ("times",)

    def __post_init__(self) -> None:
        lead = self.observations.shape[:-1]
        masks = ("observation_mask", "action_mask", "terminated")
        for name in ("actions", "rewards", "returns_to_go", *masks):
            tensor = getattr(self, name)
            if tensor is None:
                continue
            found = tensor.shape[:-1] if name == "actions" else tensor.shape
            if found != lead:
                raise ValueError(
                    f"Trajectory.{name} has leading shape {tuple(found)}; the observations have "
                    f"{tuple(lead)}. All per-step fields share (*batch, horizon)."
                )
        if self.times.shape != lead[-1:]:
            raise ValueError(
                f"Trajectory.times has shape {tuple(self.times.shape)}; expected ({lead[-1]},), "
                "one environment step per row, shared by the batch."
            )

    @property
    def horizon(self) -> int:
        """Number of rows (not of environment steps)."""
        return self.observations.shape[-2]

    def rows_from(self, first: int) -> Trajectory:
        """The rows from ``first`` on; goal and context belong to the whole."""
        axis = self.observations.ndim - 2
        changes: dict[str, Tensor] = {"times": self.times[first:]}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and each.name not in ("times", "goal", "context"):
                changes[each.name] = value.narrow(axis, first, self.horizon - first)
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Transitions(_TensorValue):
    """A batch of single steps: (batch, dim) fields, rewards and flags (batch,).

    next_action: what the data did next; None where that is not known
    goal: (batch, observation_dim) an observation to reach, for goal-conditioned learners
    discount: (batch,) of the value of ``next_observation``, where it is several steps on, by then
        ``reward`` is their discounted sum; None = a single step, whose discount the learner knows
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor
    next_action: Tensor | None = None
    goal: Tensor | None = None
    discount: Tensor | None = None


@dataclass(frozen=True)
class Pin:
    """One known entry of a plan: the thesis's Dirac h(tau) (Section 5.3, inpainting).

    time: environment step, one for all or (batch,) int64, or "last" for the last row of the plan
    value: (batch, dim) in environment units, dim = the field's width or len(dims)
    field: which field is pinned
    dims: which dimensions of the field; None = all
    hold: pin every later row to the same value as well ("arrive, then stay")
    """

    time: int | Tensor | Literal["last"]
    value: Tensor
    field: Literal["observations", "actions"] = "observations"
    dims: tuple[int, ...] | None = None
    hold: bool = False


Projection = Callable[[Trajectory], Trajectory]
"""Maps a trajectory in environment units to the nearest one that meets a hard constraint."""

Guide = Callable[[Trajectory, Tensor], Tensor]
"""(trajectory in environment units, noise level (batch,)) -> (batch,), higher is better,
differentiable."""


@dataclass(frozen=True, kw_only=True)
class Plan(_TensorValue):
    """What a planner returns: one trajectory per environment, with what it considered.

    trajectory: batch axis = environments;  value: (batch,);  candidates: (batch, candidates, ...)
    stats: numbers about the search, such as network calls
    elapsed: environment steps that have passed since the plan was made; kept by whoever executes it
    """

    trajectory: Trajectory
    value: Tensor | None = None
    candidates: Trajectory | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    elapsed: int = 0
