"""Model-free baselines from d3rlpy in our mazes: train on our data, score on our starts.

    python benchmarks/baselines/train_d3rlpy.py awac umaze

reads ``data/maze-umaze``, scores a snapshot after every tenth of the updates on starts that no
table uses, and writes the row of Table 5.1 to ``results/baselines/awac-maze2d-umaze.json``. It goes
on where it was if it is killed, and does nothing if the row is there. Needs the environment of
``benchmarks/baselines/requirements.txt``.

Settings are those that CORL publishes for Maze2D (arXiv 2210.07105: AWAC, CQL, SAC-N; ReBRAC is of
arXiv 2305.09836), but for what one core cannot pay for; what differs is in ``DEPARTURES`` and in
every row.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.dataset import TransitionMiniBatch
from torch import Tensor

import forethought.envs  # noqa: F401  (registers the mazes)
from forethought.checkpoint import current_commit, hardware, write_json
from forethought.rollout import evaluate
from forethought.studies.rows import BASELINES, row_file, row_of, write_row

BATCH = 128
CURVE_EPISODES, CURVE_SEED = 100, 1_000  # as for IQL
UPDATES = {"awac": 30_000, "rebrac": 30_000, "sac-n": 8_000, "cql": 5_000}
LABELS = {"awac": "AWAC", "rebrac": "ReBRAC", "sac-n": "SAC-N", "cql": "CQL"}
DEPARTURES = {
    "awac": "batch 128 instead of 256",
    "rebrac": "batch 128 instead of 256",
    "sac-n": "10 critics instead of 20 (25 in Large), batch 128 instead of 256",
    "cql": "2 hidden layers instead of 3 in U-Maze, 4 sampled actions instead of 10, batch 128 "
    "instead of 256",
}


class Transitions:
    """Steps of a data-set folder, gathered straight from its arrays."""

    def __init__(self, folder: Path) -> None:
        names = ("observations", "actions", "rewards", "starts", "terminated")
        arrays = {name: np.load(folder / f"{name}.npy") for name in names}
        self.observations, self.actions = arrays["observations"], arrays["actions"]
        self.rewards = arrays["rewards"]
        ends = arrays["starts"][1:] - 1  # an episode's last observation has no action
        self.rows = np.delete(np.arange(len(self.observations)), ends)
        self.terminals = np.zeros(len(self.observations), np.float32)
        self.terminals[ends - 1] = arrays["terminated"]

    def batch(self, generator: np.random.Generator) -> TransitionMiniBatch:
        """Uniformly drawn steps."""
        rows = self.rows[generator.integers(len(self.rows), size=BATCH)]
        return TransitionMiniBatch(
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows, None],
            next_observations=self.observations[rows + 1],
            next_actions=self.actions[rows + 1],
            terminals=self.terminals[rows, None],
            intervals=np.ones((BATCH, 1), np.float32),
            transitions=[],
        )


class GreedyPolicy:
    """The algorithm's best action at every step."""

    def __init__(self, algo: Any) -> None:
        self._algo = algo

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        """Nothing to forget."""

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        return torch.from_numpy(self._algo.predict(observation.numpy()))


def make_algorithm(name: str, layout: str, data: Transitions) -> Any:
    """The algorithm at its published settings (see the module's first lines), untrained."""
    config = configure(name, layout, data)
    algo = config.create(device=False)
    algo.create_impl((data.observations.shape[1],), data.actions.shape[1])
    return algo


def configure(name: str, layout: str, data: Transitions) -> Any:
    """d3rlpy's settings of one of ``UPDATES``."""
    networks = d3rlpy.models.VectorEncoderFactory
    flat, deep = networks([256, 256]), networks([256, 256, 256])
    scaler = d3rlpy.preprocessing.StandardObservationScaler(
        mean=data.observations.mean(axis=0, dtype=np.float64).astype(np.float32),
        std=data.observations.std(axis=0, dtype=np.float64).astype(np.float32),
    )
    common = {"batch_size": BATCH, "gamma": 0.99, "tau": 0.005, "critic_learning_rate": 3e-4}
    same_depth = {"actor_encoder_factory": deep, "critic_encoder_factory": deep}
    if name == "awac":
        return d3rlpy.algos.AWACConfig(
            **common, **same_depth, lam=0.1, actor_learning_rate=3e-4, observation_scaler=scaler
        )
    if name == "rebrac":
        return d3rlpy.algos.ReBRACConfig(
            **common,
            actor_beta=0.003,
            critic_beta=0.001,
            actor_learning_rate=3e-4,
            actor_encoder_factory=deep,
            critic_encoder_factory=networks([256, 256, 256], use_layer_norm=True),
        )
    if name == "sac-n":
        return d3rlpy.algos.SACConfig(
            **common, **same_depth, n_critics=10, actor_learning_rate=3e-4, temp_learning_rate=3e-4
        )
    return d3rlpy.algos.CQLConfig(
        **common,
        conservative_weight=10.0,
        n_action_samples=4,
        alpha_threshold=5.0,
        alpha_learning_rate=3e-4 if layout == "large" else 0.0,  # a multiplier in Large only
        actor_learning_rate=3e-5,
        temp_learning_rate=3e-5,
        observation_scaler=scaler,
        actor_encoder_factory=flat,
        critic_encoder_factory=flat,
    )


