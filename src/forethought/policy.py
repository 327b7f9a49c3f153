"""From plans to actions: controllers, and a policy that decides when to plan again.

Controller and goal time are separate, named choices because they decide the result. Two known
traps: executing a maze Diffuser's own actions open loop fails (use ``track_observations``), and
planning again with the goal for ever at the plan's last row never arrives (refused below; a fixed
arrival time shrinks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from forethought.config import ControlConfig
from forethought.models.base import Actor
from forethought.planners.base import Planner
from forethought.types import Plan, Trajectory


class Policy(Protocol):
    """Anything that acts in a batch of environments."""

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes everywhere; ``seeds`` make the policy's own noise repeatable."""
        ...

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Actions (n, A) for observations (n, O); ``rows`` says which environments these are."""
        ...


class ReactivePolicy:
    """Asks the model for an action at every step."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Nothing to forget."""

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        return self._actor.act(observation, goal)


class Controller(Protocol):
    """Turns a plan into actions, one environment step at a time."""

    def prepare(self, trajectory: Trajectory) -> Tensor:
        """(batch, steps, width): what is looked up at each environment step of the plan."""
        ...

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        """Actions (n, A) from the rows (n, width) for the present step and observations (n, O)."""
        ...

    @property
    def look_ahead(self) -> float:
        """How many environment steps ahead of now the plan is read."""
        ...


class FollowActions:
    """Executes the plan's own actions; a plan with stride k must hold all k of them ("block")."""

    look_ahead = 0.0

    def __init__(self, action_dim: int) -> None:
        self._action_dim = action_dim

    def prepare(self, trajectory: Trajectory) -> Tensor:
        stride = _stride_of(trajectory)
        if trajectory.actions.shape[-1] != stride * self._action_dim:
            raise ValueError(
                f"follow_actions needs all actions of a plan with stride {stride}, "
                f"{stride * self._action_dim} numbers a row; this one has "
                f"{trajectory.actions.shape[-1]}. Train with model.actions block, or use "
                "track_observations."
            )
        return trajectory.actions.unflatten(-1, (stride, self._action_dim)).flatten(1, 2)

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        return reference


class TrackObservations:
    """Feedback toward the planned observations: action = gains @ (planned - observed).

    gains: (action_dim, observation_dim);  look_ahead: environment steps
    Between rows the plan is a Catmull-Rom spline; after its end it stays at the last row.
    """

    def __init__(self, gains: Sequence[Sequence[float]], look_ahead: float = 1.0) -> None:
        self._gains = torch.tensor(gains, dtype=torch.float32)
        self.look_ahead = look_ahead
        if self._gains.ndim != 2:
            raise ValueError("track_observations needs control.gains, one row per action dimension")

    def prepare(self, trajectory: Trajectory) -> Tensor:
        if trajectory.observations.shape[-1] != self._gains.shape[1]:
            raise ValueError(
                f"control.gains has {self._gains.shape[1]} columns; the observations have "
                f"{trajectory.observations.shape[-1]} dimensions"
            )
        return interpolate(trajectory)

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        # not a matrix product: its rounding could depend on how many environments run side by side
        gains = self._gains.to(observation.device)
        return ((reference - observation)[:, None, :] * gains).sum(dim=-1)


def interpolate(trajectory: Trajectory) -> Tensor:
    """(batch, last time + 1, O): a plan's observations at every environment step (Catmull-Rom)."""
    stride, points = _stride_of(trajectory), trajectory.observations
    if stride == 1:
        return points
    step = points.diff(dim=1)
    slope = torch.cat([step[:, :1], (step[:, 1:] + step[:, :-1]) / 2, step[:, -1:]], dim=1)
    u = (torch.arange(stride, device=points.device) / stride)[None, None, :, None]
    left, right = points[:, :-1, None], points[:, 1:, None]  # (B, H - 1, 1, O)
    blend = u * u * (3 - 2 * u)
    curve = left + blend * (right - left)
    curve = curve + u * (1 - u) ** 2 * slope[:, :-1, None] - u * u * (1 - u) * slope[:, 1:, None]
    return torch.cat([curve.flatten(1, 2), points[:, -1:]], dim=1)


def _stride_of(trajectory: Trajectory) -> int:
    return int(trajectory.times[1] - trajectory.times[0])


def make_controller(config: ControlConfig, action_dim: int) -> Controller:
    """The controller that the settings name."""
    if config.controller == "follow_actions":
        return FollowActions(action_dim)
    return TrackObservations(config.gains, config.look_ahead)


