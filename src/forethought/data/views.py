"""Views: index arithmetic over the flat arrays of an ``EpisodeDataset``.

A view has a length and turns an array of indices into one batch; there is no sampler, no worker
process and no per-item Python. A window takes ``horizon`` rows, ``stride`` environment steps apart,
or ever farther apart (``growth``), so that the near future is seen in more detail than the far one;
rows past the episode's end repeat its last observation and are masked as padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from forethought.data.episodes import EpisodeDataset
from forethought.types import Spaces, Trajectory, Transitions


class View(Protocol):
    """Anything that a training loop can draw batches from."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> Trajectory | Transitions: ...


def row_times(horizon: int, stride: int, growth: float = 0.0) -> np.ndarray:
    """(horizon,) int64: the environment step of each row of a window or plan, from 0.

    The gap after row k is about stride (1 + growth k): rows are equally spaced without growth.
    """
    row = np.arange(horizon, dtype=np.int64)
    if not growth:
        return row * stride
    # floor, not round: real gaps of one step or more stay at least one step
    return np.floor(stride * (row + growth * row * (row - 1) / 2)).astype(np.int64)


class Windows:
    """Windows of a data set as ``Trajectory`` batches.

    horizon: rows of a window;  stride: environment steps between rows
    growth: share of ``stride`` by which each gap exceeds the one before (see ``row_times``); only
        with actions "none", for a block would differ in width from row to row
    actions: "block" stacks the ``stride`` actions that lead to the next row, "none" leaves them out
    pad: "repeat" starts windows at every step and pads them at the episode's end; "none" takes only
        those that fit
    discount: also return rewards and returns-to-go with this discount, and where the episode
        terminated (stride 1 only)
    goal: "final" also returns the episode's last observation

    The episode's context is returned if the data has any.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        horizon: int,
        *,
        stride: int = 1,
        growth: float = 0.0,
        actions: Literal["block", "none"] = "block",
        pad: Literal["repeat", "none"] = "repeat",
        discount: float | None = None,
        goal: Literal["none", "final"] = "none",
    ) -> None:
        if horizon < 2 or stride < 1:
            raise ValueError(
                f"a window needs horizon >= 2 and stride >= 1, got {horizon} and {stride}"
            )
        if actions not in ("block", "none") or pad not in ("repeat", "none"):
            raise ValueError(
                f'actions is "block" or "none" and pad "repeat" or "none"; got {actions!r}, {pad!r}'
            )
        if discount is not None and stride != 1:
            raise ValueError(f"rewards per row are defined for stride 1 only, got stride {stride}")
        if growth < 0 or (growth and actions != "none"):
            raise ValueError(
                f"growth {growth} with actions {actions!r}: it must not be negative, and rows at "
                'growing distances hold no blocks of actions; use actions "none"'
            )
        self.dataset = dataset
        self.horizon = horizon
        self.stride = stride
        self._with_actions, self._with_goal = actions == "block", goal == "final"
        self._returns = None if discount is None else dataset.returns_to_go(discount)
        times = row_times(horizon + 1, stride, growth)
        self._offsets, self._next_offsets = times[:-1], times[1:]
        span = int(self._offsets[-1])
        lengths = np.diff(dataset.starts)  # rows of each episode
        counts = np.maximum(lengths - 1 if pad == "repeat" else lengths - span, 0)
        if counts.sum() == 0:
            raise ValueError(
                f"no window of {span} steps fits into any episode (longest: {lengths.max() - 1} "
                "steps); use a shorter horizon or stride, or pad='repeat'"
            )
        self._first = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def spaces(self) -> Spaces:
        """Sizes of the data set's observation and action rows (one environment step)."""
        return self.dataset.spaces

    def __getitem__(self, indices: np.ndarray) -> Trajectory:
        data = self.dataset
        episode = np.searchsorted(self._first, indices, side="right") - 1
        start = data.starts[episode] + indices - self._first[episode]
        last = data.starts[episode + 1] - 1  # the episode's final observation
        rows = start[:, None] + self._offsets  # (B, H)
        clipped = np.minimum(rows, last[:, None])
        observations = torch.from_numpy(data.observations[clipped])
        actions = torch.zeros(*rows.shape, 0)
        if self._with_actions:
            actions = torch.from_numpy(self._action_blocks(rows, last))
        extras = {}
        if self._returns is not None:
            inside = rows < last[:, None]
            extras["rewards"] = torch.from_numpy(data.rewards[clipped] * inside)
            extras["returns_to_go"] = torch.from_numpy(self._returns[clipped] * inside)
            ends = (rows == last[:, None]) & data.terminated[episode, None]
            extras["terminated"] = torch.from_numpy(ends)
        if self._with_goal:
            extras["goal"] = torch.from_numpy(data.observations[last])
        if data.contexts is not None:
            extras["context"] = torch.from_numpy(data.contexts[episode])
        return Trajectory(
            observations=observations,
            actions=actions,
            times=torch.from_numpy(self._offsets),
            observation_mask=torch.from_numpy(rows <= last[:, None]),
            action_mask=torch.from_numpy(start[:, None] + self._next_offsets <= last[:, None]),
            **extras,
        )

    def _action_blocks(self, rows: np.ndarray, last: np.ndarray) -> np.ndarray:
        """(B, H, stride * A): the actions between each row and the next, zero past the end."""
        steps = rows[:, :, None] + np.arange(self.stride)  # (B, H, stride)
        inside = steps < last[:, None, None]
        taken = self.dataset.actions[np.minimum(steps, last[:, None, None])] * inside[..., None]
        return taken.reshape(*rows.shape, -1).astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True)
