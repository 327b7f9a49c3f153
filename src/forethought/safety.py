"""A filter on actions: it changes one only where braking would otherwise come too late.

A plan that keeps out of an obstacle does not make the executed path keep out: the controller cuts
corners and overshoots. So every action is tested with the dynamics that ``data.identify`` measures,
for each coordinate with one action u in [-1, 1],

    v' = v + acceleration u,    p' = p + step_seconds v'.

An action is safe if braking to rest after it stays outside everything forbidden. The safe action
nearest to the commanded one is taken. Braking is a fixed rule of the state, so that braking on is
safe wherever the last action was: with exact dynamics, what begins with a safe braking path never
enters. That is a discrete-time control-barrier condition whose safe set is given by backup
maneuvers. Walls are not known, and one may stop a coordinate that the way out needs: actions after
which braking is safe also if any of the coordinates stops at once are preferred. (An obstacle 0.003
units off a wall was entered by 0.002 before: the filter thought it could pass on that side.)
References: Ames et al. 2019, "Control barrier functions: theory and applications"; Gurriet et al.
2020, "A scalable safety critical control framework" (backup sets); Wabersich and Zeilinger 2021,
"A predictive safety filter for learning-based control".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from forethought.config import PursuitConfig
from forethought.controllers import Controller
from forethought.guides.terms import Term
from forethought.types import Trajectory

SHARES = (0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 1.0)  # of the way from an action to a known one
MOST_ACTIONS = 4  # dimensions; 3 ** A known actions are tried


class SafetyFilter:
    """The nearest action from which the system can still stop outside everything forbidden.

    system: dimensions and dynamics as ``data.identify.identify_pursuit`` measures them
    terms: those with a ``depth`` count, others are passed over
    margin: how much farther outside to stay, for errors of the dynamics; in the terms' own units

    ``changed`` and ``unsafe`` count actions that were changed, and those for which no safe one was
    found; the least deep is taken then.
    """

    def __init__(
        self, system: PursuitConfig, terms: Sequence[Term], *, margin: float = 0.05
    ) -> None:
        self._depths = [term.depth for term in terms if term.depth is not None]
        n = len(system.position)
        if not n == len(system.velocity) or not 1 <= n <= MOST_ACTIONS:
            raise ValueError(
                f"a safety filter needs one position and one velocity dimension an action, for 1 "
                f"to {MOST_ACTIONS} actions; got {system.position} and {system.velocity}. Measure "
                "them with data.identify.identify_pursuit"
            )
        if min(system.acceleration, system.step_seconds) <= 0 or margin < 0:
            raise ValueError(
                f"acceleration {system.acceleration} and step_seconds {system.step_seconds} must "
                f"be positive and margin {margin} not negative"
            )
        if not self._depths:
            raise ValueError(
                f"none of the terms {[term.name for term in terms]} forbids single observations; "
                "give the filter keep_out, keep_out_box or speed_limit terms"
            )
        self._system, self._margin = system, margin
        self._position, self._velocity = list(system.position), list(system.velocity)
        self._known = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=n)))
        free = itertools.product((1.0, 0.0), repeat=n)
        self._free = torch.tensor([way for way in free if any(way)])  # (ways, A)
        self.changed = self.unsafe = 0

    def __call__(self, observation: Tensor, action: Tensor) -> Tensor:
        """Actions (n, A), in [-1, 1] where they are changed, for observations (n, O) and commanded
        actions (n, A)."""
        chosen = [self._filter(*pair) for pair in zip(observation, action, strict=True)]
        return torch.stack(chosen)

    def _filter(self, observation: Tensor, action: Tensor) -> Tensor:
        commanded = action.clamp(-1, 1)[None]
        if float(self._depth_after(observation, commanded).amax()) <= 0:
            return action
        self.changed += 1
        braking = (-observation[self._velocity] / self._system.acceleration).clamp(-1, 1)[None]
        known = torch.cat([self._known.to(action), braking])
        shares = action.new_tensor(SHARES)[:, None, None]
        options = (commanded + shares * (known - commanded)).flatten(0, 1)
        options = torch.cat([options, braking])  # exactly, without rounding
        depth = self._depth_after(observation, options)  # (n, ways)
        change = (options - commanded).square().sum(dim=1)
        for safe in (depth.amax(dim=1) <= 0, depth[:, 0] <= 0):
            if bool(safe.any()):
                return options[change.masked_fill(~safe, torch.inf).argmin()]
        self.unsafe += 1
        return options[depth[:, 0].argmin()]

    def _depth_after(self, observation: Tensor, actions: Tensor) -> Tensor:
        """(n, ways): the most that is forbidden, after each action (n, A) and while braking as hard
        as possible: every coordinate, then with some stopped at once; positive is unsafe."""
        gain, dt = self._system.acceleration, self._system.step_seconds
        velocity = observation[self._velocity] + gain * actions
        steps = int(velocity.abs().max() / gain) + 2
        left = torch.arange(steps, device=actions.device, dtype=actions.dtype)[:, None]  # (T, 1)
        braked = velocity.sign()[:, None] * (velocity.abs()[:, None] - gain * left).clamp(min=0)
        velocities = braked[:, None] * self._free.to(actions)[:, None]  # (n, ways, T, A)
        path = observation.expand(*velocities.shape[:3], -1).clone()
        path[..., self._position] += dt * velocities.cumsum(dim=2)
        path[..., self._velocity] = velocities
        worst = torch.stack([depth(path) for depth in self._depths])
        return worst.amax(dim=(0, 3)) + self._margin


class SafeController:
    """Any controller, its actions filtered."""

    def __init__(self, controller: Controller, safety: SafetyFilter) -> None:
        self._controller, self._safety = controller, safety

    def prepare(self, trajectory: Trajectory) -> Tensor:
        return self._controller.prepare(trajectory)

    def read(self, rows: Tensor, progress: float, observation: Tensor) -> tuple[Tensor, float]:
        return self._controller.read(rows, progress, observation)

    def __call__(self, reference: Tensor, observation: Tensor) -> Tensor:
        return self._safety(observation, self._controller(reference, observation))
