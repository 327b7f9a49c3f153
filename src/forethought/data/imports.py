"""Importers: other people's data files to ``EpisodeDataset``, checked and aligned.

Our convention is Gymnasium's: T + 1 observations, ``rewards[t]`` follows ``actions[t]`` and
describes ``observations[t + 1]``. Raw files differ from it by a row here and there; each function
says how, and counts in the metadata what it leaves out. Thread numbers (#) are those of
https://github.com/Farama-Foundation/D4RL/issues. D4RL itself is never imported.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset, require_finite
from forethought.registry import did_you_mean

D4RLLayout = Literal["auto", "maze2d", "locomotion", "antmaze"]
Layout = Literal["auto", "maze2d", "locomotion", "antmaze", "minari", "ogbench"]
Arrays = dict[str, np.ndarray]
JUMP = 1.0  # AntMaze: no ant walks this far in one step of 0.05 s, so the simulator was reset

_HDF5_ENDINGS = (".hdf5", ".h5", ".hdf")
_MINARI_NAME = re.compile(r"[\w\-/]+-v\d+")
_REQUIRED = ("observations", "actions", "rewards", "terminals")


def import_dataset(source: str | Path, *, layout: Layout = "auto") -> EpisodeDataset:
    """Import a file, a Minari folder or a Minari name such as "D4RL/pointmaze/umaze-v2".

    layout: "auto" goes by the ending (.hdf5, .h5, .hdf: D4RL; .npz: OGBench; folder or name:
        Minari) and, for D4RL, by the file's keys. Say it when that guesses wrong.
    """
    if layout not in get_args(Layout):
        raise ValueError(did_you_mean(str(layout), list(get_args(Layout)), kind="layout"))
    path = Path(source)
    is_name = not path.exists() and _MINARI_NAME.fullmatch(str(source)) is not None
    if layout == "minari" or (layout == "auto" and (path.is_dir() or is_name)):
        return from_minari(source)
    if layout == "ogbench" or (layout == "auto" and path.suffix == ".npz"):
        return from_ogbench_npz(path)
    if layout != "auto" or path.suffix in _HDF5_ENDINGS:
        return from_d4rl_hdf5(path, layout=layout)
    _require_file(path)
    raise ValueError(
        f"{path} has the unknown ending {path.suffix!r}; expected {', '.join(_HDF5_ENDINGS)} "
        "(D4RL) or .npz (OGBench). If it is one of these, rename it or say its layout."
    )


def from_d4rl_hdf5(file: str | Path, *, layout: D4RLLayout = "auto") -> EpisodeDataset:
    """Read a raw D4RL HDF5 file.

    layout: "auto" takes a file without ``infos/goal`` for "locomotion" (Gym-MuJoCo, Adroit,
        Kitchen), one with it for "maze2d" if observations are 4 wide, else for "antmaze"

    "maze2d": one record that is never reset, kept as one episode of N - 1 steps from N rows.
      - #194: stored rewards[t] describe observations[t]; they shift to follow actions[t - 1].
      - #85: ``timeouts`` mark arrivals at random goals, not ends: they become ``goal_changes`` at
        t + 1 (the first row with the new goal) where ``infos/goal`` is missing or never varies.
      - #65: an early umaze file holds all-zero rows and is refused.
      - The builder repeats the observation after an arrival: kept, counted as ``stale_rows``.
    "locomotion": ``terminals`` and ``timeouts`` end episodes; an unfinished last one is kept.
      - With ``next_observations`` every row is a step; the last gives the final observation.
      - Without, the final observation is unknown: a truncated episode gives up its last step; a
        terminated one keeps it (reward and termination are real) and repeats its observation.
      - #162: medium-replay does not mark every reset, so an episode also ends where
        observations[t + 1] differs from next_observations[t].
    "antmaze": jumps of the ant's position and changes of ``infos/goal`` end episodes.
      - #77: ``timeouts`` of v0 are out of step with the resets; used only if they mark them all.
      - #199: ``terminals`` are set at every step near the goal while the ant walks on, so alone
        they end no episode; ``terminals_inside`` counts those before an episode's last step.
      - Rewards describe observations[t + 1] already. Final observations: as in "locomotion".
      - ``source_goals`` in the metadata: the goal of each episode, in the order of the file.
    """
    file = Path(file)
    if layout not in get_args(D4RLLayout):
        raise ValueError(did_you_mean(str(layout), list(get_args(D4RLLayout)), kind="D4RL layout"))
    arrays, notes = _read_hdf5(file)
    if layout == "auto" and "infos/goal" in arrays:
        layout = "maze2d" if arrays["observations"].shape[1] == 4 else "antmaze"
    metadata = {"source": file.name, "format": "d4rl-hdf5", "source_metadata": notes}
    if layout == "maze2d":
        return _import_maze2d(arrays, str(file), metadata | {"layout": layout})
    if layout == "antmaze":
        return _import_antmaze(arrays, str(file), metadata | {"layout": layout})
    return _import_locomotion(arrays, str(file), metadata | {"layout": "locomotion"})


def from_ogbench_npz(file: str | Path) -> EpisodeDataset:
    """Read an OGBench file: observations, actions, terminals, and rewards if it has them.

    A trajectory's last row (terminals 1) is its final observation and the action beside it leads
    nowhere, so R rows make R - 1 steps. ``terminals`` mark truncation: nothing is terminated.
    OGBench's own files have no rewards (a task is chosen later): they are zero then. Those of a
    file that has them belong to the action of their row.
    """
    file = Path(file)
    _require_file(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is no .npz file or is truncated ({error}); fetch it again"
        ) from error
    _check_arrays(arrays, str(file), keys := ("observations", "actions", "terminals"), list(arrays))
    ignored = sorted(set(arrays) - {*keys, "rewards"})
    metadata = {"source": file.name, "format": "ogbench-npz", "ignored_keys": ignored}
    ends = arrays["terminals"]
    arrays.setdefault("rewards", np.zeros(len(ends), np.float32))
    arrays["terminals"] = np.zeros_like(ends)
    return _assemble(arrays, ends, str(file), metadata)


def from_minari(name_or_path: str | Path, *, append: Sequence[str] = ()) -> EpisodeDataset:
    """Read a local Minari data set, by name or folder; nothing is downloaded.

    Observations: Box vectors, or a Dict with an "observation" key. Actions: Box vectors, or
    Discrete (one column of indices from 0, ``n_actions`` in the metadata). Rows align as ours do.

    append: keys of a Dict whose vectors are put behind the observation, such as
        ("desired_goal",); the others are ignored
    """
    data = _open_minari(name_or_path)
    what = f"Minari data set {data.id}"
    keys, n_actions = _check_spaces(data.observation_space, data.action_space, append, what)
    episodes = []
    for source in data.iterate_episodes():
        observations, actions = source.observations, np.asarray(source.actions)
        if keys:
            observations = np.concatenate([observations[key] for key in keys], axis=1)
        if n_actions is not None:
            actions = (actions - int(data.action_space.start))[:, None]
        named = {"observations": observations, "actions": actions, "rewards": source.rewards}
        for name, values in named.items():
            require_finite(values, f"{what}, episode {source.id}: {name}")
        if len(actions):
            terminated = bool(source.terminations[-1])
            actions = actions if n_actions is not None else actions.astype(np.float32)
            episodes.append(Episode(observations, actions, source.rewards, terminated))
    if not episodes:
        raise ValueError(f"{what} is empty: no episode has a step")
    metadata = {"source": data.id, "format": "minari", "observation_keys": list(keys)}
    metadata["dropped_episodes"] = len(data) - len(episodes)  # those without a step
    metadata |= {"n_actions": n_actions} if n_actions is not None else {}
    metadata |= {"environment": data.env_spec.id} if data.env_spec is not None else {}
    return EpisodeDataset.from_episodes(episodes, **metadata)


def _import_maze2d(arrays: Arrays, what: str, metadata: dict[str, Any]) -> EpisodeDataset:
    observations, rows = arrays["observations"], len(arrays["observations"])
    if arrays["terminals"].any():
        raise ValueError(f"{what} has terminals, which Maze2D never sets; say another layout")
    if rows < 2:
        raise ValueError(f"{what} is empty: a step needs 2 rows, found {rows}")
    if (zeros := (observations == 0).all(axis=1)).any():
        raise ValueError(
            f"{what} holds {zeros.sum()} all-zero observations (first in row {zeros.argmax()}), as "
            "an early D4RL file did (thread #65); fetch it again"
        )
    changes = _changes(arrays.get("infos/goal"))
    if not len(changes) and "timeouts" in arrays:
        changes = np.flatnonzero(arrays["timeouts"]) + 1
    metadata["stale_rows"] = int((observations[1:] == observations[:-1]).all(axis=1).sum())
    episode = Episode(observations, arrays["actions"][:-1], arrays["rewards"][1:])
    dataset = EpisodeDataset.from_episodes([episode], **metadata)
    dataset.goal_changes = changes[changes < rows - 1].astype(np.int64)
    return dataset


def _import_locomotion(arrays: Arrays, what: str, metadata: dict[str, Any]) -> EpisodeDataset:
    following = arrays.get("next_observations")
    if following is None and "timeouts" not in arrays:
        raise ValueError(
            f"{what} has neither 'timeouts' nor 'next_observations', so the ends of its episodes "
            f"are unknown; add one of them (found {', '.join(sorted(arrays))})"
        )
    ends = arrays["terminals"] | arrays.get("timeouts", False)
    if following is not None:
        same = np.isclose(following[:-1], arrays["observations"][1:], rtol=1e-5, atol=1e-6)
        ends[:-1] |= ~same.all(axis=1)
    return _assemble(arrays, ends, what, metadata)


def _import_antmaze(arrays: Arrays, what: str, metadata: dict[str, Any]) -> EpisodeDataset:
    steps = np.diff(arrays["observations"][:, :2], axis=0)
    ends = np.append(np.linalg.norm(steps, axis=1) > JUMP, False)
    goals, timeouts = arrays.get("infos/goal"), arrays.get("timeouts")
    ends[_changes(goals) - 1] = True
    metadata["timeouts_used"] = timeouts is not None and not (ends & ~timeouts).any()
    if timeouts is not None and metadata["timeouts_used"]:
        ends |= timeouts
    return _assemble(arrays, ends, what, metadata, goals)


def _changes(goals: np.ndarray | None) -> np.ndarray:
    """Rows whose goal differs from the row's before."""
    if goals is None:
        return np.zeros(0, dtype=np.int64)
    goals = goals.reshape(len(goals), -1)
    return np.flatnonzero((goals[1:] != goals[:-1]).any(axis=1)) + 1


