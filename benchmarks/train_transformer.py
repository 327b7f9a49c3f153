"""Training throughput of the Trajectory Transformers beside a plain one (fp32, unfused attention).

    python benchmarks/train_transformer.py [--threads 2] [--rounds 7] [--windows 20,10] [--compile]

The thesis's network (4 layers, 4 heads, width 128, 100 bins) on hopper's sizes, 16 tokens a
transition, settings otherwise those of ``transformer/hopper-medium-flat``; weights, then losses, of
the plain model (``plain_gpt.py``) are checked to be the same. All train in turn, round by round, in
one process, on made-up data: time does not depend on them. Ours encodes its batches and averages
its weights within the time; the plain loop is given tokens. The factored model of the same size
stands beside them; its ratio is that of tokens, not of the same network.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from plain_gpt import PlainTransformer

from forethought.checkpoint import hardware
from forethought.config import Experiment, TrainConfig
from forethought.data.episodes import EpisodeDataset
from forethought.models.transformer import TrajectoryTransformer
from forethought.registry import recipes
from forethought.training import TrainingRun, resolve_precision

THESIS_SIZE = {"depth": 4, "heads": 4, "width": 128, "n_bins": 100}
FLAT, FACTORED = "transformer/hopper-medium-flat", "transformer/hopper-medium"
WARM_UP = 2  # steps
TOKENS = 5_120  # of a batch: 16 windows of 20 transitions
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def made_up_data(seed: int = 0) -> EpisodeDataset:
    """Thirty random walks of hopper's sizes: 11 observations, 3 actions."""
    generator, episodes, length = np.random.default_rng(seed), 30, 401
    rows = episodes * length
    steps = generator.normal(size=(rows, 11)).astype(np.float32)
    return EpisodeDataset(
        np.cumsum(0.1 * steps, axis=0),
        generator.uniform(-1, 1, size=(rows, 3)).astype(np.float32),
        generator.normal(size=rows).astype(np.float32),
        np.arange(0, rows + 1, length),
        np.arange(episodes) % 2 == 0,
    )


def experiment_of(recipe: str, window: int, precision: str = "fp32") -> Experiment:
    """A recipe at the thesis's size, in batches of ``TOKENS`` tokens."""
    experiment = recipes[recipe]()
    sizes = THESIS_SIZE | ({} if recipe.endswith("-flat") else {"head_width": 128})
    model = replace(experiment.model, context=5, horizon=window - 5, **sizes)
    train = replace(experiment.train, batch_size=TOKENS // (16 * window), precision=precision)
    return Experiment(name=recipe, dataset="", env="", model=model, train=train)


def our_loop(experiment: Experiment, dataset: EpisodeDataset, compiled: bool) -> Iterator[None]:
    """The step of ``forethought train``."""
    torch.manual_seed(0)
    model = experiment.model.build(dataset.spaces)
    model.fit_statistics(dataset)
    run, view = TrainingRun(model, experiment.train), experiment.model.view(dataset)
    loss_function = torch.compile(model) if compiled else model
    while True:
        run.advance(loss_function, view)
        yield


def plain_loop(experiment: Experiment, dataset: EpisodeDataset, steps: int) -> Iterator[None]:
    """The loop anyone would write first, on the same batches, which are encoded beforehand."""
    torch.manual_seed(0)
    model = experiment.model.build(dataset.spaces)
    assert isinstance(model, TrajectoryTransformer), "the plain model is a flat one"
    model.fit_statistics(dataset)
    plain, view, train = PlainTransformer(model), experiment.model.view(dataset), experiment.train
    order, size = np.random.default_rng(train.seed), train.batch_size
    batches = [view[order.integers(len(view), size=size)] for _ in range(steps)]
    check_losses(model, plain, batches[0])
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=train.learning_rate, betas=train.betas, foreach=False, fused=False
    )
    for tokens, weight in [model.targets(batch) for batch in batches]:
        loss = plain(tokens, weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), train.max_gradient_norm, foreach=False)
        optimizer.step()
        yield


@torch.no_grad()
def check_losses(model: TrajectoryTransformer, plain: PlainTransformer, batch) -> None:  # noqa: ANN001
    """The comparison is one of the same function: equal losses, without dropout."""
    model.eval(), plain.eval()
    torch.testing.assert_close(plain(*model.targets(batch)), model.loss(batch)[0])
    model.train(), plain.train()


def our_variants(wants_compiled: bool) -> list[tuple[str, str, bool]]:
    """Label, precision and whether it is compiled, of what this machine can run."""
    variants = [("", "fp32", False)]
    native = resolve_precision(TrainConfig(), torch.device("cpu")) == "bf16"
    if native:
        variants.append((", bf16", "bf16", False))
    else:
        print("bf16 is left out: this processor has no instructions for it")
    if wants_compiled:
        variants += [(f"{label}, compiled", kind, True) for label, kind, _ in variants]
    else:
        print("compile is left out: it takes minutes before the first step; --compile asks for it")
    return variants


def loops_of(
    window: int, dataset: EpisodeDataset, variants: list[tuple[str, str, bool]], steps: int
) -> dict[str, Iterator[None]]:
    """The loops to compare, by name."""
    loops = {"plain": plain_loop(experiment_of(FLAT, window), dataset, steps)}
    for name, recipe in (("flat", FLAT), ("factored", FACTORED)):
        for label, precision, compiled in variants:
            experiment = experiment_of(recipe, window, precision)
            loops[name + label] = our_loop(experiment, dataset, compiled)
    return loops


def time_rounds(
    loops: dict[str, Iterator[None]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each loop's steps, one a round, after two that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for done in range(rounds + WARM_UP):
        for name, loop in loops.items():
            began = clock()
            next(loop)
            if done >= WARM_UP:
                seconds[name].append(clock() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput of the transformers.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", default="20,10", help="transitions of a window")
    parser.add_argument("--compile", action="store_true", help="also compiled; takes minutes")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{hardware()}, {arguments.threads} threads, {arguments.clock} time")
    variants, dataset = our_variants(arguments.compile), made_up_data()
    for window in map(int, arguments.windows.split(",")):
        loops = loops_of(window, dataset, variants, arguments.rounds + WARM_UP)
        seconds = time_rounds(loops, arguments.rounds, CLOCKS[arguments.clock])
        print(f"windows of {window} transitions, {TOKENS // (16 * window)} a batch:")
        for name, times in seconds.items():
            ratios = [p / o for p, o in zip(seconds["plain"], times, strict=True)]
            print(
                f"  {name:24} {TOKENS / statistics.median(times):8.0f} tokens/s, "
                f"{statistics.median(ratios):5.2f} times the plain one "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
