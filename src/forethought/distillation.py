"""From a planner to a policy that acts at once, and plans only where a situation is novel.

Distillation is imitation with the planner at hand (DAgger, Ross et al. 2011): the planner's own
episodes first; then rounds in which the student acts, and the planner says what it would have done
in the situations the student came into. In half of a round's episodes the student plans where it
judges itself out of its depth, in the other half it acts alone and to the end of the episode: only
so does it see, and learn to leave, the places where it would get stuck, and learn to stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor

from forethought.agents.amortized import Amortized
from forethought.checkpoint import save_config, save_model
from forethought.config import Experiment
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.policy import PlanningPolicy
from forethought.rollout import rollout
from forethought.training import train_experiment


class AmortizedPolicy:
    """Acts by a learned policy; where the situation is novel, plans and holds on to the plan.

    actor: acts and judges;  planner_policy: what it was learned from, with ``replan_every`` set
    threshold: novelty above which it plans; None = the actor's own, 0 = always, infinity = never
    ``steps`` and ``planned`` count since the policy was made.
    """

    def __init__(
        self, actor: Amortized, planner_policy: PlanningPolicy, threshold: float | None = None
    ) -> None:
        if not planner_policy.replan_every:
            raise ValueError(
                "an amortized policy holds on to a plan for replan_every steps; this planner plans "
                "once an episode (0). Set control.replan_every."
            )
        self._actor, self.planner_policy = actor, planner_policy
        self.threshold = float(actor.threshold) if threshold is None else threshold
        self.steps = self.planned = 0
        self._held = torch.zeros(0, dtype=torch.int64)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        self.planner_policy.reset(n_envs, seeds)
        self._held = torch.zeros(n_envs, dtype=torch.int64)  # steps left on the present plan

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        rows = torch.arange(len(observation)) if rows is None else rows
        action, novelty = self._actor.act_and_judge(observation, goal)
        fresh = (self._held[rows] == 0) & (novelty > self.threshold)
        self.planner_policy.forget(rows[fresh].tolist())
        self._held[rows[fresh]] = self.planner_policy.replan_every
        planned = self._held[rows] > 0
        self._held[rows[planned]] -= 1
        self.steps += len(rows)
        self.planned += int(planned.sum())
        if bool(planned.any()):
            goals = None if goal is None else goal[planned]
            action = action.clone()
            action[planned] = self.planner_policy(observation[planned], goals, rows[planned])
        return action


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How the student's data is made; all episodes differ from those of an evaluation."""

    episodes: int = 60
    """by the planner, at first"""
    rounds: int = 4
    """of DAgger after that"""
    round_episodes: int = 40
    """by the student, in each round; half of them without planning"""
    label_every: int = 4
    """steps between the situations that the planner is asked about"""
    rest: int = 40
    """steps after the arrival that are kept of each episode in which the planner acts"""
    quantile: float = 0.95
    """of the novelty of held-out planner episodes that makes the threshold"""
    held_out: int = 12
    """planner episodes kept apart for it"""
    seed: int = 1_000_000
    """of the first episode's generator; evaluations use small ones"""


Label = Callable[[Tensor, Tensor | None], Tensor]


def fresh_actions(policy: PlanningPolicy, observation: Tensor, goal: Tensor | None) -> Tensor:
    """(n, A): what planner and controller do where they plan at this very moment.

    Every plan starts from the same noise, so that the answer is a function of the situation. At the
    goal (within ``settled_within``) they hold it.
    """
    generators = [torch.Generator().manual_seed(0) for _ in range(len(observation))]
    plan = policy.planner.plan(observation, goal=goal, generator=generators)
    references = policy.controller.prepare(plan.trajectory)
    rows = [
        policy.controller.read(reference, 0.0, now)[0]
        for reference, now in zip(references, observation, strict=True)
    ]
    action = policy.controller(torch.stack(rows), observation)
    if goal is None or not len(policy.settled_within):
        return action
    near = (observation - goal).abs()[:, : len(policy.settled_within)] <= policy.settled_within
    held = policy.controller(goal, observation)
    return torch.where(near.all(dim=1, keepdim=True), held, action)


def play_episodes(
    policy: PlanningPolicy | AmortizedPolicy,
    env_id: str,
    n: int,
    seed: int,
    rest: int | None = 40,
) -> list[Episode]:
    """``n`` episodes, each cut ``rest`` steps after it arrived: most of its steps are alike.

    With ``rest`` None they are whole.
    """
    episodes = rollout(
        policy,
        lambda: gymnasium.make(env_id, disable_env_checker=True),
        n,
        seed,
        n_parallel=min(n, 50),
    )
    return episodes if rest is None else [_until_rest(episode, rest) for episode in episodes]