def _assemble(
    arrays: Arrays,
    ends: np.ndarray,
    what: str,
    metadata: dict[str, Any],
    goals: np.ndarray | None = None,
) -> EpisodeDataset:
    """Cut the rows into episodes after each row of ``ends`` (last rows: see above)."""
    observations, terminals = arrays["observations"], arrays["terminals"]
    following = arrays.get("next_observations")
    bounds = np.union1d(np.flatnonzero(ends) + 1, [0, len(observations)]).tolist()
    episodes, source_goals, repeated, inside = [], [], 0, 0
    for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        rows = observations[first:end]
        if following is not None:
            rows = np.concatenate([rows, following[end - 1 : end]])
        elif terminals[end - 1]:
            rows = np.concatenate([rows, rows[-1:]])
            repeated += 1
        if len(rows) < 2:
            continue
        taken = slice(first, first + len(rows) - 1)
        terminated = bool(terminals[taken][-1])
        episodes.append(
            Episode(rows, arrays["actions"][taken], arrays["rewards"][taken], terminated)
        )
        inside += int(terminals[taken][:-1].sum())
        if goals is not None:
            source_goals.append(np.ravel(goals[first]).tolist())
    if not episodes:
        raise ValueError(f"{what} is empty: none of its {len(observations)} rows makes a step")
    metadata["dropped_steps"] = len(observations) - sum(map(len, episodes))
    metadata |= {"repeated_final_observations": repeated, "terminals_inside": inside}
    metadata |= {"source_goals": source_goals} if goals is not None else {}
    return EpisodeDataset.from_episodes(episodes, **metadata)


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not a file; expected a D4RL .hdf5 or OGBench .npz file, a Minari folder, "
            "or a Minari name such as D4RL/pointmaze/umaze-v2. Check the path."
        )


