r"""Planning by shooting: draw action sequences, roll out a dynamics model, keep the good ones.

All three maximize sum_{k<horizon} discount^k r_k over sequences of ``horizon`` actions and differ
in what they do with the ``samples`` returns of an iteration:

- random shooting keeps the best of uniform draws (Nagabandi et al. 2018, arXiv 1708.02596);
- CEM refits a Gaussian to the best few (Rubinstein 1999; Chua et al. 2018, arXiv 1805.12114);
- MPPI moves its mean to the average weighted by exp(return / temperature) (Williams et al. 2016,
  "Aggressive driving with model predictive path integral control", and 2017, arXiv 1707.02342).

These are the planners that thesis Sections 5.1 and 5.4 (Figure 5.3a, Table 5.1) compare with: they
look no further than rewards that their samples happen upon.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forethought.models.base import DynamicsModel, Generator
from forethought.planners.base import Planner
from forethought.types import Plan, Trajectory

Reward = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(observations reached (n, O), actions that led there (n, A), goals (n, O) or None) -> (n,), in
environment units. Rows must not depend on one another."""


@dataclass(frozen=True, kw_only=True)
class ShootingConfig:
    """Settings that the three share."""

    horizon: int = 64
    """environment steps a sequence looks ahead"""
    samples: int = 256
    """sequences drawn in an iteration"""
    iterations: int = 1
    hold: int = 1
    """environment steps for which each drawn number is kept: smoother, farther-reaching noise"""
    noise: float = 0.5
    """standard deviation of the first draws around the mean, in units of action (not used by random
    shooting)"""
    low: float = -1.0
    high: float = 1.0
    """bounds of every action dimension"""
    shift: int = 1
    """environment steps between plans, by which the previous plan is shifted for a warm start"""
    discount: float = 1.0

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "iterations", "hold", "shift"):
            if getattr(self, name) < 1:
                raise ValueError(f"shooting {name} is {getattr(self, name)}; it must be at least 1")
        if self.horizon < 2 or self.noise <= 0 or self.low >= self.high:
            raise ValueError(
                f"shooting needs horizon >= 2, noise > 0 and low < high; got {self.horizon}, "
                f"{self.noise}, {self.low} and {self.high}"
            )


@dataclass(frozen=True, kw_only=True)
class CEMConfig(ShootingConfig):
    """Settings of ``CEM``."""

    iterations: int = 4
    elites: int = 32
    """sequences that the Gaussian is refitted to"""
    least_noise: float = 0.02
    """standard deviation that refitting does not go below, in units of action"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.elites <= self.samples:
            raise ValueError(f"elites is {self.elites}; use 2 to samples ({self.samples})")


@dataclass(frozen=True, kw_only=True)
class MPPIConfig(ShootingConfig):
    """Settings of ``MPPI``."""

    temperature: float = 0.1
    """of the weights, in standard deviations of an iteration's returns, so that the reward's scale
    does not matter"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive")


Evaluate = Callable[[Tensor], Tensor]  # actions (B, K, H, A) -> returns (B, K)


