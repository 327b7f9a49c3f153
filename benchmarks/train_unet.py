"""Training throughput of the thesis's maze U-Net: our loop beside a plain eager fp32 loop.

    python benchmarks/train_unet.py [--horizon 128] [--steps 8]

Same network, batch, threads and loss; the two run in turn, step by step, on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from forethought.checkpoint import hardware
from forethought.datasets.maze import build_maze
from forethought.models.schedules import cosine_alpha_bar
from forethought.nn.unet1d import TemporalUnet
from forethought.registry import recipes
from forethought.training import TrainingRun

BATCH = 64


def plain_loop(view, horizon: int):  # noqa: ANN001, ANN201
    """The loop anyone would write first: fp32, eager, Adam. Yields after every step."""
    network = TemporalUnet(6, 6, dim=32, dim_mults=(1, 4, 8))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    alpha_bar = cosine_alpha_bar(64).float()
    while True:
        batch = view[torch.randint(len(view), (BATCH,)).numpy()]
        x = torch.cat([batch.observations, batch.actions], dim=-1)
        level = torch.randint(64, (BATCH,))
        signal = alpha_bar[level][:, None, None]
        noisy = signal.sqrt() * x + (1 - signal).sqrt() * torch.randn_like(x)
        loss = (network(noisy, level) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def our_loop(view, dataset, precision: str):  # noqa: ANN001, ANN201
    """The step of ``forethought train`` on the released recipe."""
    experiment = recipes["diffuser/maze-umaze-released"]()
    config = replace(experiment.model, cut="none", horizon=view.horizon)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    run = TrainingRun(model, replace(experiment.train, batch_size=BATCH, precision=precision))
    print(f"our precision: {run.precision}")
    while True:
        run.advance(model, view)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizon", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    arguments = parser.parse_args()
    print(hardware())
    dataset = build_maze("umaze", seed=0, n_steps=20_000)
    config = replace(
        recipes["diffuser/maze-umaze-released"]().model, cut="none", horizon=arguments.horizon
    )
    view = config.view(dataset)
    loops = {
        "plain": plain_loop(view, arguments.horizon),
        "ours": our_loop(view, dataset, arguments.precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(arguments.steps + 2):
        for name, loop in loops.items():
            began = time.perf_counter()
            next(loop)
            if step >= 2:  # warm-up
                seconds[name].append(time.perf_counter() - began)
    rates = {name: BATCH / statistics.median(times) for name, times in seconds.items()}
    ratios = [p / o for p, o in zip(seconds["plain"], seconds["ours"], strict=True)]
    print(
        f"horizon {arguments.horizon}: plain {rates['plain']:.0f} windows/s, ours "
        f"{rates['ours']:.0f}"
    )
    print(
        f"ratio, step by step: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
