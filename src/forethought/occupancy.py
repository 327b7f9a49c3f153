"""Occupancies and values by simulation: what a gamma-model's predictions are measured against.

A simulator is put into a state, takes a given action, and then follows the policy asked about. The
state after a geometric number of steps,

    p(k) = (1 - discount) discount^(k - 1),   k = 1, 2, ...

is a draw from the discounted occupancy (thesis Eq. 2.2). ``sample_occupancy`` runs every draw by
itself, so that draws are independent; ``simulate`` keeps whole rollouts, whose steps then carry
those weights. A process that ends stays where it ended, as in ``forethought.models.gamma_base``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from numpy.typing import NDArray
from torch import Tensor

from forethought.envs.closed_form import ClosedFormEnv
from forethought.models.gamma import StochasticPolicy, check_discounts

Array = NDArray[np.float64]


class Process(Protocol):
    """What can be put into any of its states, many at a time: a simulator or a learned model."""

    def advance(self, states: Array, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """States reached (n, S), rewards (n,) and whether the process ended (n,)."""
        ...

    def observe(self, states: Array) -> Array:
        """Observations (n, O) of states (n, S)."""
        ...


class Simulator(Process, Protocol):
    """A process that knows where its episodes start."""

    def draw_starts(self, n: int, seed: int) -> Array:
        """States (n, S) that episodes start in."""
        ...


class ClosedFormSimulator:
    """Pendulum, Acrobot, mountain car: one array operation for all states."""

    def __init__(self, env: ClosedFormEnv) -> None:
        self.env = env

    def draw_starts(self, n: int, seed: int) -> Array:
        return self.env.draw_states(n, np.random.default_rng(seed))

    def advance(self, states: Array, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        reached, rewards = self.env.step_batch(states, actions)
        return reached, rewards, np.zeros(len(states), dtype=bool)

    def observe(self, states: Array) -> Array:
        return self.env.observe(states)


class MujocoSimulator:
    """Gymnasium's MuJoCo tasks, one state after the other; a state is (positions, velocities)."""

    def __init__(self, env: MujocoEnv) -> None:
        self.env = env
        self._n_positions = env.model.nq

    def draw_starts(self, n: int, seed: int) -> Array:
        seeds = np.random.SeedSequence(seed).generate_state(n)
        states = []
        for each in seeds:
            self.env.reset(seed=int(each))
            states.append(self._state())
        return np.stack(states)

    def advance(self, states: Array, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        space = self.env.action_space
        assert isinstance(space, gymnasium.spaces.Box), "so they are in Gymnasium's MuJoCo tasks"
        clipped = np.clip(actions, space.low, space.high)
        reached, rewards = np.empty_like(states), np.empty(len(states))
        ended = np.empty(len(states), dtype=bool)
        for row, (state, action) in enumerate(zip(states, clipped, strict=True)):
            self._go_to(state)
            _, rewards[row], ended[row], _, _ = self.env.step(action)
            reached[row] = self._state()
        return reached, rewards, ended

    def observe(self, states: Array) -> Array:
        rows = []
        for state in states:
            self._go_to(state)
            rows.append(np.array(self.env._get_obs()))  # type: ignore[attr-defined]  every task's
        return np.stack(rows)

    def _go_to(self, state: Array) -> None:
        self.env.set_state(state[: self._n_positions], state[self._n_positions :])

    def _state(self) -> Array:
        return np.concatenate([self.env.data.qpos, self.env.data.qvel])


def simulator_of(env_id: str) -> ClosedFormSimulator | MujocoSimulator:
    """The simulator of a registered environment; ValueError if it cannot be put into a state."""
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    if isinstance(env, ClosedFormEnv):
        return ClosedFormSimulator(env)
    if isinstance(env, MujocoEnv):
        return MujocoSimulator(env)
    raise ValueError(
        f"{env_id} cannot be put into a given state; occupancies by simulation need a "
        "ClosedFormEnv or one of Gymnasium's MuJoCo tasks"
    )


def steps_until(discount: float, left: float = 1e-3) -> int:
    """Steps after which a share ``left`` of a geometric time remains: 135 at 0.95, 688 at 0.99."""
    check_discounts(discount, discount)
    return max(1, math.ceil(math.log(left) / math.log(discount))) if discount else 1


def geometric_weights(discount: float, n_steps: int) -> Tensor:
    """(n_steps,) float64: p(k) for k = 1 .. n_steps; the last has all that is left, sum 1."""
    check_discounts(discount, discount)
    steps = torch.arange(n_steps, dtype=torch.float64)
    weights = (1 - discount) * discount**steps  # 0 ** 0 is 1
    weights[-1] = discount ** (n_steps - 1)
    return weights


@torch.no_grad()
def sample_occupancy(  # noqa: PLR0913  what to simulate, and how much
    simulator: Simulator,
    policy: StochasticPolicy,
    states: Array,
    actions: Array,
    *,
    discount: float,
    n_samples: int,
    generator: torch.Generator | None = None,
    terminal_flag: bool = False,
) -> Tensor:
    """(B, n_samples, O) float32 independent draws of the occupancies of (states, actions).

    states: (B, S) of the simulator;  actions: (B, A) taken there; later ones are the policy's
    terminal_flag: append a dimension that is 1 where the process has ended
    """
    check_discounts(discount, discount)
    here = np.repeat(states, n_samples, axis=0)
    taken = np.repeat(np.asarray(actions, dtype=np.float64), n_samples, axis=0)
    ended = np.zeros(len(here), dtype=bool)
    live = np.arange(len(here))
    while len(live):
        here[live], _, ended[live] = simulator.advance(here[live], taken[live])
        goes_on = torch.rand(len(live), generator=generator).numpy() < discount
        live = live[goes_on & ~ended[live]]
        if len(live):
            taken[live] = _act(simulator, policy, here[live], generator)
    reached = torch.from_numpy(simulator.observe(here)).float()
    if terminal_flag:
        reached = torch.cat([reached, torch.from_numpy(ended).float()[:, None]], dim=-1)
    return reached.unflatten(0, (len(states), n_samples))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Occupancies of B state-action pairs at D discounts, n rollouts each; R rewards along them.

    states: (D, B, n, O) float32;  times: (D, B, n) steps after which they were reached
    returns: (R, D, B, n) float64, whose mean is the value;  lengths: (D, B, n), whose mean is that
        of a reward of 1 everywhere
    """

    discounts: tuple[float, ...]
    states: Tensor
    times: Tensor
    returns: Tensor
    lengths: Tensor

    def values(self) -> tuple[Tensor, Tensor]:
        """Values (R, D, B) and their standard errors.

        Long rollouts earn more; their mean length, 1 / (1 - discount), is known. So it serves as a
        control variate: what the returns owe to lengths by linear regression is taken off.
        """
        known = 1 / (1 - torch.tensor(self.discounts, dtype=torch.float64))[:, None, None]
        excess = self.lengths - known
        apart = excess - excess.mean(dim=-1, keepdim=True)
        scatter = apart.square().sum(dim=-1, keepdim=True)
        slope = (self.returns * apart).sum(dim=-1, keepdim=True) / scatter.clamp(min=1e-12)
        kept = self.returns - slope * excess
        return kept.mean(dim=-1), kept.std(dim=-1) / kept.shape[-1] ** 0.5


@torch.no_grad()
def sample_discounts(  # noqa: PLR0913  what to simulate, and how much
    simulator: Process,
    policy: StochasticPolicy,
    states: Array,
    actions: Array,
    *,
    discounts: Sequence[float],
    n_samples: int,
    rewards: Sequence[Callable[[Tensor], Tensor]] = (),
    generator: torch.Generator | None = None,
) -> Draws:
    """As ``sample_occupancy`` for several discounts, at the cost of the largest.

    One uniform number u of a rollout sets all its times, k = ceil(log u / log discount), so that
    P(k > t) = discount^t: draws of one discount are independent. With K the largest time and most
    the largest discount, P(K >= k) = most^(k - 1), so that the sum over k <= K of
    (discount / most)^(k - 1) r(s_k) has the value at ``discount`` as its mean.

    rewards: functions (.., O) -> (..) of the state arrived in; an ended process stays and is paid
    """
    for discount in discounts:
        check_discounts(discount, discount)
    levels = torch.tensor(discounts, dtype=torch.float64)[:, None]
    here = np.repeat(states, n_samples, axis=0)
    taken = np.repeat(np.asarray(actions, dtype=np.float64), n_samples, axis=0)
    rows, most = len(here), float(levels.max())
    uniform = 1 - torch.rand(rows, generator=generator, dtype=torch.float64)  # never 0
    times = (uniform.log() / levels.log()).ceil().clamp(min=1).long()  # (D, rows)
    last, ended = times.amax(dim=0).numpy(), np.zeros(rows, dtype=bool)
    seen = torch.from_numpy(simulator.observe(here)).float()
    drawn = seen.expand(len(levels), *seen.shape).clone()
    returns = torch.zeros(len(rewards), len(levels), rows, dtype=torch.float64)
    lengths = torch.zeros(len(levels), rows, dtype=torch.float64)
    for step in range(1, int(last.max(initial=0)) + 1):
        going = np.flatnonzero(last >= step)
        live = going[~ended[going]]
        if len(live):
            if step > 1:
                taken[live] = policy(seen[live], generator).numpy().astype(np.float64)
            here[live], _, ended[live] = simulator.advance(here[live], taken[live])
            seen[live] = torch.from_numpy(simulator.observe(here[live])).float()
        drawn = torch.where((times == step)[..., None], seen, drawn)
        weights = (levels / most) ** (step - 1) if step > 1 else torch.ones_like(levels)
        lengths[:, going] += weights
        for total, reward in zip(returns, rewards, strict=True):
            total[:, going] += weights * reward(seen[going]).double()
    shape = (len(states), n_samples)
    return Draws(
        discounts=tuple(discounts),
        states=drawn.unflatten(1, shape),
        times=times.unflatten(1, shape),
        returns=returns.unflatten(2, shape),
        lengths=lengths.unflatten(1, shape),
    )


@dataclass(frozen=True, kw_only=True)
class Futures:
    """Rollouts (n,) of T steps; after its end a process stays where it is and earns nothing.

    observations: (n, T, O) float32, reached by steps 1 .. T;  rewards: (n, T) float64
    ended: (n, T) bool, whether the process has ended by then
    """

    observations: Tensor
    rewards: Tensor
    ended: Tensor

    def values(self, discount: float) -> Tensor:
        """(n,) float64 discounted returns: sum over k of discount^(k - 1) rewards[k]."""
        check_discounts(discount, discount)
        steps = torch.arange(self.rewards.shape[1], dtype=torch.float64)
        return self.rewards @ discount**steps


@torch.no_grad()
def simulate(
    simulator: Simulator,
    policy: StochasticPolicy,
    states: Array,
    actions: Array,
    *,
    n_steps: int,
    generator: torch.Generator | None = None,
) -> Futures:
    """One rollout of ``n_steps`` steps from each row of states (n, S) and actions (n, A)."""
    here, taken = np.array(states), np.asarray(actions, dtype=np.float64)
    ended = np.zeros(len(here), dtype=bool)
    observations, rewards, ends = [], [], []
    for step in range(n_steps):
        live = np.flatnonzero(~ended)
        if step and len(live):
            taken = np.zeros_like(taken)
            taken[live] = _act(simulator, policy, here[live], generator)
        earned = np.zeros(len(here))
        if len(live):
            here[live], earned[live], ended[live] = simulator.advance(here[live], taken[live])
        observations.append(torch.from_numpy(simulator.observe(here)).float())
        rewards.append(earned)
        ends.append(ended.copy())
    return Futures(
        observations=torch.stack(observations, dim=1),
        rewards=torch.from_numpy(np.stack(rewards, axis=1)),
        ended=torch.from_numpy(np.stack(ends, axis=1)),
    )


def _act(
    simulator: Simulator,
    policy: StochasticPolicy,
    states: Array,
    generator: torch.Generator | None,
) -> Array:
    observation = torch.from_numpy(simulator.observe(states)).float()
    return policy(observation, generator).numpy().astype(np.float64)
