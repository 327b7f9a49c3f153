"""A trained model's values as the critic of a beam search (thesis Section 4.4).

Beam search ranks sequences by ``sum_{k<t} discount^k r_k + discount^t X(s_t, a_t)``. X is the
transformer's own predicted reward-to-go, or, where rewards are too rare for that to say anything,
Q(s_t, a_t) from dynamic programming: the smaller of the twin target critics of implicit Q-learning
(Kostrikov et al. 2022, arXiv 2110.06169), in the units of the data's rewards. With V(s_t) in its
place a sequence is judged by where it leads alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from forethought.checkpoint import find_checkpoint, load_model
from forethought.models.base import Model, ValueModel, require
from forethought.planners.beam_search import Critic
from forethought.types import Spaces

CriticValue = Literal["action", "state"]


class ModelCritic:
    """Values of a ``ValueModel`` as a ``Critic``.

    value: "action" for Q(s, a), "state" for V(s)
    Raises ValueError if the model has no values, or values of other spaces than ``spaces``.
    """

    def __init__(
        self, model: Model, spaces: Spaces, *, value: CriticValue = "action", name: str = "critic"
    ) -> None:
        self.model = require(model, ValueModel, needed_by=f"planner.critic ({name})")
        self._parameter = next(model.parameters())
        self._value, self._name = value, name
        theirs = model.spaces
        for what in ("observation_dim", "action_dim", "n_actions"):
            given, wanted = getattr(theirs, what), getattr(spaces, what)
            if given != wanted:
                raise ValueError(
                    f"planner.critic {name} was trained with {what} {given}; the planning model "
                    f"has {wanted}. Train both on the same data set."
                )

    def check_discount(self, discount: float) -> None:
        """Raise ValueError unless the search discounts as the values do."""
        if discount != self.model.discount:
            raise ValueError(
                f"planner.reward.discount is {discount}, but {self._name} was trained with "
                f"discount {self.model.discount}: rewards on the way and values after it would be "
                f"weighed differently. Set planner.reward.discount {self.model.discount}."
            )

    def toward(self, goal: Tensor | None) -> Critic:
        """The critic for environments with these goals (batch, O), None if they have none.

        Its observations (batch * m, O) come environment by environment. Raises ValueError if the
        values are for goals and there is none.
        """
        if not self.model.wants_goal:
            goal = None
        elif goal is None:
            raise ValueError(
                f"planner.critic {self._name} was trained with goals, and this environment gives "
                "none. Use a critic of one task (model.goal_dims ()), or an environment with goals."
            )

        def critic(observation: Tensor, action: Tensor) -> Tensor:
            seen, acted = observation.to(self._parameter), action.to(self._parameter)
            each = None
            if goal is not None:
                each = goal.to(self._parameter).repeat_interleave(len(seen) // len(goal), dim=0)
            if self._value == "state":
                return self.model.state_value(seen, each)
            return self.model.action_value(seen, acted, each)

        return critic

    @torch.no_grad()
    def __call__(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values (n,) where there are no goals."""
        return self.toward(None)(observation, action)


def load_critic(path: Path | str, spaces: Spaces, *, value: CriticValue = "action") -> ModelCritic:
    """The model in a checkpoint folder as a critic for ``spaces``.

    Raises FileNotFoundError if there is no checkpoint, ValueError if it cannot judge these spaces.
    """
    folder = find_checkpoint(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"planner.critic {path} does not exist; it is the checkpoint folder of a model with "
            "values. Train one on the same data, for example `forethought train "
            "iql/maze-medium-stitch`."
        )
    return ModelCritic(load_model(folder), spaces, value=value, name=str(path))
