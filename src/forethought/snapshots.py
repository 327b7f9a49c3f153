"""Snapshots of an online agent's policy, small enough to ship, ranked by what they earn.

``ship_policies`` takes a run of ``train_online`` to a folder that ``load_model`` and
``load_snapshot`` read::

    config.json, model.safetensors    the agent's settings; the expert
    snapshots/step-*.safetensors      every snapshot of the run, about 140 kB each
    snapshots.json                    what each earns, and which is the expert and which the medium

Weights are kept in half precision (normalizers as they are), and what is ranked is what is shipped.
Every return is of the policy that draws its actions, as D4RL's data do, not of its mode. The expert
has the highest mean return. The medium is, of those before the expert, the one nearest to a third
of it (D4RL: "approximately 1/3 the performance of the expert", Fu et al. 2020).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import forethought.envs  # noqa: F401  (registers the tasks)
from forethought.checkpoint import (
    current_commit,
    find_checkpoint,
    hardware,
    load_config,
    load_tensors,
    save_model,
    save_tensors,
    write_json,
)
from forethought.models.base import Explorer, require
from forethought.online import CURVE, SNAPSHOTS, export_policy, load_snapshot
from forethought.rollout import evaluate
from forethought.scores import mean_and_interval

LIST = "snapshots.json"
MEDIUM_SHARE = 1 / 3  # of the expert's return
EPISODES, SEED = 20, 2_000  # a snapshot; not the starts of the learning curve, nor of any table


class StochasticPolicy:
    """Draws an explorer's random actions, with noise of its own for each environment."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes; the same seeds draw the same noise."""
        seeds = range(n_envs) if seeds is None else seeds
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        envs = range(len(observation)) if rows is None else rows.tolist()
        pairs = zip(observation, envs, strict=True)
        actions = [self._explorer.explore(o[None], self._generators[env]) for o, env in pairs]
        return torch.cat(actions)


class RandomPolicy:
    """Actions drawn uniformly from a box (2, A), with noise of its own for each environment."""

    def __init__(self, action_box: np.ndarray) -> None:
        self._low, self._high = torch.from_numpy(action_box.astype(np.float32))
        self.reset(0)

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes; the same seeds draw the same noise."""
        seeds = range(n_envs) if seeds is None else seeds
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        envs = range(len(observation)) if rows is None else rows.tolist()
        shares = [torch.rand(self._low.shape, generator=self._generators[env]) for env in envs]
        return self._low + (self._high - self._low) * torch.stack(shares)


@dataclass(frozen=True, kw_only=True)
class ShippedPolicies:
    """A folder written by ``ship_policies``.

    files: snapshots in the order of training;  env_steps: environment steps when each was taken
    random_steps: environment steps before the first update, at random
    """

    folder: Path
    env: str
    files: tuple[str, ...]
    env_steps: tuple[int, ...]
    random_steps: int
    expert: str
    medium: str

    @classmethod
    def open(cls, folder: Path | str) -> ShippedPolicies:
        """Read the folder, or the same below the source tree; FileNotFoundError says how to make
        it."""
        path = find_checkpoint(folder)
        file = path / LIST
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: no policies have been shipped there. Train one with "
                f"`forethought train sac/TASK`, then run `python benchmarks/ship_policies.py RUN "
                f"{folder}`"
            )
        try:
            listed = json.loads(file.read_text(encoding="utf-8"))
            rows = listed["snapshots"]
            return cls(
                folder=path,
                env=listed["protocol"]["env"],
                files=tuple(row["file"] for row in rows),
                env_steps=tuple(int(row["env_steps"]) for row in rows),
                random_steps=int(listed["random_steps"]),
                expert=listed["expert"],
                medium=listed["medium"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}); ship the policies again") from error

    def load(self, file: str) -> Explorer:
        """The policy of one of ``files``."""
        return require(load_snapshot(self.folder / file), Explorer, needed_by="a shipped policy")


def ship_policies(
    run: Path,
    out: Path,
    *,
    episodes: int = EPISODES,
    seed: int = SEED,
    on_snapshot: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Rank the snapshots of the run (also while it goes on) and write them to ``out``.

    on_snapshot: called with the row of each snapshot once it is scored
    Returns what ``snapshots.json`` holds.
    """
    curve = json.loads((run / CURVE).read_text(encoding="utf-8"))
    taken = [row for row in curve["rows"] if "snapshot" in row]
    if len(taken) < 2:
        raise ValueError(f"{run} has {len(taken)} snapshots; a medium and an expert need two")
    experiment = load_config(run)["experiment"]
    assert experiment.online is not None, "a run with snapshots has learned online"
    _write_snapshots(run, out, [row["snapshot"] for row in taken])
    rows = []
    for row in taken:
        policy = load_snapshot(out / row["snapshot"])
        score = _score(require(policy, Explorer, needed_by="shipping"), experiment, episodes, seed)
        rows.append({"file": row["snapshot"], "env_steps": row["env_steps"], **score})
        on_snapshot(rows[-1])
    expert, medium = choose([row["return"] for row in rows])
    name = Path(rows[expert]["file"]).name
    export_policy(run, out, snapshot=name)
    save_model(out, load_tensors(out / SNAPSHOTS / name)[0])
    listed = {
        "protocol": {
            "env": experiment.env,
            "episodes": episodes,
            "seed": seed,
            "policy": "stochastic, weights in half precision",
            "commit": current_commit(),
            "hardware": hardware(),
        },
        "recipe": experiment.name,
        "random_steps": experiment.online.random_steps,
        "expert": rows[expert]["file"],
        "medium": rows[medium]["file"],
        "snapshots": rows,
    }
    write_json(out / LIST, listed)
    return listed


def choose(returns: Sequence[float]) -> tuple[int, int]:
    """Indices of the expert and of the medium among snapshots in the order of training.

    Raises ValueError if the first snapshot is the best: nothing comes before it.
    """
    expert = int(np.argmax(returns))
    if not expert:
        raise ValueError(
            "the first snapshot earns most, so none before it can be the medium one; train longer"
        )
    earlier = np.asarray(returns[:expert])
    return expert, int(np.argmin(np.abs(earlier - MEDIUM_SHARE * returns[expert])))


def _write_snapshots(run: Path, out: Path, names: Sequence[str]) -> None:
    (out / SNAPSHOTS).mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text((run / "config.json").read_text())
    for name in names:
        tensors, _ = load_tensors(run / name)
        half = {k: v.half() if k.startswith("policy.") else v for k, v in tensors.items()}
        save_tensors(out / name, half, {"format": "pt"})


def _score(policy: Explorer, experiment: Any, episodes: int, seed: int) -> dict[str, Any]:
    result = evaluate(StochasticPolicy(policy), experiment.env, episodes, seed, n_parallel=episodes)
    mean, low, high = mean_and_interval([episode["return"] for episode in result.episodes])
    return {
        "return": round(mean, 3),
        "interval": [round(low, 3), round(high, 3)] if episodes > 1 else None,
        "score": round(result.score["mean"], 3),
        "length": float(np.mean([episode["steps"] for episode in result.episodes])),
    }