def _read_hdf5(file: Path) -> tuple[Arrays, dict[str, Any]]:
    """The checked arrays of a D4RL file, and the scalars of its ``metadata`` group."""
    _require_file(file)
    if not h5py.is_hdf5(file):
        raise ValueError(f"{file} is not an HDF5 file; expected D4RL's .hdf5, fetch it again")
    arrays, notes, found = {}, {}, []
    try:
        with h5py.File(file, "r") as handle:
            handle.visit(found.append)
            if "episode_0" in found:
                raise ValueError(f"{file} is part of a Minari data set; import its folder instead")
            for name in (*_REQUIRED, "timeouts", "next_observations", "infos/goal"):
                if name in handle:
                    arrays[name] = handle[name][()]  # type: ignore[index]
            for name in filter(re.compile("metadata/[^/]+$").match, found):
                if isinstance(item := handle[name], h5py.Dataset) and item.shape == ():
                    value = item[()]
                    text = value.decode() if isinstance(value, bytes) else value.item()
                    notes[name.removeprefix("metadata/")] = text
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{file} is truncated or damaged ({error}); fetch it again") from error
    _check_arrays(arrays, str(file), _REQUIRED, found)
    return arrays, notes


def _check_arrays(arrays: Arrays, what: str, keys: Sequence[str], found: Sequence[str]) -> None:
    """Check keys, shapes, lengths and finite values; convert in place (flags to bool)."""
    if missing := [key for key in keys if key not in arrays]:
        raise ValueError(
            f"{what} lacks {', '.join(missing)}; found {', '.join(found) or 'nothing'}"
        )
    dims = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1, "timeouts": 1}
    dims |= {"next_observations": 2, "infos/goal": 2}
    rows = len(np.atleast_1d(arrays["observations"]))
    for name in filter(arrays.__contains__, dims):
        values = arrays[name]
        if dims[name] == 1 and values.shape[1:] == (1,):
            values = values[:, 0]  # some D4RL files hold columns
        if values.ndim != dims[name]:
            raise ValueError(
                f"{what}: {name} has shape {values.shape}, expected {dims[name]} axes, rows "
                "first (encode images as vectors)"
            )
        if len(values) != rows:
            raise ValueError(
                f"{what} has mismatched lengths: {rows} observations, {len(values)} {name}; "
                "all arrays must have the same rows"
            )
        require_finite(values, f"{what}: {name}")
        flag = name in ("terminals", "timeouts")
        arrays[name] = values.astype(bool if flag else np.float32, copy=False)
    if not rows:
        raise ValueError(f"{what} is empty: its arrays have no rows")


