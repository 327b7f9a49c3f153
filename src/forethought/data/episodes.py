"""Episodes in memory and on disk.

An ``EpisodeDataset`` stores ragged episodes flat: every array has one row per observation, so an
episode of T steps takes T + 1 rows and its last action and reward row is zero padding. ``starts``
holds each episode's first row and, at the end, the number of rows. On disk it is a folder of plain
``.npy`` files, opened as memory maps, beside ``dataset.json``::

    row            0    1   ...  T-1   T  |  T+1  ...
    observations   o_0  o_1      ...  o_T |  o_0  ...     starts = [0, T + 1, ...]
    actions        a_0  a_1  a_{T-1}   0  |  a_0  ...
    rewards        r_0  r_1  r_{T-1}   0  |  r_0  ...
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forethought.types import Spaces

FORMAT_VERSION = 1
_ARRAYS = ("observations", "actions", "rewards", "starts", "terminated")
_OPTIONAL = ("goal_changes", "contexts")


@dataclass(frozen=True)
class Episode:
    """One episode: observations (T + 1, O), actions (T, A), rewards (T,).

    successes: (T,) bool, at the goal after each step;  goal: (O,)
    context: what the whole episode was seen under, such as a map; any shape
    seed: that made it, if it was rolled out
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool = False
    successes: np.ndarray | None = None
    goal: np.ndarray | None = None
    context: np.ndarray | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if len(self.observations) != steps + 1 or len(self.rewards) != steps:
            raise ValueError(
                f"an episode with {steps} actions needs {steps + 1} observations and {steps} "
                f"rewards; got {len(self.observations)} and {len(self.rewards)}"
            )

    def __len__(self) -> int:
        return len(self.actions)


