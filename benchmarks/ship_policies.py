"""Rank the snapshots of a SAC run and write those that data sets are built from.

    python benchmarks/ship_policies.py runs/sac/hopper/seed0 pretrained/sac/hopper

Scores every snapshot with the policy that draws its actions, over 20 episodes: up to 400,000 steps
for twenty snapshots, about 3 minutes on one core. Then `forethought data build hopper-medium` and
its like rebuild the data. Works on an unfinished run too, with the snapshots it has.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from forethought.snapshots import EPISODES, SEED, ship_policies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="folder of a `forethought train sac/TASK`")
    parser.add_argument("out", type=Path, help="such as pretrained/sac/TASK")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def show(row: dict) -> None:
        text = f"return {row['return']:8.1f} {row['interval']}, length {row['length']:.0f}"
        print(f"{row['file']}  {text}", flush=True)

    listed = ship_policies(
        arguments.run,
        arguments.out,
        episodes=arguments.episodes,
        seed=arguments.seed,
        on_snapshot=show,
    )
    print(f"expert {listed['expert']}, medium {listed['medium']}, written to {arguments.out}")


if __name__ == "__main__":
    main()