def _open_minari(name_or_path: str | Path) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError("Minari data need Minari: pip install 'forethought[minari]'") from error
    path = Path(name_or_path)
    if path.is_dir():
        folder = path / "data" if (path / "data").is_dir() else path
        if not (folder / "metadata.json").is_file():
            raise ValueError(
                f"{path} is not a Minari data set (no data/metadata.json); a folder with "
                "dataset.json needs no import, open it with EpisodeDataset.open"
            )
        return minari.MinariDataset(folder)
    try:
        return minari.load_dataset(str(name_or_path))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no Minari data set {str(name_or_path)!r} here; fetch it with `minari download "
            f"{name_or_path}`, or see `minari list local`"
        ) from error


def _check_spaces(
    observation_space: Any, action_space: Any, append: Sequence[str], what: str
) -> tuple[tuple[str, ...], int | None]:
    """The Dict keys to concatenate (none for a Box), and the number of discrete actions."""
    from gymnasium.spaces import Box, Dict, Discrete

    keys: tuple[str, ...] = ()
    parts = [observation_space]
    if isinstance(observation_space, Dict):
        keys = ("observation", *append)
        if missing := [key for key in keys if key not in observation_space.spaces]:
            raise ValueError(
                f"{what} has no observation keys {missing}; found {list(observation_space.spaces)}"
            )
        parts = [observation_space[key] for key in keys]
    elif append:
        raise ValueError(
            f"{what}: append={tuple(append)} needs Dict observations, found {parts[0]}"
        )
    if not all(isinstance(part, Box) and len(part.shape) == 1 for part in parts):
        raise ValueError(f"{what}: observations must be vectors (Box, Dict of Box), found {parts}")
    if isinstance(action_space, Discrete):
        return keys, int(action_space.n)
    if not isinstance(action_space, Box) or len(action_space.shape) != 1:
        raise ValueError(f"{what}: actions must be Box vectors or Discrete, found {action_space}")
    return keys, None
