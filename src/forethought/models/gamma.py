"""What a geometric horizon allows: rollouts at a larger discount, values, value expansion.

A gamma-model samples the state at which a process that ends with probability 1 - gamma after every
step would end, the discounted occupancy (thesis Eq. 2.2)::

    mu(s_e | s, a; gamma) = (1 - gamma) sum_{t >= 1} gamma^(t - 1) p(s_t = s_e | s, a, policy).

Chained, its n-th step ends after a negative-binomial time (Eq. 3.5), and the steps weighted by

    alpha_n = (1 - target) (target - gamma)^(n - 1) / (1 - gamma)^n               (Theorem 1)

have the occupancy of any larger discount ``target``. From it follow values of any reward of the
state arrived in (Eq. 3.6) and gamma-MVE, which hands over to a value function (Theorem 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from forethought.models.base import OccupancyModel

Reward = Callable[[Tensor], Tensor]
"""(..., O) states arrived in, environment units -> (...) rewards"""


class StochasticPolicy(Protocol):
    """Actions (n, A) drawn for observations (n, O), in environment units."""

    def __call__(
        self, observation: Tensor, generator: torch.Generator | None = None, /
    ) -> Tensor: ...


def check_discounts(discount: float, target: float) -> None:
    """Raise ValueError unless 0 <= discount <= target < 1."""
    if not 0 <= discount < 1:
        raise ValueError(f"a discount is {discount}; it must lie in [0, 1)")
    if not discount <= target < 1:
        raise ValueError(
            f"target discount {target} with a model of discount {discount}: a rollout can be "
            "weighted to the model's discount or a larger one below 1; for a smaller one train "
            "another model"
        )


def rollout_weights(discount: float, target: float, n_steps: int) -> Tensor:
    """alpha_1 .. alpha_n, float64 (Theorem 1); what they lack to 1 is ``terminal_weight``."""
    check_discounts(discount, target)
    steps = torch.arange(n_steps, dtype=torch.float64)
    ratio = (target - discount) / (1 - discount)
    return (1 - target) / (1 - discount) * ratio**steps  # 0 ** 0 is 1


def terminal_weight(discount: float, target: float, n_steps: int) -> float:
    """1 - (alpha_1 + ... + alpha_n) = ((target - discount) / (1 - discount))^n (Lemma 1)."""
    check_discounts(discount, target)
    return ((target - discount) / (1 - discount)) ** n_steps


def steps_to_cover(discount: float, target: float, mass: float = 0.95) -> int:
    """Fewest rollout steps whose weights sum to ``mass`` (Figure 3.2 b).

    299 for a single-step model (discount 0) at target 0.99 and mass 0.95.
    """
    check_discounts(discount, target)
    if not 0 < mass < 1:
        raise ValueError(f"the probability mass to cover is {mass}; it must lie in (0, 1)")
    ratio = (target - discount) / (1 - discount)
    return 1 if ratio <= 1 - mass else math.ceil(round(math.log(1 - mass) / math.log(ratio), 9))


def step_times(discount: float, n_steps: int, last: int) -> Tensor:
    """(n_steps, last): probability that rollout step n ends at time t = 1 .. last (Eq. 3.5)."""
    check_discounts(discount, discount)
    n = torch.arange(1, n_steps + 1, dtype=torch.float64)[:, None]
    t = torch.arange(1, last + 1, dtype=torch.float64)
    extra = t - n  # steps beyond the fewest
    log_ways = torch.lgamma(t) - torch.lgamma(n) - torch.lgamma(extra.clamp(min=0) + 1)
    log_kept = torch.special.xlogy(extra, torch.tensor(discount, dtype=torch.float64))
    return torch.where(extra < 0, 0.0, (log_ways + log_kept + n * math.log1p(-discount)).exp())


@torch.no_grad()
def rollout(  # noqa: PLR0913  what to ask, of whom, and how much
    model: OccupancyModel,
    policy: StochasticPolicy | None,
    observation: Tensor,
    action: Tensor,
    *,
    n_steps: int,
    n_samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """States (n_steps, batch, n_samples, O) of gamma-model rollouts from (batch, O), (batch, A).

    policy: draws the action of every step after the first; None only with one step
    A model with a terminal flag gives states (.., O + 1); one whose flag says that the episode has
    ended (at least 1/2) is kept for the steps that follow.
    """
    if n_steps > 1 and policy is None:
        raise ValueError(f"a rollout of {n_steps} gamma-model steps needs the policy after the 1st")
    states = model.sample(observation, action, n_samples, generator=generator)  # (B, n, O)
    steps, width = [states], observation.shape[1]
    for _ in range(1, n_steps):
        assert policy is not None, "checked above"
        here = states[..., :width].flatten(0, 1)
        following = model.sample(here, policy(here, generator), 1, generator=generator)
        ended = (states[..., width:] >= 0.5).any(dim=-1, keepdim=True)
        states = torch.where(ended, states, following.view_as(states))
        steps.append(states)
    return torch.stack(steps)


def sample_at(  # noqa: PLR0913  as rollout
    model: OccupancyModel,
    policy: StochasticPolicy | None,
    observation: Tensor,
    action: Tensor,
    *,
    target: float,
    n_samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(batch, n_samples, O) drawn from the occupancy of a larger discount (Theorem 1).

    Every sample stops its rollout after a step drawn with probabilities alpha_n. Rollouts end where
    less than one sample in 10,000 would go on; that share is spread over all steps.
    """
    check_discounts(model.discount, target)
    n_steps = steps_to_cover(model.discount, target, 1 - 1e-4) if target > model.discount else 1
    states = rollout(
        model,
        policy,
        observation,
        action,
        n_steps=n_steps,
        n_samples=n_samples,
        generator=generator,
    )
    weights = rollout_weights(model.discount, target, n_steps).float()
    shape = states.shape[1:3]
    chosen = torch.multinomial(weights, shape.numel(), replacement=True, generator=generator)
    index = chosen.view(1, *shape, 1).expand(1, *states.shape[1:]).to(states.device)
    return states.gather(0, index)[0]


