"""Learning curves on Pendulum: our soft actor-critic beside Stable-Baselines3's, same settings.

    python benchmarks/check_sac.py --sb3-python VENV/bin/python [--seeds 3] [--steps 4000]

Two layers of 64, batches of 64, step size 1e-3, 500 random steps, then one update a step; evaluated
on the same ten starts with the deterministic policy. Writes results/check-sac.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ENV, RANDOM_STEPS, EVERY, EPISODES, SEED = "Pendulum-v1", 500, 500, 10, 1_000
WIDTH, BATCH, RATE = 64, 64, 1e-3


def run_sb3(seed: int, steps: int) -> list[float]:
    """Mean returns at every 500 steps after the random ones, by the library."""
    import gymnasium
    import torch
    from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    model = SAC(
        "MlpPolicy",
        ENV,
        seed=seed,
        device="cpu",
        learning_rate=RATE,
        learning_starts=RANDOM_STEPS,
        batch_size=BATCH,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
    )
    env = gymnasium.make(ENV)
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(SEED).spawn(EPISODES)]
    model.learn(RANDOM_STEPS)
    curve = []
    for _ in range(steps // EVERY):
        model.learn(EVERY, reset_num_timesteps=False)
        total = 0.0
        for episode_seed in seeds:  # those of forethought.rollout
            observation, _ = env.reset(seed=episode_seed)
            truncated = False
            while not truncated:
                action, _ = model.predict(observation, deterministic=True)
                observation, reward, _, truncated, _ = env.step(action)
                total += float(reward)
        curve.append(total / EPISODES)
    return curve


def run_ours(seed: int, steps: int) -> list[float]:
    """The same by ``forethought train``'s loop."""
    from dataclasses import replace

    import torch

    from forethought.agents.sac import SACConfig
    from forethought.config import OnlineConfig
    from forethought.online import train_online
    from forethought.recipes.sac import sac_experiment

    torch.set_num_threads(1)
    online = OnlineConfig(
        random_steps=RANDOM_STEPS,
        evaluate_every=EVERY,
        evaluation_episodes=EPISODES,
        evaluation_seed=SEED,
        snapshots=0,
    )
    model = SACConfig(width=WIDTH)
    experiment = sac_experiment("pendulum", model, online, steps=steps, learning_rate=RATE)
    train = replace(experiment.train, seed=seed, batch_size=BATCH)
    experiment = replace(experiment, env=ENV, train=train)
    with tempfile.TemporaryDirectory() as out:
        train_online(experiment, Path(out))
        rows = json.loads((Path(out) / "curve.json").read_text())["rows"]
    return [row["return"] for row in rows if row["env_steps"] > RANDOM_STEPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sb3-python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--out", type=Path, default=Path("results/check-sac.json"))
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "SEED"))
    arguments = parser.parse_args()
    if arguments.worker:
        run = {"sb3": run_sb3, "ours": run_ours}[arguments.worker[0]]
        print("\n" + json.dumps(run(int(arguments.worker[1]), arguments.steps)))
        return
    curves: dict[str, list[list[float]]] = {"sb3": [], "ours": []}
    for seed in range(arguments.seeds):
        for name, python in (("sb3", arguments.sb3_python), ("ours", sys.executable)):
            command = [python, __file__, "--worker", name, str(seed), "--steps"]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            done = subprocess.run(
                [*command, str(arguments.steps)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            curves[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, seed, [round(value) for value in curves[name][-1]], flush=True)
    steps = [RANDOM_STEPS + EVERY * (k + 1) for k in range(arguments.steps // EVERY)]
    for index, step in enumerate(steps):
        for name, runs in curves.items():
            values = np.array([run[index] for run in runs])
            error = values.std(ddof=1) / np.sqrt(len(values))
            print(f"{step} steps, {name}: {values.mean():.0f} ± {error:.0f} (standard error)")
    protocol = {
        "env": ENV,
        "random_steps": RANDOM_STEPS,
        "learning_rate": RATE,
        "batch_size": BATCH,
        "width": WIDTH,
        "evaluation": f"{EPISODES} episodes, deterministic, seed {SEED}",
        "libraries": "stable-baselines3 2.9.2, torch 2.13.0",
    }
    data = {"protocol": protocol, "env_steps": steps, "returns": curves}
    arguments.out.write_text(json.dumps(data) + "\n")


if __name__ == "__main__":
    main()
