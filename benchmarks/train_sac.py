"""Soft actor-critic on Hopper: environment-and-update steps per second, ours beside a library's.

    python benchmarks/train_sac.py --sb3-python VENV/bin/python [--rounds 12] [--steps 150]

Stable-Baselines3's default SAC (two hidden layers of 256, batches of 256, one update an environment
step) and ours with the same settings, each in a process of its own with one thread, in turn. Times
are of the process's own CPU, so that a busy machine does not favor whoever ran while it was idle;
wall-clock times are printed beside. VENV is one with benchmarks/requirements-sb3.txt installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

START = 1_000  # random steps before the first update


def start_ours() -> Callable[[int], None]:
    """The loop of ``forethought train sac/hopper`` at the library's settings."""
    from dataclasses import replace

    import gymnasium
    import torch

    import forethought.envs  # noqa: F401  registers the environments
    from forethought.agents.sac import SACConfig
    from forethought.collector import Collector
    from forethought.config import OnlineConfig
    from forethought.online import _Session
    from forethought.progress import TrainProgress
    from forethought.recipes.sac import sac_experiment

    torch.manual_seed(0)
    experiment = sac_experiment(
        "hopper", SACConfig(), OnlineConfig(random_steps=START), steps=10**9
    )
    collector = Collector(lambda: gymnasium.make("Hopper-v5"), 1, 0)
    out = Path(tempfile.mkdtemp())
    model = experiment.model.build(collector.spaces)
    experiment = replace(experiment, train=replace(experiment.train, batch_size=256))
    session = _Session(experiment, model, collector, out)
    progress = TrainProgress(out, first=0, total=10**9)

    def run(steps: int) -> None:
        for _ in range(steps):
            session.collect()
            while session.run.step < session.updates_due():
                session.learn(progress)

    return run


def start_sb3() -> Callable[[int], None]:
    """The library's own loop."""
    from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    model = SAC("MlpPolicy", "Hopper-v5", seed=0, device="cpu", learning_starts=START)

    def run(steps: int) -> None:
        model.learn(steps, reset_num_timesteps=False)

    return run


def serve(name: str) -> None:
    """Answer each line "n" on stdin with the seconds that n steps took: [CPU, wall]."""
    import torch

    torch.set_num_threads(1)
    run = {"ours": start_ours, "sb3": start_sb3}[name]()
    run(START + 50)
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        run(int(line))
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sb3-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--worker", choices=["ours", "sb3"])
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker)
        return
    pythons = {"sb3": arguments.sb3_python, "ours": sys.executable}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = {}
    for name, python in pythons.items():
        command = [python, __file__, "--worker", name]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        assert workers[name].stdout.readline() == "ready\n", f"{name} did not start"
    times: dict[str, list[list[float]]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.stdin.write(f"{arguments.steps}\n")
            worker.stdin.flush()
            times[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    for clock, label in enumerate(("CPU", "wall clock")):
        rates = {
            name: arguments.steps / statistics.median(pair[clock] for pair in pairs)
            for name, pairs in times.items()
        }
        ratios = [
            sb3[clock] / ours[clock] for sb3, ours in zip(times["sb3"], times["ours"], strict=True)
        ]
        print(
            f"{label}: Stable-Baselines3 {rates['sb3']:.1f} steps/s, ours {rates['ours']:.1f}; "
            f"ratio, round by round: median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
