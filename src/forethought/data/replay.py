"""What an agent has done while it learned: a ring to learn from, and the whole record on disk.

A step is one row; environments that run side by side take turns, so that row k * n_envs + e is the
k-th step of environment e. The ring keeps the latest rows in memory: row i lies in slot i modulo
its capacity. The record keeps all of them, in files that are written once and named by their first
row, so that saving costs what is new. A killed run reads both back from the record.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forethought.checkpoint import load_tensors, save_tensors
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.types import Transitions


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Rows of single steps: (n, O) observations, (n, A) actions, (n,) rewards and flags.

    next_observation is what the step reached, also where the episode ended with it.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: slice | np.ndarray) -> Steps:
        return Steps(**{name: getattr(self, name)[index] for name in FIELDS})


FIELDS = tuple(field.name for field in fields(Steps))


def concatenate(parts: Sequence[Steps]) -> Steps:
    """Rows of all ``parts``, in order."""
    return Steps(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in FIELDS})


class ReplayBuffer:
    """The latest ``capacity`` steps, preallocated; a view for the training loop.

    total: rows added so far, also those that were overwritten since
    """

    def __init__(self, capacity: int, observation_dim: int, action_dim: int) -> None:
        if capacity < 1:
            raise ValueError(f"a replay buffer of {capacity} steps cannot hold any; give it more")
        self.capacity, self.total = capacity, 0
        rows = {"observation": observation_dim, "next_observation": observation_dim}
        self._steps = Steps(
            **{name: np.zeros((capacity, dim), np.float32) for name, dim in rows.items()},
            action=np.zeros((capacity, action_dim), np.float32),
            reward=np.zeros(capacity, np.float32),
            terminated=np.zeros(capacity, bool),
            truncated=np.zeros(capacity, bool),
        )

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(self, steps: Steps) -> None:
        """Append rows; the oldest make room. Of more rows than fit, the last ones stay."""
        slots = np.arange(self.total, self.total + len(steps)) % self.capacity
        kept = slice(max(0, len(steps) - self.capacity), None)
        for name in FIELDS:
            getattr(self._steps, name)[slots[kept]] = getattr(steps, name)[kept]
        self.total += len(steps)

    @property
    def observations(self) -> np.ndarray:
        """(rows, O), in the order of the slots."""
        return self._steps.observation[: len(self)]

    def __getitem__(self, indices: np.ndarray) -> Transitions:
        """The steps in these slots, 0 to len - 1; a time limit is no termination."""
        steps = self._steps
        return Transitions(
            observation=torch.from_numpy(steps.observation[indices]),
            action=torch.from_numpy(steps.action[indices]),
            reward=torch.from_numpy(steps.reward[indices]),
            next_observation=torch.from_numpy(steps.next_observation[indices]),
            terminated=torch.from_numpy(steps.terminated[indices]),
        )


class StepRecord:
    """All steps of a run, in a folder of safetensors files, each named by its first row.

    Rows that were added are on disk only after ``flush``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.total = 0  # rows on disk
        self._pending: list[Steps] = []

    def add(self, steps: Steps) -> None:
        """Append rows."""
        self._pending.append(steps)

    def flush(self) -> None:
        """Write what was added since the last time."""
        if not self._pending:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = concatenate(self._pending)
        tensors = {name: torch.from_numpy(getattr(steps, name)) for name in FIELDS}
        save_tensors(self._file(self.total), tensors, {})
        self.total += len(steps)
        self._pending = []

    def cut(self, total: int) -> None:
        """Forget rows from ``total`` on; files begin there, because it is where one was flushed."""
        for first in self._firsts():
            if first >= total:
                self._file(first).unlink()
        self.total, self._pending = total, []

    def latest(self, n: int = sys.maxsize) -> Steps | None:
        """The last ``n`` rows on disk, or all if there are fewer; None if there are none."""
        parts, found = [], 0
        for first in reversed(self._firsts()):
            if found >= n:
                break
            parts.append(self._read(first))
            found += len(parts[-1])
        return concatenate(parts[::-1])[slice(max(0, found - n), None)] if parts else None

    def dataset(self, n_envs: int, metadata: Mapping[str, Any]) -> EpisodeDataset:
        """All episodes, those that were begun first in front.

        Unfinished ones are kept, as truncated ones are. The mixture over training of the thesis's
        Section 3.6 is this whole data set.
        """
        steps = self.latest()
        if steps is None:
            raise ValueError(f"{self.folder} holds no steps yet; train first")
        found: list[tuple[int, Episode]] = []
        for env in range(n_envs):
            own = steps[slice(env, None, n_envs)]
            ends = np.flatnonzero(own.terminated | own.truncated) + 1
            borders = np.union1d(ends, [0, len(own)])
            for first, end in zip(borders[:-1], borders[1:], strict=True):
                found.append((int(first) * n_envs + env, _episode(own[slice(first, end)])))
        found.sort(key=lambda pair: pair[0])
        return EpisodeDataset.from_episodes([episode for _, episode in found], **metadata)

    def _file(self, first: int) -> Path:
        return self.folder / f"{first:010d}.safetensors"

    def _firsts(self) -> list[int]:
        return sorted(int(file.stem) for file in self.folder.glob("*.safetensors"))

    def _read(self, first: int) -> Steps:
        tensors, _ = load_tensors(self._file(first))
        return Steps(**{name: tensors[name].numpy() for name in FIELDS})


def _episode(steps: Steps) -> Episode:
    observations = np.concatenate([steps.observation, steps.next_observation[-1:]])
    return Episode(observations, steps.action, steps.reward, bool(steps.terminated[-1]))
