"""PPO from Stable-Baselines3 on a Chapter 3 task: a learning curve for the study figure-3-5.

    python benchmarks/baselines/train_ppo.py pendulum 0 [--steps 5000] [--every 250]

writes results/baselines/ppo-pendulum-seed0.json, in the form of ``forethought train``'s curve.json:
the mean return of ten deterministic episodes, on the same starts as the other methods', at every
``--every`` environment steps. Needs the environment of benchmarks/requirements-sb3.txt and
forethought's ``src`` on PYTHONPATH.

Settings are the library's defaults but for what RL Baselines3 Zoo has for Pendulum-v1 (SETTINGS),
with one environment in place of four, so that it learns after every 1,024 steps and not 4,096.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]

import forethought.envs  # noqa: F401  (registers the environments)

EPISODES, EVALUATION_SEED = 10, 1_000
SETTINGS: dict[str, dict[str, Any]] = {
    "pendulum": {
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "learning_rate": 1e-3,
        "n_steps": 1_024,
        "use_sde": True,
        "sde_sample_freq": 4,
    },
}


class Curve(BaseCallback):
    """Evaluates on fixed starts and keeps a row each time."""

    def __init__(self, env_id: str, every: int) -> None:
        super().__init__()
        self.env, self.every = gymnasium.make(env_id), every
        children = np.random.SeedSequence(EVALUATION_SEED).spawn(EPISODES)
        self.seeds = [int(child.generate_state(1)[0]) for child in children]
        self.rows: list[dict[str, Any]] = []
        self.seconds, self.clock = 0.0, time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            self.seconds += time.perf_counter() - self.clock
            self.rows.append(self._row())
            self.clock = time.perf_counter()
        return True

    def _row(self) -> dict[str, Any]:
        returns, lengths = [], []
        for seed in self.seeds:
            observation, _ = self.env.reset(seed=seed)
            total, length, over = 0.0, 0, False
            while not over:
                action, _ = self.model.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = self.env.step(action)
                total, length, over = total + float(reward), length + 1, terminated or truncated
            returns.append(total)
            lengths.append(length)
        return {
            "env_steps": self.num_timesteps,
            "seconds": round(self.seconds, 1),
            "return": float(np.mean(returns)),
            "returns": [round(value, 3) for value in returns],
            "length": float(np.mean(lengths)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--out", type=Path, default=Path("results/baselines"))
    arguments = parser.parse_args()
    file = arguments.out / f"ppo-{arguments.task}-seed{arguments.seed}.json"
    if file.exists():
        print(f"{file} is there already")
        return
    torch.set_num_threads(1)
    env_id = f"forethought/{arguments.task}-v0"
    settings = SETTINGS.get(arguments.task, {})
    model = PPO("MlpPolicy", env_id, seed=arguments.seed, device="cpu", **settings)
    curve = Curve(env_id, arguments.every)
    model.learn(arguments.steps, callback=curve)
    data = {
        "kind": "curve",
        "recipe": f"ppo/{arguments.task}, Stable-Baselines3 2.9.2",
        "protocol": {
            "env": env_id,
            "episodes": EPISODES,
            "seed": EVALUATION_SEED,
            "policy": "deterministic (the mode)",
            "training_seed": arguments.seed,
            "settings": settings,
            "seconds": "of training, without evaluation",
        },
        # PPO learns from whole rollouts, so it takes more steps than it was asked for
        "rows": [row for row in curve.rows if row["env_steps"] <= arguments.steps],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(arguments.task, arguments.seed, [round(row["return"]) for row in data["rows"]])


if __name__ == "__main__":
    main()
