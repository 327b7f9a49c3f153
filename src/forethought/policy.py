"""Policies: one that plans, acts along the plan and decides when to plan again; one that reacts.

Controller and goal time are separate, named choices because they decide the result. Two known
traps: executing a maze Diffuser's own actions open loop fails (use ``track_observations``), and
planning again with the goal for ever at the plan's last row never arrives (refused below; a fixed
arrival time shrinks).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from forethought.controllers import Controller
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


class RewardObserver(ABC):
    """Capability of a policy: to be told what its last actions were rewarded with."""

    @abstractmethod
    def observe_rewards(self, rewards: Tensor, rows: Tensor) -> None:
        """Rewards (n,) of the last actions in the environments ``rows`` (n,)."""


class ContextObserver(ABC):
    """Capability of a policy: to be shown what each episode takes place in, such as a map."""

    @abstractmethod
    def observe_contexts(self, contexts: Tensor) -> None:
        """Contexts (n, ...) of the environments that were just reset."""


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


class PlanningPolicy(RewardObserver, ContextObserver):
    """Plans, acts along the plan, plans again (the outer loop of thesis Algorithm 5).

    A planner that looks back (``planner.context``) is given the latest transitions as history, with
    rewards if it has been told all of them. An episode's context, if there is one, is part of its
    history.

    replan_every: environment steps between plans; 0 = plan once an episode
    goal_time: "fixed" keeps the first plan's arrival time, so later plans get shorter; "receding"
        lets the planner choose anew (refused for one that would only move the goal away for ever)
    settled_within: environment units, for the first dimensions of the observation; this close to
        its last row a plan is held. Data without pauses teaches no way to stay, so a new plan
        would leave and come back
    together: plan for all environments that are due in one batch, each with noise of its own. A
        small network plans several times faster so; rounding depends on how many there are. Plans
        have no previous one to start from then

    Otherwise every environment is planned for by itself, so that its actions do not depend on how
    many run side by side.
    """

    def __init__(
        self,
        planner: Planner,
        controller: Controller,
        *,
        replan_every: int = 0,
        goal_time: Literal["fixed", "receding"] = "fixed",
        settled_within: Sequence[float] = (),
        together: bool = False,
    ) -> None:
        if together and replan_every and goal_time == "fixed":
            raise ValueError(
                "environments that are planned for together cannot keep an arrival time each; use "
                "goal_time 'receding', or together False"
            )
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
        self.replan_every, self.goal_time, self.together = replan_every, goal_time, together
        self.settled_within = torch.tensor(settled_within)
        self.plan_seconds: list[float] = []
        self.plan_calls: list[int] = []  # of the network, by plan
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        seeds = range(n_envs) if seeds is None else seeds
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.plans: list[Plan | None] = [None] * n_envs
        self.first_plans: list[Plan | None] = [None] * n_envs
        self.first_references: list[Tensor | None] = [None] * n_envs
        self._references: list[Tensor | None] = [None] * n_envs
        self._steps = [0] * n_envs  # since the plan was made
        self._progress = [0.0] * n_envs  # along the plan, as the controller counts it
        self._arrivals = [0] * n_envs  # environment steps from now to the first plan's arrival
        self._past = [_Past(self.planner.context) for _ in range(n_envs)]

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        envs = range(len(observation)) if rows is None else rows.tolist()
        due = [
            index
            for index, env in enumerate(envs)
            if self._is_due(env) and not self._is_settled(env, observation[index])
        ]
        for group in self._groups(due, envs):
            chosen = [envs[index] for index in group]
            of_group = None if goal is None else goal[group]
            if self.together:
                self._replan_together(chosen, observation[group], of_group)
            else:
                self._replan(chosen[0], observation[group], of_group)
        current = []
        for index, env in enumerate(envs):
            current.append(self._read(env, observation[index]))
            self._steps[env] += 1
            self._arrivals[env] -= 1
        actions = self.controller(torch.stack(current), observation)
        for index, env in enumerate(envs):
            self._past[env].add(observation[index], actions[index])
        return actions

    def observe_rewards(self, rewards: Tensor, rows: Tensor) -> None:
        for reward, env in zip(rewards, rows.tolist(), strict=True):
            self._past[env].add_reward(reward)

    def observe_contexts(self, contexts: Tensor) -> None:
        for past, context in zip(self._past, contexts, strict=True):
            past.context = context

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
        if reference is None or not len(self.settled_within):
            return False
        first = len(self.settled_within)
        distance = (observation[:first] - reference[-1, :first]).abs()
        return bool((distance <= self.settled_within).all())

    def _replan(self, env: int, observation: Tensor, goal: Tensor | None) -> None:
        previous = self.plans[env]
        fixed = previous is not None and self.goal_time == "fixed"
        plan = self.planner.plan(
            observation,
            goal=goal,
            history=self._past[env].history(observation),
            previous=None if previous is None else replace(previous, elapsed=self._elapsed(env)),
            remaining=torch.tensor([self._arrivals[env]]) if fixed else None,
            generator=[self._generators[env]],
        )
        self._accept(env, plan, keep_arrival=fixed)

    def _groups(self, due: list[int], envs: Sequence[int]) -> list[list[int]]:
        """What is planned for at once: each by itself, or those with histories of one length."""
        if not self.together:
            return [[index] for index in due]
        groups: dict[tuple[int, bool], list[int]] = {}
        for index in due:
            groups.setdefault(self._past[envs[index]].shape(), []).append(index)
        return list(groups.values())

    def _replan_together(
        self, envs: Sequence[int], observation: Tensor, goal: Tensor | None
    ) -> None:
        histories = [self._past[env].history(observation) for env in envs]
        plan = self.planner.plan(
            observation,
            goal=goal,
            history=_joined([history for history in histories if history is not None]),
            generator=[self._generators[env] for env in envs],
        )
        seconds = float(plan.stats["seconds"]) / len(envs)
        for place, env in enumerate(envs):
            here = slice(place, place + 1)
            tensors = {k: v[here] for k, v in plan.stats.items() if isinstance(v, Tensor)}
            one = Plan(
                trajectory=plan.trajectory[here],
                value=None if plan.value is None else plan.value[here],
                candidates=None if plan.candidates is None else plan.candidates[here],
                stats={**plan.stats, **tensors, "seconds": seconds},
            )
            self._accept(env, one, keep_arrival=False)

    def _accept(self, env: int, plan: Plan, *, keep_arrival: bool) -> None:
        is_first = self.plans[env] is None
        if not keep_arrival:
            arrival = plan.stats.get("arrival", plan.trajectory.times[-1:])
            self._arrivals[env] = int(arrival[0])
        self.plan_seconds.append(float(plan.stats["seconds"]))
        self.plan_calls.append(int(plan.stats.get("network_calls", 0)))
        self.plans[env] = plan
        self._references[env] = self.controller.prepare(plan.trajectory)[0]
        if is_first:
            self.first_plans[env], self.first_references[env] = plan, self._references[env]
        self._steps[env], self._progress[env] = 0, 0.0

    def _elapsed(self, env: int) -> int:
        """Steps of the plan that are done: pursuit may be ahead of the clock."""
        return max(self._steps[env], int(self._progress[env]))

    def _read(self, env: int, observation: Tensor) -> Tensor:
        rows = self._references[env]
        assert rows is not None, "an environment is planned for before it is acted in"
        row, self._progress[env] = self.controller.read(rows, self._progress[env], observation)
        return row


class _Past:
    """The latest transitions of one environment, at most ``length``."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.context: Tensor | None = None  # of the episode
        self._observations: list[Tensor] = []
        self._actions: list[Tensor] = []
        self._rewards: list[Tensor] = []

    def add(self, observation: Tensor, action: Tensor) -> None:
        """A step begins; its reward may follow."""
        if not self._length:
            return
        self._observations.append(observation.clone())
        self._actions.append(action.clone())
        extra = max(len(self._actions) - self._length, 0)
        rewards_extra = max(len(self._rewards) - (self._length - 1), 0)
        del self._observations[:extra], self._actions[:extra], self._rewards[:rewards_extra]

    def add_reward(self, reward: Tensor) -> None:
        """What the last step was rewarded with."""
        if self._length:
            self._rewards.append(reward.clone())

    def shape(self) -> tuple[int, bool]:
        """Its length, and whether its rewards are known."""
        return len(self._actions), len(self._rewards) == len(self._actions)

    def history(self, observation: Tensor) -> Trajectory | None:
        """(1, n, dim), oldest first; None if nothing is known. At an episode's first step, n is 0
        and the sizes are those of observation (1, O)."""
        context = None if self.context is None else self.context[None]
        if not self._actions:
            return None if context is None else _without_past(observation, context)
        known = len(self._rewards) == len(self._actions)
        return Trajectory(
            observations=torch.stack(self._observations)[None],
            actions=torch.stack(self._actions)[None],
            times=torch.arange(-len(self._actions), 0),
            rewards=torch.stack(self._rewards)[None] if known else None,
            context=context,
        )


def _without_past(observation: Tensor, context: Tensor) -> Trajectory:
    """No transition (1, 0, dim), only a context."""
    nothing = observation.new_zeros(1, 0, observation.shape[-1])
    times = torch.zeros(0, dtype=torch.int64)
    return Trajectory(observations=nothing, actions=nothing, times=times, context=context)


def _joined(histories: list[Trajectory]) -> Trajectory | None:
    """Histories (1, n, dim) of one length as one batch; None if there are none."""
    if not histories:
        return None
    rewards = [h.rewards for h in histories if h.rewards is not None]
    contexts = [h.context for h in histories if h.context is not None]
    return Trajectory(
        observations=torch.cat([h.observations for h in histories]),
        actions=torch.cat([h.actions for h in histories]),
        times=histories[0].times,
        rewards=torch.cat(rewards) if rewards else None,
        context=torch.cat(contexts) if contexts else None,
    )
