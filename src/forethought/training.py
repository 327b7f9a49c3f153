"""One training loop for every learner: draw indices, descend the loss, average the weights, save.

Randomness is two generators, one for the data order and one for the noise in the loss; their states
are saved with the weights and moments, so a run that is killed at any instant and resumed ends with
the same bits on a CPU as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forethought.checkpoint import (
    TRAIN_STATE,
    hardware,
    load_config,
    load_tensors,
    save_config,
    save_model,
    save_tensors,
    write_json,
)
from forethought.config import Experiment, TrainConfig, to_json
from forethought.data.episodes import EpisodeDataset
from forethought.data.views import View
from forethought.models.base import Model
from forethought.progress import TrainProgress


class TrainingInterrupted(Exception):
    """Raised after Ctrl-C or SIGTERM, once the state is saved."""


def train_experiment(
    experiment: Experiment,
    dataset: EpisodeDataset,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    resume: bool = False,
) -> Model:
    """Build the experiment's model, fit its statistics, train it, leave a checkpoint in ``out``.

    Raises ValueError if it resumes with other settings, another seed or other data.
    """
    if resume and (out / TRAIN_STATE).exists():
        check_same_run(experiment, out)
        check_same_data(dataset, out)
    torch.manual_seed(experiment.train.seed)
    view = experiment.model.view(dataset)
    model = experiment.model.build(dataset.spaces)
    model.fit_statistics(dataset)
    facts = {"name": experiment.dataset, "fingerprint": dataset.fingerprint, **dataset.metadata}
    save_config(out, experiment, dataset.spaces, dataset=facts, seed=experiment.train.seed)
    return train(model.to(device), view, experiment.train, out, resume=resume)


def train(
    model: Model, view: View, config: TrainConfig, out: Path, *, resume: bool = False
) -> Model:
    """Train ``model`` on batches of ``view``; returns it with the averaged weights, to be used.

    Writes ``model.safetensors`` (averaged), ``train_state.safetensors``, ``metrics.jsonl``,
    TensorBoard events and ``training.json`` into ``out``. Raises FloatingPointError if the loss
    stops being finite (the last good state is kept) and TrainingInterrupted after Ctrl-C.
    """
    model.train()
    out.mkdir(parents=True, exist_ok=True)
    for scratch in out.glob(".*.tmp"):  # of an attempt that was killed while it wrote
        scratch.unlink()
    run = TrainingRun(model, config)
    if resume and (out / TRAIN_STATE).exists():
        run.restore(out / TRAIN_STATE)
        save_model(out, run.averaged_state())  # the kill may have come between the two files
    loss_function = torch.compile(model) if config.compile else model
    with (
        stop_requests() as stop,
        TrainProgress(out, first=run.step, total=config.steps) as progress,
    ):
        clock = time.perf_counter()
        while run.step < config.steps:
            run.advance(loss_function, view)
            done = run.step == config.steps
            if run.step % config.log_every == 0 or done:
                metrics = run.take_metrics()
                progress.log(run.step, metrics)
                if not all(math.isfinite(value) for value in metrics.values()):
                    raise FloatingPointError(diverged(run.step, out))
            progress.advance()
            if run.step % config.save_every == 0 or done or stop.requested:
                now = time.perf_counter()
                run.seconds, clock = run.seconds + now - clock, now
                run.save(out)
            if stop.requested and not done:
                raise TrainingInterrupted(f"stopped at step {run.step} of {config.steps}")
    write_json(out / "training.json", run.summary())
    model.load_state_dict(run.averaged_state())
    return model.eval()


def check_same_run(experiment: Experiment, out: Path) -> None:
    """Refuse to resume with another model or seed: the saved state would not fit, or would win."""
    begun: Experiment = load_config(out)["experiment"]
    now, then = to_json(experiment.model), to_json(begun.model)
    now["seed"], then["seed"] = experiment.train.seed, begun.train.seed
    for name in now:
        if now[name] != then.get(name):
            flag = f"--train.{name}" if name == "seed" else f"--model.{name}"
            raise ValueError(
                f"{flag} is {now[name]}; the run in {out} was begun with {then.get(name)}. "
                "Resume with that, or train anew into another --out"
            )


def check_same_data(dataset: EpisodeDataset, out: Path) -> None:
    """Refuse to go on with other data: normalizers and bins are those of the data before."""
    config = load_config(out)
    if dataset.spaces != config["spaces"]:
        raise ValueError(
            f"the data set has {dataset.spaces}; the checkpoint in {out} was trained on "
            f"{config['spaces']}"
        )
    if dataset.fingerprint != config["dataset"]["fingerprint"]:
        raise ValueError(
            f"{out} holds a model of other data (fingerprint {config['dataset']['fingerprint']}; "
            f"this data set has {dataset.fingerprint}); resume with that one, or start anew in "
            "another folder"
        )


def time_steps(
    experiment: Experiment,
    dataset: EpisodeDataset,
    *,
    n_steps: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds per training step on this machine, measured on a throwaway model.

    clock: of wall time; ``time.process_time`` counts what other programs do not take
    """
    model = experiment.model.build(dataset.spaces)
    model.fit_statistics(dataset)
    run, view = TrainingRun(model, experiment.train), experiment.model.view(dataset)
    run.advance(model, view)
    began = clock()
    for _ in range(n_steps):
        run.advance(model, view)
    return (clock() - began) / n_steps


