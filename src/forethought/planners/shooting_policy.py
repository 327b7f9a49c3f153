"""A policy that shoots for all environments in one call: what a batch of rollouts is cheap for.

``PlanningPolicy`` plans for one environment at a time. A shooting planner spends its time in
``horizon`` calls of the dynamics, each of which costs little more for fifty environments than for
one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.planners.shooting import ShootingPlanner
from forethought.types import Plan, Trajectory


class ShootingPolicy:
    """Plans for all live environments at once, follows the actions for ``planner.config.shift``
    steps, plans again from the plan so far.

    Each environment has a generator of its own, and a plan does not depend on its neighbors, so a
    score does not depend on how many run side by side.
    """

    def __init__(self, planner: ShootingPlanner) -> None:
        self.planner = planner
        self.plan_seconds: list[float] = []  # of each plan: the call's time over its environments
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes everywhere."""
        seeds = range(n_envs) if seeds is None else seeds
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self._steps = [0] * n_envs  # since the beginning of the episode
        self._plans: list[Trajectory | None] = [None] * n_envs

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        envs = list(range(len(observation))) if rows is None else rows.tolist()
        every = self.planner.config.shift
        due = [index for index, env in enumerate(envs) if self._steps[env] % every == 0]
        for begun in (True, False):  # with and without a plan to start from
            now = [index for index in due if (self._steps[envs[index]] > 0) == begun]
            if now:
                goals = None if goal is None else goal[now]
                self._plan([envs[index] for index in now], observation[now], goals)
        actions = []
        for env in envs:
            plan = self._plans[env]
            assert plan is not None, "every environment has been planned for at its first step"
            actions.append(plan.actions[self._steps[env] % every])
            self._steps[env] += 1
        return torch.stack(actions)

    def _plan(self, envs: list[int], observation: Tensor, goal: Tensor | None) -> None:
        known = [plan for env in envs if (plan := self._plans[env]) is not None]
        previous = None
        if known:
            previous = Plan(
                trajectory=Trajectory(
                    observations=torch.stack([plan.observations for plan in known]),
                    actions=torch.stack([plan.actions for plan in known]),
                    times=known[0].times,
                )
            )
        plan = self.planner.plan(
            observation,
            goal=goal,
            previous=previous,
            generator=[self._generators[env] for env in envs],
        )
        self.plan_seconds += [plan.stats["seconds"] / len(envs)] * len(envs)
        for index, env in enumerate(envs):
            self._plans[env] = plan.trajectory[index]