class ShootingPlanner(Planner):
    """What the three share: rollouts of the model, warm start, noise of each environment's own.

    dynamics: a learned model or the true one;  reward: see ``Reward``
    action_dim: width of an action

    ``plan`` uses ``remaining`` and ``history`` for nothing: what counts is the reward. Plans have
    stride 1, so ``follow_actions`` executes them. An environment's plan does not depend on which
    others are planned for in the same call, if ``dynamics`` and ``reward`` keep rows apart.
    """

    chooses_arrival = True

    def __init__(
        self,
        dynamics: DynamicsModel,
        reward: Reward,
        config: ShootingConfig,
        *,
        action_dim: int,
    ) -> None:
        self.dynamics, self.reward = dynamics, reward
        self.config, self.action_dim = config, action_dim

    @torch.no_grad()
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
        began = time.perf_counter()
        config, batch = self.config, len(observation)
        if isinstance(generator, Sequence) and len(generator) != batch:
            raise ValueError(
                f"{len(generator)} generators for {batch} environments; give one or one each"
            )
        start = self._warm_start(observation, previous)
        shared = None if isinstance(generator, Sequence) else generator

        def evaluate(actions: Tensor) -> Tensor:
            return self._roll_out(observation, actions, goal, shared)[1]

        actions = self._search(evaluate, start, _Noise(generator, batch, config, start))
        paths, returns = self._roll_out(observation, actions[:, None], goal, shared, keep=True)
        sequences = config.samples * config.iterations + 1
        return Plan(
            trajectory=Trajectory(
                observations=paths[:, 0], actions=actions, times=torch.arange(config.horizon)
            ),
            value=returns[:, 0],
            stats={
                "model_steps": sequences * config.horizon,
                "seconds": time.perf_counter() - began,
            },
        )

    @abstractmethod
    def _search(self, evaluate: Evaluate, start: Tensor, noise: _Noise) -> Tensor:
        """Actions (B, H, A) from the first guess ``start`` (B, H, A)."""

    def _warm_start(self, observation: Tensor, previous: Plan | None) -> Tensor:
        """(B, H, A): the previous plan's actions from now on, then none (as near 0 as allowed)."""
        config = self.config
        rest = observation.new_zeros(len(observation), config.horizon, self.action_dim)
        if previous is not None:
            left = previous.trajectory.actions[:, config.shift :]
            rest[:, : left.shape[1]] = left[:, : config.horizon]
        return rest.clamp(config.low, config.high)

    def _roll_out(
        self,
        observation: Tensor,
        actions: Tensor,
        goal: Tensor | None,
        generator: torch.Generator | None,
        *,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Observations (B, K, H, O) before each of ``actions`` (B, K, H, A), empty unless ``keep``,
        and returns (B, K)."""
        batch, count = actions.shape[:2]
        here = observation.repeat_interleave(count, dim=0)
        goals = None if goal is None else goal.repeat_interleave(count, dim=0)
        total, weight, path = here.new_zeros(len(here)), 1.0, []
        for action in actions.flatten(0, 1).transpose(0, 1).contiguous():  # (H, B K, A)
            if keep:
                path.append(here)
            here = self.dynamics.step(here, action, generator)
            total += weight * self.reward(here, action, goals)
            weight *= self.config.discount
        paths = torch.stack(path, dim=1) if keep else here[:, None, :0]
        return paths.unflatten(0, (batch, count)), total.unflatten(0, (batch, count))


class RandomShooting(ShootingPlanner):
    """The best of ``samples * iterations`` uniform sequences and the previous plan, shifted."""

    def _search(self, evaluate: Evaluate, start: Tensor, noise: _Noise) -> Tensor:
        best, best_return = start, evaluate(start[:, None])[:, 0]
        for _ in range(self.config.iterations):
            actions = noise.uniform()
            returns, index = evaluate(actions).max(dim=1)
            found = actions[torch.arange(len(index)), index]
            better = returns > best_return
            best = torch.where(better[:, None, None], found, best)
            best_return = torch.where(better, returns, best_return)
        return best


class CEM(ShootingPlanner):
    """Cross-entropy method: a Gaussian with independent entries, refitted to the elites."""

    config: CEMConfig

    def _search(self, evaluate: Evaluate, start: Tensor, noise: _Noise) -> Tensor:
        config, mean = self.config, start
        deviation = torch.full_like(mean, config.noise)
        for _ in range(config.iterations):
            actions = mean[:, None] + deviation[:, None] * noise.normal()
            actions = actions.clamp(config.low, config.high)
            index = evaluate(actions).topk(config.elites, dim=1).indices
            elites = [each[chosen] for each, chosen in zip(actions, index, strict=True)]
            # environment by environment, so that rounding does not depend on the batch
            mean = torch.stack([each.mean(dim=0) for each in elites])
            deviation = torch.stack([each.std(dim=0) for each in elites])
            deviation = deviation.clamp(min=config.least_noise)
        return mean


class MPPI(ShootingPlanner):
    """Model predictive path integral control: the mean moves to a weighted average of the samples.

    Differs from Williams et al.: the weights' scale is relative (``MPPIConfig.temperature``), the
    noise is held, and the control-cost term of the importance weights is left to ``reward``.
    """

    config: MPPIConfig

    def _search(self, evaluate: Evaluate, start: Tensor, noise: _Noise) -> Tensor:
        config, mean = self.config, start
        for _ in range(config.iterations):
            actions = mean[:, None] + config.noise * noise.normal()
            actions[:, 0] = mean  # what is known already is not lost to noise
            actions = actions.clamp(config.low, config.high)
            averages = []
            for each, returns in zip(actions, evaluate(actions), strict=True):
                scale = config.temperature * returns.std() + 1e-12
                weights = torch.softmax((returns - returns.max()) / scale, dim=0)
                averages.append((weights[:, None, None] * each).sum(dim=0))
            mean = torch.stack(averages)
        return mean


class _Noise:
    """Draws (B, K, H, A), each number held for ``config.hold`` steps, from one generator for all
    environments or one each."""

    def __init__(
        self, generator: Generator, batch: int, config: ShootingConfig, like: Tensor
    ) -> None:
        alone = not isinstance(generator, Sequence)
        self._generators = [generator] if alone else list(generator)
        knots = -(-config.horizon // config.hold)
        self._shape = (batch if alone else 1, config.samples, knots, like.shape[-1])
        self._config, self._like = config, like

    def normal(self) -> Tensor:
        return self._hold(torch.randn)

    def uniform(self) -> Tensor:
        config = self._config
        return config.low + (config.high - config.low) * self._hold(torch.rand)

    def _hold(self, draw: Callable[..., Tensor]) -> Tensor:
        parts = []
        for generator in self._generators:
            device = self._like.device if generator is None else generator.device
            parts.append(draw(self._shape, generator=generator, device=device).to(self._like))
        numbers = torch.cat(parts).repeat_interleave(self._config.hold, dim=2)
        return numbers[:, :, : self._config.horizon]