class HindsightGoals:
    """Goals taken from the future of the same episode, and the reward of having reached them.

    A step from row t is given the goal observations[t + offset] with P(offset = k) proportional to
    discount**(k - 1), k = 1 .. steps left in the episode (thesis C.1: offset ~ Geom(1 - discount)).
    Its reward is 1 if the step ends within ``radius`` of the goal in the dimensions ``dims``
    (environment units), else 0.
    """

    discount: float
    radius: float
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.discount < 1 or self.radius < 0 or not self.dims:
            raise ValueError(
                "hindsight goals need 0 < discount < 1, radius >= 0 and at least one dimension; "
                f"got {self.discount}, {self.radius} and {self.dims}"
            )

    def offsets(self, fraction: np.ndarray, steps_left: np.ndarray) -> np.ndarray:
        """Quantiles of the offset, in 1 .. steps_left, at ``fraction`` in (0, 1)."""
        log = np.log(self.discount)
        reached = -np.expm1(steps_left * log)  # P(offset <= steps_left) before truncation
        # the first k with 1 - discount**k >= fraction * reached
        offsets = np.ceil(np.log1p(-fraction * reached) / log).astype(np.int64)
        return np.clip(offsets, 1, steps_left)


class TransitionView:
    """Single steps of a data set as ``Transitions`` batches.

    ``next_action`` is the action the data took next (zero at an episode's last step). An episode
    that was cut off by a time limit has no terminated step.
    followed: only steps whose next action is known or not needed, i.e. without the last ones of
        episodes that a time limit cut off
    next_actions: (rows, A), an action for every observation, instead of those the data took
    hindsight: replace rewards by those for goals from the future. The index then also names the
    goal: index i is step i // N_GOALS with the quantile (i % N_GOALS + 1/2) / N_GOALS of its
    offset, so that uniformly drawn indices draw steps uniformly and goals by their distribution,
    and a batch stays a function of its indices.
    """

    N_GOALS = 4096

    def __init__(
        self,
        dataset: EpisodeDataset,
        *,
        hindsight: HindsightGoals | None = None,
        followed: bool = False,
        next_actions: np.ndarray | None = None,
        n_steps: int = 1,
        discount: float = 1.0,
    ) -> None:
        if n_steps > 1 and hindsight is not None:
            raise ValueError(
                f"steps of {n_steps} cannot have goals from hindsight: rewards on the way would "
                "depend on the goal; use single steps, or no hindsight"
            )
        self.dataset = dataset
        self._hindsight, self._n_steps, self._discount = hindsight, n_steps, discount
        self._next_actions = dataset.actions if next_actions is None else next_actions
        if hindsight is not None and max(hindsight.dims) >= dataset.observations.shape[1]:
            raise ValueError(
                f"goal dimensions {hindsight.dims} do not exist in observations of "
                f"{dataset.observations.shape[1]} dimensions"
            )
        counts = np.diff(dataset.starts) - 1
        self._rows = np.arange(len(dataset.observations) - len(dataset))
        self._rows += np.repeat(np.arange(len(dataset)), counts)
        self._ends = np.zeros(len(dataset.observations), dtype=bool)
        self._ends[dataset.starts[1:] - 2] = dataset.terminated
        if followed:
            cut = dataset.starts[1:][~dataset.terminated] - 2
            self._rows = np.setdiff1d(self._rows, cut, assume_unique=True)

    def __len__(self) -> int:
        return len(self._rows) * (1 if self._hindsight is None else self.N_GOALS)

    def __getitem__(self, indices: np.ndarray) -> Transitions:
        hindsight, data = self._hindsight, self.dataset
        steps = indices if hindsight is None else indices // self.N_GOALS
        rows = self._rows[steps]
        if self._n_steps > 1:
            return self._several_steps(rows)
        next_observation = data.observations[rows + 1]
        reward, goal = data.rewards[rows], None
        if hindsight is not None:
            fraction = (indices % self.N_GOALS + 0.5) / self.N_GOALS
            last = self._last_of(rows)
            goal = data.observations[rows + hindsight.offsets(fraction, last - rows)]
            miss = (next_observation - goal)[:, list(hindsight.dims)]
            reward = (np.linalg.norm(miss, axis=1) <= hindsight.radius).astype(np.float32)
        return Transitions(
            observation=torch.from_numpy(data.observations[rows]),
            action=torch.from_numpy(data.actions[rows]),
            reward=torch.from_numpy(reward),
            next_observation=torch.from_numpy(next_observation),
            next_action=torch.from_numpy(self._next_actions[rows + 1]),
            terminated=torch.from_numpy(self._ends[rows]),
            goal=None if goal is None else torch.from_numpy(goal),
        )

    def _several_steps(self, rows: np.ndarray) -> Transitions:
        data = self.dataset
        counts = np.minimum(self._n_steps, self._last_of(rows) - rows)
        steps = np.arange(self._n_steps)
        taken = rows[:, None] + np.minimum(steps, counts[:, None] - 1)
        weights = np.where(steps < counts[:, None], self._discount**steps, 0.0)
        reward = (data.rewards[taken] * weights).sum(axis=1)
        return Transitions(
            observation=torch.from_numpy(data.observations[rows]),
            action=torch.from_numpy(data.actions[rows]),
            reward=torch.from_numpy(reward.astype(np.float32)),
            next_observation=torch.from_numpy(data.observations[rows + counts]),
            next_action=torch.from_numpy(self._next_actions[rows + counts]),
            terminated=torch.from_numpy(self._ends[rows + counts - 1]),
            discount=torch.from_numpy((self._discount**counts).astype(np.float32)),
        )

    def _last_of(self, rows: np.ndarray) -> np.ndarray:
        """The last row of the episodes that rows are of."""
        starts = self.dataset.starts
        return starts[np.searchsorted(starts, rows, side="right")] - 1