class PlanningPolicy:
    """Plans, acts along the plan, plans again (the outer loop of thesis Algorithm 5).

    replan_every: environment steps between plans; 0 = plan once an episode
    goal_time: "fixed" keeps the first plan's arrival time, so later plans get shorter; "receding"
        lets the planner choose anew (refused for one that would only move the goal away for ever)
    settled_within: environment units, for the first dimensions of the observation; a plan that
        has ended this close to its last row is held. Data without pauses teaches no way to stay,
        so a new plan would leave and come back

    Every environment is planned for by itself, with noise of its own, so that its actions do not
    depend on how many run side by side.
    """

    def __init__(
        self,
        planner: Planner,
        controller: Controller,
        *,
        replan_every: int = 0,
        goal_time: Literal["fixed", "receding"] = "fixed",
        settled_within: Sequence[float] = (),
    ) -> None:
        if replan_every < 0:
            raise ValueError(
                f"replan_every is {replan_every}; use 0 (plan once) or a positive number"
            )
        if replan_every and goal_time == "receding" and not planner.chooses_arrival:
            raise ValueError(
                "replanning with goal_time 'receding' and a fixed plan length, or slack, never "
                "arrives: each plan moves the goal away again. Use goal_time 'fixed', or "
                "planner.length 0 and planner.slack 0."
            )
        self.planner, self.controller = planner, controller
        self.replan_every, self.goal_time = replan_every, goal_time
        self.settled_within = torch.tensor(settled_within)
        self.plan_seconds: list[float] = []
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        seeds = range(n_envs) if seeds is None else seeds
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.plans: list[Plan | None] = [None] * n_envs
        self.first_plans: list[Plan | None] = [None] * n_envs
        self.first_references: list[Tensor | None] = [None] * n_envs
        self._references: list[Tensor | None] = [None] * n_envs
        self._steps = [0] * n_envs  # since the plan was made
        self._ends = [0] * n_envs  # environment steps the plan takes to arrive
        self._arrivals = [0] * n_envs  # environment steps from now to the first plan's arrival

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        envs = range(len(observation)) if rows is None else rows.tolist()
        current = []
        for index, env in enumerate(envs):
            here = slice(index, index + 1)
            if self._is_due(env) and not self._is_settled(env, observation[index]):
                self._replan(env, observation[here], None if goal is None else goal[here])
            current.append(self._lookup(env))
            self._steps[env] += 1
            self._arrivals[env] -= 1
        return self.controller(torch.stack(current), observation)

    def forget(self, envs: Sequence[int]) -> None:
        """Drop these environments' plans: the next call plans anew for them."""
        for env in envs:
            self.plans[env] = None

    def _is_due(self, env: int) -> bool:
        if self.plans[env] is None:
            return True
        if not self.replan_every or self._steps[env] < self.replan_every:
            return False
        return self.goal_time == "receding" or self._arrivals[env] > 0

    def _is_settled(self, env: int, observation: Tensor) -> bool:
        reference = self._references[env]
        if reference is None or not len(self.settled_within) or self._steps[env] < self._ends[env]:
            return False
        distance = (observation - reference[-1]).abs()[: len(self.settled_within)]
        return bool((distance <= self.settled_within).all())

    def _replan(self, env: int, observation: Tensor, goal: Tensor | None) -> None:
        previous = self.plans[env]
        fixed = previous is not None and self.goal_time == "fixed"
        plan = self.planner.plan(
            observation,
            goal=goal,
            previous=None if previous is None else replace(previous, elapsed=self._steps[env]),
            remaining=torch.tensor([self._arrivals[env]]) if fixed else None,
            generator=[self._generators[env]],
        )
        self._ends[env] = int(plan.stats.get("arrival", plan.trajectory.times[-1:])[0])
        if not fixed:
            self._arrivals[env] = self._ends[env]
        self.plan_seconds.append(float(plan.stats["seconds"]))
        self.plans[env] = plan
        self._references[env] = self.controller.prepare(plan.trajectory)[0]
        if previous is None:
            self.first_plans[env], self.first_references[env] = plan, self._references[env]
        self._steps[env] = 0

    def _lookup(self, env: int) -> Tensor:
        reference = self._references[env]
        assert reference is not None, "an environment is planned for before it is acted in"
        position = self._steps[env] + self.controller.look_ahead
        position = min(position, len(reference) - 1)
        low = int(position)
        if position == low:
            return reference[low]
        return torch.lerp(reference[low], reference[low + 1], position - low)