class TrainingRun:
    """A training run's mutable state: weights, moments, average, generators, step."""

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self.model, self.config = model, config
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(config, self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            model.parameter_groups(config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        averaged = self.parameters if config.ema_decay else []  # else the weights themselves plan
        self.average = [p.detach().clone() for p in averaged]
        self.order = np.random.default_rng(config.seed)
        self.noise = torch.Generator(self.device).manual_seed(config.seed)
        self.totals: dict[str, Tensor] = {}  # of metrics since they were last logged
        self.summed = 0
        self.step = 0
        self.seconds = 0.0

    def advance(self, loss_function: Any, view: View) -> None:
        """One optimizer step; its metrics are added to the totals."""
        config = self.config
        batch = view[self.order.integers(len(view), size=config.batch_size)].to(self.device)
        factor = learning_rate_factor(config, self.step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        with _autocast(self.device, self.precision):
            loss, metrics = loss_function(batch, self.noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.max_gradient_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.max_gradient_norm, foreach=True)
        self.optimizer.step()
        self.model.after_step()
        self.step += 1
        self._update_average()
        self.summed += 1
        for name, value in {"loss": loss.detach(), **metrics}.items():
            self.totals[name] = self.totals.get(name, torch.zeros_like(value)) + value

    def take_metrics(self) -> dict[str, float]:
        """Mean of every metric since the last call."""
        means = {name: float(total) / self.summed for name, total in self.totals.items()}
        self.totals, self.summed = {}, 0
        return means

    @torch.no_grad()
    def _update_average(self) -> None:
        config = self.config
        if not self.average or self.step % config.ema_every:
            return
        early = self.step <= config.ema_start
        # a young average forgets faster, so that it does not remember the initial weights
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        weight = 1.0 if early else 1 - decay
        torch._foreach_lerp_(self.average, [p.data for p in self.parameters], weight)

    def averaged_state(self) -> dict[str, Tensor]:
        """The model's state dict with the averaged weights in it."""
        state = dict(self.model.state_dict())
        if not self.average:
            return state
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        return {**state, **dict(zip(names, self.average, strict=True))}

    def save(self, out: Path, more: dict[str, Any] | None = None) -> None:
        """Write the averaged model and everything needed to go on from here.

        more: JSON-able facts of a loop around this one, returned by ``restore``
        """
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            raise FloatingPointError(diverged(self.step, out))
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{i}": v for i, v in enumerate(self.average)}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors |= {f"totals.{name}": total for name, total in self.totals.items()}
        tensors["noise"] = self.noise.get_state()
        tensors["global_noise"] = torch.get_rng_state()  # drawn from by dropout
        facts = {
            "step": self.step,
            "summed": self.summed,
            "seconds": self.seconds,
            "precision": self.precision,
            "order": self.order.bit_generator.state,
            "tensors": len(tensors),
            "more": more,
        }
        save_tensors(out / TRAIN_STATE, tensors, {"run": json.dumps(facts)})
        save_model(out, self.averaged_state())

    def restore(self, file: Path) -> dict[str, Any]:
        """Continue from a saved state, return its facts; ValueError if it is not this model's."""
        tensors, metadata = load_tensors(file)
        try:
            facts = json.loads(metadata["run"])
            self._restore(tensors, facts)
            return facts
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{file} does not continue this run ({reason}); give the settings it was begun "
                "with, or train anew into another folder"
            ) from error

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if facts["tensors"] != len(tensors):
            raise ValueError(f"{len(tensors)} of {facts['tensors']} tensors found")
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.summed, self.totals = facts["summed"], _with_prefix(tensors, "totals.")
        if self.config.precision == "auto":  # what it meant where the run began
            self.precision = facts["precision"]
        self.order.bit_generator.state = facts["order"]
        self.noise.set_state(tensors["noise"])
        torch.set_rng_state(tensors["global_noise"])
        self.model.load_state_dict(_with_prefix(tensors, "model."))
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average.{i}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _with_prefix(tensors, "optimizer.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def summary(self) -> dict[str, Any]:
        """What ``training.json`` records."""
        return {
            "steps": self.step,
            "train_seconds": round(self.seconds, 1),
            "precision": self.precision,
            "parameters": sum(p.numel() for p in self.parameters),
            "hardware": hardware(),
        }


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Multiple of the learning rate: linear warm-up, then cosine decay to zero or constant."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return warm
    progress = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def resolve_precision(config: TrainConfig, device: torch.device) -> str:
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # without these instructions bf16 is emulated, more than ten times slower than fp32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if device.type == "cpu" and native else "fp32"


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def diverged(step: int, out: Path) -> str:
    return (
        f"training diverged at step {step}: the loss or a weight is not finite. What was saved "
        f"before is kept in {out}; lower train.learning_rate or check the data with `forethought "
        "data info`."
    )


class _StopFlag:
    requested = False


@contextlib.contextmanager
def stop_requests() -> Iterator[_StopFlag]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so no step is torn; a second one kills."""
    flag = _StopFlag()

    def request(*_: Any) -> None:
        flag.requested = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: leave the handlers alone
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, request)
    try:
        yield flag
    finally:
        restore()