def estimate_value(states: Tensor, reward: Reward, *, discount: float, target: float) -> Tensor:
    """(batch,) values at discount ``target`` from a rollout's states (n_steps, batch, n, O).

    One step with target = discount is Eq. 3.6: E[r(s_e)] / (1 - discount). With more steps, the
    weights are scaled to sum to 1, so that cutting the rollout off does not shrink the value.
    Rewards are of the state arrived in: the value of (s, a) starts with r of the next state.
    """
    weights = rollout_weights(discount, target, len(states))
    per_step = reward(states).mean(dim=-1)  # (n_steps, batch)
    return (weights / weights.sum()).to(per_step) @ per_step / (1 - target)


def expand_value(
    states: Tensor,
    reward: Reward,
    value: Callable[[Tensor], Tensor],
    *,
    discount: float,
    target: float,
) -> Tensor:
    """gamma-MVE (Theorem 2): (batch,) values from H steps of a rollout and a value function.

    states: (H, batch, n, O) as from ``rollout``;  value: (..., O) -> (...) at discount ``target``
    With a single-step model (discount 0) this is model-based value expansion (Remark 2).
    """
    weights = rollout_weights(discount, target, len(states)).to(states)
    expected = weights @ reward(states).mean(dim=-1) / (1 - target)
    rest = terminal_weight(discount, target, len(states))
    return expected + rest * value(states[-1]).mean(dim=-1) if rest else expected


def tabular_occupancy(transitions: np.ndarray, discount: float) -> np.ndarray:
    """(S, S) occupancy of a Markov chain with transition matrix (S, S), from each state.

    (1 - discount) times the successor representation of the states arrived in (Proposition 1):
    mu = (1 - discount) P (I - discount P)^-1.
    """
    check_discounts(discount, discount)
    if transitions.ndim != 2 or transitions.shape[0] != transitions.shape[1]:
        raise ValueError(f"a transition matrix is square; got shape {transitions.shape}")
    if not np.allclose(transitions.sum(axis=1), 1):
        raise ValueError("a transition matrix's rows sum to 1")
    identity = np.eye(len(transitions))
    return (1 - discount) * np.linalg.solve(identity - discount * transitions, transitions)