class EpisodeDataset:
    """Many episodes as flat arrays (see the module docstring for the layout).

    observations: (rows, O) float32;  actions: (rows, A);  rewards: (rows,) float32
    starts: (episodes + 1,) int64;  terminated: (episodes,) bool
    goal_changes: rows at which the data's controller took a new goal, if known (lost in ``filter``,
        ``split`` and ``cut``, which renumber the rows)
    contexts: (episodes, ...), one for each episode, or None
    metadata: JSON-able facts, such as the environment's id, the builder and its seed
    """

    def __init__(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        starts: np.ndarray,
        terminated: np.ndarray,
        *,
        goal_changes: np.ndarray | None = None,
        contexts: np.ndarray | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.observations = observations
        self.actions = actions
        self.rewards = rewards
        self.starts = starts
        self.terminated = terminated
        self.goal_changes = goal_changes
        self.contexts = contexts
        self.metadata = dict(metadata or {})
        self._check_shapes()

    def _check_shapes(self) -> None:
        rows = len(self.observations)
        if self.observations.ndim != 2 or self.actions.ndim != 2 or self.rewards.ndim != 1:
            raise ValueError(
                "observations and actions must be (rows, dim) and rewards (rows,); got shapes "
                f"{self.observations.shape}, {self.actions.shape} and {self.rewards.shape}"
            )
        if len(self.actions) != rows or len(self.rewards) != rows:
            raise ValueError(
                f"mismatched lengths: {rows} observation rows, {len(self.actions)} action rows, "
                f"{len(self.rewards)} rewards. All arrays have one row per observation."
            )
        if len(self.starts) < 2 or self.starts[0] != 0 or self.starts[-1] != rows:
            raise ValueError(
                f"the data set is empty or its episode starts do not cover its {rows} rows; "
                "an episode needs at least one step"
            )
        if np.diff(self.starts).min() < 2 or len(self.terminated) != len(self.starts) - 1:
            raise ValueError("every episode needs at least one step and one `terminated` flag")
        if self.contexts is not None and len(self.contexts) != len(self.terminated):
            raise ValueError(
                f"{len(self.contexts)} contexts for {len(self.terminated)} episodes; give one each"
            )

    @classmethod
    def from_episodes(cls, episodes: Sequence[Episode], /, **metadata: Any) -> EpisodeDataset:
        """Concatenate episodes; keyword arguments become metadata."""
        if not episodes:
            raise ValueError("the data set is empty: no episode was given")
        shapes = {(e.observations.shape[1:], e.actions.shape[1:]) for e in episodes}
        if len(shapes) > 1 or any(len(o) != 1 or len(a) != 1 for o, a in shapes):
            raise ValueError(
                "all episodes need observations (T + 1, O) and actions (T, A), with one O and one "
                f"A; got rows of shapes {sorted(shapes)}"
            )
        lengths = np.array([len(episode) + 1 for episode in episodes])
        actions = np.concatenate([np.pad(e.actions, ((0, 1), (0, 0))) for e in episodes])
        if np.issubdtype(actions.dtype, np.floating):
            actions = actions.astype(np.float32, copy=False)  # indices of choices stay whole
        contexts = [e.context for e in episodes if e.context is not None]
        if contexts and len({context.shape for context in contexts}) > 1:
            raise ValueError("the contexts of all episodes need one shape")
        return cls(
            np.concatenate([e.observations for e in episodes]).astype(np.float32),
            actions,
            np.concatenate([np.pad(e.rewards, (0, 1)) for e in episodes]).astype(np.float32),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([e.terminated for e in episodes], dtype=bool),
            contexts=np.stack(contexts) if contexts else None,
            metadata=metadata,
        )

    def __len__(self) -> int:
        return len(self.terminated)

    def __getitem__(self, index: int) -> Episode:
        index = range(len(self))[index]  # negative ones count from the end
        first, end = self.starts[index], self.starts[index + 1]
        return Episode(
            self.observations[first:end],
            self.actions[first : end - 1],
            self.rewards[first : end - 1],
            bool(self.terminated[index]),
            context=None if self.contexts is None else self.contexts[index],
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    @property
    def n_steps(self) -> int:
        """Environment steps, over all episodes."""
        return len(self.observations) - len(self)

    @property
    def spaces(self) -> Spaces:
        """Sizes of the observation and action rows."""
        return Spaces(
            observation_dim=self.observations.shape[1],
            action_dim=self.actions.shape[1],
            n_actions=self.metadata.get("n_actions"),
            context_shape=() if self.contexts is None else self.contexts.shape[1:],
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all arrays, 16 hex digits: which data a checkpoint was trained on."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        if self.contexts is not None:
            digest.update(np.ascontiguousarray(self.contexts).data)
        return digest.hexdigest()[:16]

    def filter(self, keep: Callable[[Episode], bool]) -> EpisodeDataset:
        """The episodes for which ``keep`` is true."""
        return self.from_episodes([episode for episode in self if keep(episode)], **self.metadata)

    def split(self, fraction: float, seed: int) -> tuple[EpisodeDataset, EpisodeDataset]:
        """Two disjoint data sets, ``fraction`` of the episodes (drawn by ``seed``) in the first."""
        if not 0 < fraction < 1 or len(self) < 2:
            raise ValueError(f"cannot split {len(self)} episodes at fraction {fraction}")
        order = np.random.default_rng(seed).permutation(len(self))
        cut = min(max(round(fraction * len(self)), 1), len(self) - 1)
        parts = (np.sort(order[:cut]), np.sort(order[cut:]))
        first, second = ([self[i] for i in part] for part in parts)
        meta = self.metadata
        return self.from_episodes(first, **meta), self.from_episodes(second, **meta)

    def cut(self, rows: np.ndarray) -> EpisodeDataset:
        """Split episodes so that each of ``rows`` begins a new one; the step into it is dropped.

        Serves the released code's Maze2D segmentation (cut where the agent leaves the target disc).
        """
        if len(rows) and (np.min(rows) < 0 or np.max(rows) > self.starts[-1]):
            raise ValueError(f"cut rows must lie in [0, {self.starts[-1]}], got {np.unique(rows)}")
        starts = np.union1d(self.starts, rows).astype(np.int64)
        last_rows = starts[1:] - 1
        kept = np.diff(starts) >= 2
        if not kept.any():
            raise ValueError(
                f"the data set is empty after {len(rows)} cuts: no piece has a step left"
            )
        lengths = np.diff(starts)[kept]
        index = np.concatenate(
            [np.arange(a, b + 1) for a, b in zip(starts[:-1][kept], last_rows[kept], strict=True)]
        )
        actions, rewards = self.actions[index], self.rewards[index]
        ends = np.cumsum(lengths) - 1
        actions[ends], rewards[ends] = 0, 0
        ended = np.isin(last_rows[kept], self.starts[1:] - 1)
        owner = np.searchsorted(self.starts, starts[:-1][kept], side="right") - 1
        terminated = self.terminated[owner] & ended
        new_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return EpisodeDataset(
            self.observations[index],
            actions,
            rewards,
            new_starts,
            terminated,
            contexts=None if self.contexts is None else self.contexts[owner],
            metadata=self.metadata,
        )

    @property
    def actions_taken(self) -> np.ndarray:
        """(steps, A): without the row beside each episode's last observation, which has none."""
        return np.delete(self.actions, self.starts[1:] - 1, axis=0)

    def returns_to_go(self, discount: float) -> np.ndarray:
        """(rows,) float32: discounted sum of rewards from each row to its episode's end."""
        if not 0 <= discount <= 1:
            raise ValueError(f"discount is {discount}; it must lie in [0, 1]")
        returns = self.rewards.tolist()  # Python floats: double precision, and fast in a loop
        starts = self.starts.tolist()
        for first, end in zip(starts[:-1], starts[1:], strict=True):
            total = 0.0
            for row in range(end - 1, first - 1, -1):
                returns[row] = total = returns[row] + discount * total
        return np.array(returns, dtype=np.float32)

    def save(self, path: Path | str) -> None:
        """Write the folder; an existing one is replaced only once the new one is complete."""
        path = Path(path).absolute()
        is_ours = (path / "dataset.json").is_file() or (path.is_dir() and not any(path.iterdir()))
        if path.exists() and not is_ours:
            raise ValueError(
                f"{path} exists and is not a data set; give another folder or remove it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        replaced = path.with_name(f"{scratch.name}.old")
        scratch.mkdir()
        try:
            for name in (*_ARRAYS, *_OPTIONAL):
                array = getattr(self, name)
                if array is not None:
                    np.save(scratch / f"{name}.npy", array)
            header = {"format_version": FORMAT_VERSION, "fingerprint": self.fingerprint}
            header |= {"episodes": len(self), "steps": self.n_steps, "metadata": self.metadata}
            (scratch / "dataset.json").write_text(json.dumps(header, indent=2) + "\n")
            if path.exists():
                path.rename(replaced)
            scratch.rename(path)
        except BaseException as error:
            if replaced.exists():
                replaced.rename(path)
            shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, OSError):
                raise OSError(
                    f"could not write {path}: {error.strerror or error}. Nothing was changed; free "
                    "some disk space or choose another folder."
                ) from error
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    @classmethod
    def open(cls, path: Path | str) -> EpisodeDataset:
        """Open a folder written by ``save`` as memory maps; refuse a damaged or too new one."""
        path = Path(path)
        header_file = path / "dataset.json"
        if not header_file.is_file():
            raise FileNotFoundError(
                f"{path} is not a data-set folder (no dataset.json). Build one with "
                "`forethought data build NAME` or import one with `forethought data import FILE`."
            )
        header = _read_header(header_file)
        arrays = {name: _open_array(path / f"{name}.npy") for name in _ARRAYS}
        files = {name: path / f"{name}.npy" for name in _OPTIONAL}
        optional = {name: _open_array(file) for name, file in files.items() if file.exists()}
        try:
            dataset = cls(**arrays, **optional, metadata=header["metadata"])
        except ValueError as error:
            raise ValueError(f"data set {path}: {error}") from error
        if dataset.n_steps != header["steps"]:
            raise ValueError(
                f"data set {path} is truncated: {dataset.n_steps} steps found, {header['steps']} "
                "recorded; build it again"
            )
        for name in ("observations", "actions", "rewards"):
            require_finite(getattr(dataset, name), f"data set {path}: {name}")
        return dataset


def require_finite(values: np.ndarray, what: str) -> None:
    """Raise ValueError naming the first row of ``values`` that holds NaN or infinity."""
    for first in range(0, len(values), 1 << 18):
        finite = np.isfinite(values[first : first + (1 << 18)])
        if not finite.all():
            row = first + int(np.argwhere(~finite)[0][0])
            raise ValueError(
                f"{what} holds NaN or infinite values (first in row {row}); clean the log and "
                "import it again"
            )


def _read_header(file: Path) -> dict[str, Any]:
    try:
        header = json.loads(file.read_text())
        version, _, _ = (header[key] for key in ("format_version", "steps", "metadata"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error!r}); build or import the data set again"
        ) from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version}; this forethought reads up to {FORMAT_VERSION}. "
            "Upgrade with `pip install --upgrade forethought`."
        )
    return header


def _open_array(file: Path) -> np.ndarray:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; the data set is incomplete, build it again")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} is truncated or damaged ({error}); build it again") from error