def distill(
    experiment: Experiment,
    policy: PlanningPolicy,
    out: Path,
    *,
    scratch: Path,
    config: DistillationConfig = DistillationConfig(),
    say: Callable[[str], None] = lambda line: None,
) -> Amortized:
    """Train ``experiment.model`` on what ``policy`` does in ``experiment.env``.

    The student, its threshold calibrated, is saved in ``out``, what training leaves in ``scratch``.
    """
    space = gymnasium.make(experiment.env, disable_env_checker=True).action_space
    assert isinstance(space, gymnasium.spaces.Box), "a student of continuous actions"
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)

    def label(observation: Tensor, goal: Tensor | None) -> Tensor:
        return fresh_actions(policy, observation, goal).clamp(low, high)

    env, rest = experiment.env, config.rest
    planned = play_episodes(policy, env, config.episodes + config.held_out, config.seed, rest)
    held_out, held_goals = situations(planned[: config.held_out])
    gathered = planned[config.held_out :]
    student: Amortized | None = None
    for turn in range(config.rounds + 1):
        if student is not None:
            gathered += _play_round(student, policy, env, turn, label, config, say)
        dataset = EpisodeDataset.from_episodes(
            gathered, name=experiment.dataset, goals=goals_of(gathered)
        )
        last = turn == config.rounds
        steps = experiment.train.steps if last else experiment.train.steps // 3
        now = replace(experiment, train=replace(experiment.train, steps=steps))
        model = train_experiment(now, dataset, scratch / f"round{turn}")
        assert isinstance(model, Amortized), "distillation trains an Amortized"
        student = model.eval().requires_grad_(False)
        student.calibrate(held_out, config.quantile, held_goals)
    assert student is not None, "there is at least one turn"
    facts = {"name": experiment.dataset, "fingerprint": dataset.fingerprint}
    save_config(out, experiment, dataset.spaces, dataset=facts, seed=experiment.train.seed)
    save_model(out, student.state_dict())
    shutil.copy(scratch / f"round{config.rounds}" / "training.json", out)
    return student


def _play_round(
    student: Amortized,
    policy: PlanningPolicy,
    env: str,
    turn: int,
    label: Label,
    config: DistillationConfig,
    say: Callable[[str], None],
) -> list[Episode]:
    """The student's episodes of a round with the planner's answers, half of them acted alone."""
    episodes = []
    count = max(config.round_episodes // 2, 1)
    for alone in (False, True):
        acting = AmortizedPolicy(student, policy, float("inf") if alone else None)
        seed, rest = config.seed + turn + 500 * alone, None if alone else config.rest
        played = play_episodes(acting, env, count, seed, rest)
        there = sum(e.successes is not None and bool(e.successes[-1]) for e in played)
        how = "alone" if alone else f"planned in {acting.planned / acting.steps:.0%} of steps"
        say(f"round {turn}, {how}: {there} of {count} arrived and stayed")
        episodes += [_relabel(episode, label, config.label_every) for episode in played]
    return episodes


def goals_of(episodes: Sequence[Episode]) -> list[list[float]] | None:
    """The goal of every episode; None if any has none."""
    goals = [None if episode.goal is None else episode.goal.tolist() for episode in episodes]
    return None if None in goals else [goal for goal in goals if goal is not None]


def situations(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor | None]:
    """All observations (n, O) at which an action was taken, and the goals (n, O) then, if any."""
    observations = np.concatenate([episode.observations[:-1] for episode in episodes])
    goals = goals_of(episodes)
    if goals is None:
        return torch.from_numpy(observations), None
    lengths = [len(episode) for episode in episodes]
    return torch.from_numpy(observations), torch.tensor(goals).repeat_interleave(
        torch.tensor(lengths), dim=0
    )


def _until_rest(episode: Episode, rest: int) -> Episode:
    successes = episode.successes
    if successes is None or not successes.any():
        return episode
    end = min(int(successes.argmax()) + 1 + rest, len(episode))
    return replace(
        episode,
        observations=episode.observations[: end + 1],
        actions=episode.actions[:end],
        rewards=episode.rewards[:end],
        successes=successes[:end],
    )


def _relabel(episode: Episode, label: Label, every: int) -> Episode:
    """Every so many of its situations with the planner's answer: rows that do not follow on one
    another in time, which a learner of single steps does not mind."""
    rows = np.arange(0, len(episode), every)
    observation = torch.from_numpy(episode.observations[rows])
    goal = None
    if episode.goal is not None:
        goal = torch.from_numpy(episode.goal).expand(len(rows), -1)
    actions = label(observation, goal).numpy()
    return Episode(
        episode.observations[[*rows, rows[-1]]], actions, episode.rewards[rows], goal=episode.goal
    )