def train_with_curve(
    algo: Any, data: Transitions, env_id: str, *, marks: Sequence[int], seed: int, out: Path
) -> dict[str, Any]:
    """Train to the last of ``marks``, scoring at each; returns the curve and the seconds taken."""
    out.mkdir(parents=True, exist_ok=True)
    file, weights, done = out / "curve.json", out / "model.pt", 0
    state: dict[str, Any] = {"curve": [], "seconds": 0.0}
    if file.is_file() and weights.is_file():
        state = json.loads(file.read_text())
        algo.load_model(str(weights))
        done = state["curve"][-1]["updates"]
    for mark in [mark for mark in marks if mark > done]:
        generator, began = np.random.default_rng([seed, done]), time.perf_counter()
        for _ in range(mark - done):
            algo.update(data.batch(generator))
        state["seconds"] += time.perf_counter() - began
        result = evaluate(GreedyPolicy(algo), env_id, CURVE_EPISODES, CURVE_SEED, n_parallel=50)
        state["curve"].append(
            {"updates": mark, "score": result.score, "success_rate": result.success_rate}
        )
        algo.save_model(str(weights))
        write_json(file, state)
        print(f"{out.name}: {mark:,} updates, score {result.score['mean']:.1f}", flush=True)
        done = mark
    return state


def train_and_score(args: argparse.Namespace, file: Path) -> None:
    """Train one algorithm in one maze and write its row."""
    torch.set_num_threads(1)
    d3rlpy.seed(args.seed)
    updates = args.updates or UPDATES[args.algorithm]
    folder = args.data or Path("data") / f"maze-{args.layout}"
    data, env_id = Transitions(folder), f"forethought/maze2d-{args.layout}-v0"
    algo = make_algorithm(args.algorithm, args.layout, data)
    marks = sorted({updates * k // 10 for k in range(1, 11)})
    out = args.runs / f"{args.algorithm}-{args.layout}-seed{args.seed}"
    state = train_with_curve(algo, data, env_id, marks=marks, seed=args.seed, out=out)
    facts = json.loads((folder / "dataset.json").read_text())
    protocol = {
        "library": f"d3rlpy {d3rlpy.__version__}",
        "departures": DEPARTURES[args.algorithm],
        "controller": "the model's own actions",
        "train_updates": updates,
        "train_seconds": round(state["seconds"], 1),
        "train_seed": args.seed,
        "train_seeds": 1,
        "batch_size": BATCH,
        "dataset": {"name": f"maze-{args.layout}", "fingerprint": facts["fingerprint"]},
        "command": shlex.join(["python", *sys.argv]),
        "commit": current_commit(),
        "made": date.today().isoformat(),
        "hardware": hardware(),
    }
    policy = GreedyPolicy(algo)
    result = evaluate(policy, env_id, args.episodes, 0, n_parallel=50, protocol=protocol)
    write_row(file, row_of(LABELS[args.algorithm], result, curve=state["curve"]))
    print(f"{file}: score {result.score['mean']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=sorted(UPDATES))
    parser.add_argument("layout", choices=("umaze", "medium", "large"))
    parser.add_argument("--data", type=Path, help="data-set folder; default data/maze-LAYOUT")
    parser.add_argument("--updates", type=int, help="default: see UPDATES")
    parser.add_argument("--episodes", type=int, default=400, help="of the final evaluation")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--out", type=Path, default=BASELINES)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies/d3rlpy"))
    args = parser.parse_args()
    file = row_file(args.out, args.algorithm, f"maze2d-{args.layout}")
    if file.is_file():
        print(f"{file} is there already")
    else:
        train_and_score(args, file)


if __name__ == "__main__":
    main()
