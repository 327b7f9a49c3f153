r"""Fitted Q evaluation: the value of a policy from logged steps, by temporal differences.

Le et al. 2019 (arXiv 1903.08738), with one network and a slowly moving target, not a sequence
of regressions::

    Q(s, a)  <-  r(s') + discount (1 - terminated) Q'(s', a'),     a' ~ policy(s')

The baseline of off-policy evaluation that learns values directly, one network for each reward and
discount. The network predicts (1 - discount) Q of normalized rewards, which is of order one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer
from forethought.data.views import TransitionView
from forethought.models.base import follow
from forethought.nn.mlp import mlp

WIDTH, BATCH, RATE, TARGET_RATE = 128, 256, 1e-3, 0.01


class FittedQ:
    """Q of one policy, reward and discount.

    next_actions: (rows, A), an action of the policy for every observation of the data set
    reward: (n, O) -> (n,), of the state arrived in
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        next_actions: np.ndarray,
        reward: Callable[[Tensor], Tensor],
        discount: float,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self._view = TransitionView(dataset, next_actions=next_actions)
        self._reward, self._discount = reward, discount
        spaces = dataset.spaces
        self._observations = Normalizer(spaces.observation_dim, "gaussian")
        self._observations.fit(dataset.observations)
        self._actions = Normalizer(spaces.action_dim, "limits")
        self._actions.fit(dataset.actions_taken)
        self._rewards = Normalizer(1, "gaussian")
        earned = reward(torch.from_numpy(np.array(dataset.observations)))
        self._rewards.fit(earned[:, None].numpy())
        self._network = mlp([spaces.observation_dim + spaces.action_dim, WIDTH, WIDTH, 1])
        self._target = deepcopy(self._network).requires_grad_(False)
        self._draw = np.random.default_rng(seed)

    def train(self, core_seconds: float) -> int:
        """Learn for a time, the step size falling to zero along it; returns the steps taken."""
        optimizer = torch.optim.Adam(self._network.parameters(), lr=RATE)
        began, steps, spent = time.process_time(), 0, 0.0
        while spent < core_seconds:
            optimizer.param_groups[0]["lr"] = RATE * (1 - spent / core_seconds)
            loss = self._loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            follow(self._target, self._network, TARGET_RATE)
            steps, spent = steps + 1, time.process_time() - began
        return steps

    @torch.no_grad()
    def values(self, observation: Tensor, action: Tensor) -> Tensor:
        """(n,) Q of observations (n, O) and actions (n, A)."""
        share = self._ask(self._network, observation, action)
        return self._rewards.denormalize(share[:, None])[:, 0] / (1 - self._discount)

    def _ask(self, network: torch.nn.Module, observation: Tensor, action: Tensor) -> Tensor:
        z = self._observations.normalize(observation)
        return network(torch.cat([z, self._actions.normalize(action)], dim=-1))[:, 0]

    def _loss(self) -> Tensor:
        batch = self._view[self._draw.integers(len(self._view), size=BATCH)]
        assert batch.next_action is not None, "the view knows the policy's actions"
        earned = self._rewards.normalize(self._reward(batch.next_observation)[:, None])[:, 0]
        with torch.no_grad():
            later = self._ask(self._target, batch.next_observation, batch.next_action)
            # an ended process stays where it is and goes on to earn what it has just earned
            later = torch.where(batch.terminated, earned, later)
            aim = (1 - self._discount) * earned + self._discount * later
        return (self._ask(self._network, batch.observation, batch.action) - aim).square().mean()
