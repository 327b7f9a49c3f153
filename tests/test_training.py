"""Training: bit-equal resume, kills at any instant, stop requests, guards, schedule, averages."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forethought import training
from forethought.checkpoint import TRAIN_STATE, load_model, load_tensors
from forethought.config import Experiment, TrainConfig
from forethought.data.episodes import EpisodeDataset
from forethought.models.base import Model, SamplerConfig
from forethought.models.diffuser import DiffuserConfig
from forethought.planners.diffusion import DiffusionPlannerConfig
from forethought.training import (
    TrainingInterrupted,
    learning_rate_factor,
    train,
    train_experiment,
)
from forethought.types import Spaces, Trajectory

FAST = TrainConfig(
    steps=30,
    batch_size=4,
    learning_rate=1e-2,
    warmup_steps=5,
    weight_decay=1e-2,
    ema_decay=0.9,
    save_every=7,
    log_every=3,
)


class Tiny(Model):
    """A small regression with everything a run must save: noise, dropout, a buffer that moves."""

    moved: Tensor

    def __init__(self) -> None:
        super().__init__(Spaces(observation_dim=3, action_dim=0))
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.register_buffer("moved", torch.zeros(()))

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        return

    def loss(self, batch, generator=None):
        noise = torch.randn(batch.observations.shape, generator=generator)
        error = self.net(batch.observations + 0.1 * noise) - batch.observations.flip(-1)
        loss = error.square().mean()
        return loss, {"error": error.detach().abs().mean()}

    def after_step(self) -> None:
        self.moved.add_(self.net[0].weight.detach().sum())


class Rows:
    """A view of random rows; ``at_batch``: what happens at a batch, by its number from 1."""

    def __init__(self, at_batch=None) -> None:
        self.rows = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0))
        self.at_batch = at_batch or {}
        self.n_batches = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices) -> Trajectory:
        self.n_batches += 1
        batch = Trajectory(
            observations=self.rows[indices], actions=torch.zeros(len(indices), 2, 0), times=TIMES
        )
        event = self.at_batch.get(self.n_batches)
        return batch if event is None else event(batch)


TIMES = torch.arange(2)


@pytest.fixture(autouse=True)
def ordinary_interrupts():
    """A shell that runs the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(batch: Trajectory) -> Trajectory:
    signal.raise_signal(signal.SIGINT)
    return batch


def poison(batch: Trajectory) -> Trajectory:
    return replace(batch, observations=batch.observations * math.nan)


def run_tiny(out: Path, config: TrainConfig = FAST, *, at_batch=None, resume=False) -> Model:
    torch.manual_seed(0)
    return train(Tiny(), Rows(at_batch), config, out, resume=resume)


def rows_of(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


def assert_same_run(first: Path, second: Path) -> None:
    """Bit-equal weights, averages, moments, generators and metrics."""
    for name in (TRAIN_STATE, "model.safetensors"):
        ours, theirs = load_tensors(first / name)[0], load_tensors(second / name)[0]
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=0, atol=0, msg=f"{name}: {key}")
    orders = [json.loads(load_tensors(out / TRAIN_STATE)[1]["run"]) for out in (first, second)]
    assert [o["order"] for o in orders[:1]] == [o["order"] for o in orders[1:]]
    assert rows_of(first) == rows_of(second)


def test_a_model_learns_with_dropout_whatever_its_mode_and_comes_back_to_be_used(tmp_path):
    found = []
    for mode in (True, False):
        torch.manual_seed(0)
        model = train(Tiny().train(mode), Rows(None), FAST, tmp_path / str(mode))
        assert not model.training
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=0)


# ---------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stopped_at", [1, 7, 12, 29])
def test_interrupted_and_resumed_run_is_bit_equal(tmp_path, stopped_at):
    whole = run_tiny(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted, match=f"step {stopped_at} of 30"):
        run_tiny(tmp_path / "parts", at_batch={stopped_at: interrupt})
    parts = run_tiny(tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_returned_model_has_the_averaged_weights(tmp_path):
    model = run_tiny(tmp_path)
    saved, _ = load_tensors(tmp_path / "model.safetensors")
    torch.testing.assert_close(dict(model.state_dict()), saved, rtol=0, atol=0)
    raw, _ = load_tensors(tmp_path / TRAIN_STATE)
    assert not torch.equal(raw["model.net.0.weight"], saved["net.0.weight"])


def test_torn_last_line_of_metrics_is_dropped_on_resume(tmp_path):
    run_tiny(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        run_tiny(tmp_path / "parts", at_batch={10: interrupt})
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 11, "loss": 1.0}\n{"step": 12, "lo')
    run_tiny(tmp_path / "parts", resume=True)
    rows = rows_of(tmp_path / "parts")
    assert [row["step"] for row in rows] == list(range(3, 31, 3))
    assert rows == rows_of(tmp_path / "whole")


def test_resumed_finished_run_writes_its_weights_again(tmp_path):
    """A kill can come between the last training state and the last weights."""
    run_tiny(tmp_path)
    final = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(b"older")
    (tmp_path / ".model.safetensors.1.tmp").write_bytes(b"torn")
    run_tiny(tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == final
    assert not list(tmp_path.glob(".*.tmp"))


def test_fresh_run_forgets_the_metrics_of_one_killed_before_its_first_save(tmp_path):
    tmp_path.joinpath("metrics.jsonl").write_text('{"step": 3, "loss": 9.0}\n')
    run_tiny(tmp_path)
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(3, 31, 3))


def test_state_of_another_model_is_refused(tmp_path):
    run_tiny(tmp_path)
    tensors, metadata = load_tensors(tmp_path / TRAIN_STATE)
    other = nn.Linear(3, 9).weight.detach()
    training.save_tensors(tmp_path / TRAIN_STATE, tensors | {"model.net.0.weight": other}, metadata)
    with pytest.raises(ValueError, match="does not continue this run .* another folder"):
        run_tiny(tmp_path, resume=True)


@pytest.mark.parametrize("missing", ["noise", "average.0", "optimizer.0.exp_avg", "run"])
def test_incomplete_state_is_refused(tmp_path, missing):
    run_tiny(tmp_path)
    tensors, metadata = load_tensors(tmp_path / TRAIN_STATE)
    tensors = {k: v for k, v in tensors.items() if k != missing}
    metadata = {k: v for k, v in metadata.items() if k != missing}
    training.save_tensors(tmp_path / TRAIN_STATE, tensors, metadata)
    with pytest.raises(ValueError, match="does not continue this run"):
        run_tiny(tmp_path, resume=True)


# ------------------------------------------------------------------- kills at any instant

KILLS = 20
KILLED = Experiment(
    name="tiny",
    dataset="waves",
    env="forethought/maze2d-umaze-v0",
    model=DiffuserConfig(
        horizon=8,
        stride=2,
        actions="none",
        pad="repeat",
        denoising_steps=8,
        condition_in_training="start_and_goal_time",
        mark_pins=True,
        dim=8,
        dim_mults=(1, 2),
        blocks_per_level=1,
        activation="silu",
        reach_pairs=16,
        reach_width=16,
    ),
    train=TrainConfig(
        steps=100, batch_size=4, warmup_steps=5, save_every=2, log_every=3, precision="fp32"
    ),
    planner=DiffusionPlannerConfig(sampler=SamplerConfig(kind="ddim", steps=2)),
)


def waves() -> EpisodeDataset:
    """Four episodes of smooth curves."""
    phase = np.linspace(0, 9, 200)[:, None] + np.arange(4)
    return EpisodeDataset(
        np.sin(phase).astype(np.float32),
        np.cos(phase[:, :2]).astype(np.float32),
        np.zeros(200, np.float32),
        np.arange(0, 201, 50),
        np.zeros(4, dtype=bool),
    )


def run_killed(out: Path) -> None:
    train_experiment(KILLED, waves(), out, resume=(out / TRAIN_STATE).exists())


def serve_kills(folder: Path) -> None:
    """Run once whole, then in pieces, each a fork that is killed; imports are paid only once.

    A kill comes a random part of a step, of a save or of a start after the n-th of its kind, n
    random: so it lands inside training however fast the machine is, or whatever holds it up.
    """
    torch.set_num_threads(1)
    run_killed(folder / "warm-up")
    seconds = {"advance": [], "save": []}
    for name, spent in seconds.items():
        setattr(training.TrainingRun, name, timed(getattr(training.TrainingRun, name), spent))
    run_killed(folder / "whole")
    for name in seconds:
        setattr(training.TrainingRun, name, getattr(training.TrainingRun, name).__wrapped__)
    began = time.perf_counter()
    run_killed(folder / "whole")  # it is done: this only starts and reads
    start = min(time.perf_counter() - began, 0.3)
    step, save = (float(np.median(seconds[name])) for name in ("advance", "save"))
    kinds = {b".": (1, start), b"s": (3, step), b"(": (2, 1.2 * save)}  # largest n, longest delay
    draws = np.random.default_rng(0)
    facts = {"kills": 0, "inside_saves": 0, "readable": 0}
    out = folder / "killed"
    for _, (kind, (count, delay)) in zip(
        range(KILLS), itertools.cycle(kinds.items()), strict=False
    ):
        which = draws.integers(1, count + 1)
        events, was_killed = kill_one(out, kind, which, draws.uniform(0, delay))
        facts["kills"] += was_killed
        facts["inside_saves"] += events.count(b"(") > events.count(b")")
        if (out / TRAIN_STATE).exists():
            load_tensors(out / TRAIN_STATE)
        if (out / "model.safetensors").exists():
            load_model(out)
            facts["readable"] += 1
    run_killed(out)
    (folder / "facts.json").write_text(json.dumps(facts))


def timed(function, spent: list):
    @functools.wraps(function)
    def run(*arguments):
        began = time.perf_counter()
        function(*arguments)
        spent.append(time.perf_counter() - began)

    return run


def kill_one(out: Path, kind: bytes, which: int, delay: float) -> tuple[bytes, bool]:
    """Train in a fork, kill it ``delay`` after the ``which``-th event ``kind``; events, if hit."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        run_child(out, sender)
    os.close(sender)
    events = b""
    while events.count(kind) < which and (event := os.read(receiver, 1)):
        events += event
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while event := os.read(receiver, 100):
        events += event
    os.close(receiver)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"a run failed after {events}"
    return events, os.WIFSIGNALED(status)


def run_child(out: Path, sender: int) -> None:
    """Train in a fork and tell of each event: "." start, "s" a step, "(" and ")" a save."""
    advance, save = training.TrainingRun.advance, training.TrainingRun.save

    def advance_and_tell(*arguments):
        metrics = advance(*arguments)
        os.write(sender, b"s")
        return metrics

    def save_and_tell(*arguments):
        os.write(sender, b"(")
        save(*arguments)
        os.write(sender, b")")

    code = 1
    try:
        training.TrainingRun.advance, training.TrainingRun.save = advance_and_tell, save_and_tell
        os.write(sender, b".")
        run_killed(out)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def test_run_killed_at_random_instants_ends_bit_equal(tmp_path):
    script = "import sys, pathlib, test_training as t; t.serve_kills(pathlib.Path(sys.argv[1]))"
    paths = [str(Path(__file__).parent), str(Path(training.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,  # a guard against hanging; it takes some 20 s
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".*.tmp"))
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["kills"] >= KILLS - 2  # an idle moment may let one finish
    assert facts["readable"] >= KILLS // 2
    assert facts["inside_saves"] >= 2
    model, config = load_model(tmp_path / "killed"), (tmp_path / "killed" / "config.json")
    assert config.read_bytes() == (tmp_path / "whole" / "config.json").read_bytes()
    assert not any(parameter.requires_grad for parameter in model.parameters())


# -------------------------------------------------------------------------- stop requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_request_saves_and_raises(tmp_path, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def stop(batch):
        os.kill(os.getpid(), number)
        return batch

    with pytest.raises(TrainingInterrupted, match="step 5 of 30"):
        run_tiny(tmp_path, at_batch={5: stop})
    facts = json.loads(load_tensors(tmp_path / TRAIN_STATE)[1]["run"])
    assert facts["step"] == 5
    assert (tmp_path / "model.safetensors").is_file()
    assert not (tmp_path / "training.json").exists()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_second_interrupt_stops_at_once(tmp_path):
    def twice(batch):
        interrupt(batch)
        return interrupt(batch)

    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, at_batch={9: twice})
    facts = json.loads(load_tensors(tmp_path / TRAIN_STATE)[1]["run"])
    assert facts["step"] == 7  # the last regular save
    run_tiny(tmp_path, resume=True)


def test_interrupt_at_the_last_step_ends_the_run(tmp_path):
    run_tiny(tmp_path, at_batch={30: interrupt})
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 30


# ---------------------------------------------------------------------------------- guards


@pytest.mark.parametrize("log_every", [1, 3, 100])
def test_nan_stops_and_keeps_the_last_good_state(tmp_path, log_every):
    config = replace(FAST, log_every=log_every)
    with pytest.raises(FloatingPointError, match="diverged at step .*train.learning_rate"):
        run_tiny(tmp_path, config, at_batch={10: poison})
    facts = json.loads(load_tensors(tmp_path / TRAIN_STATE)[1]["run"])
    assert facts["step"] == 7
    for name in (TRAIN_STATE, "model.safetensors"):
        for tensor in load_tensors(tmp_path / name)[0].values():
            assert tensor.isfinite().all()
    run_tiny(tmp_path, config, resume=True)  # with the batch mended
    assert [row["step"] for row in rows_of(tmp_path)] == sorted(
        {*range(log_every, 31, log_every), 30}
    )


def test_resume_with_other_model_settings_changes_nothing(tmp_path):
    experiment = replace(KILLED, train=replace(KILLED.train, steps=4))
    train_experiment(experiment, waves(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for other in (
        replace(experiment, model=replace(experiment.model, dim=16)),
        replace(experiment, train=replace(experiment.train, seed=1)),
    ):
        with pytest.raises(ValueError, match=r"--(model.dim is 16|train.seed is 1).*begun with"):
            train_experiment(other, waves(), tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_resume_may_train_longer(tmp_path):
    config = replace(FAST, schedule="constant")
    run_tiny(tmp_path / "whole", config)
    run_tiny(tmp_path / "parts", replace(config, steps=21))
    run_tiny(tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


# ------------------------------------------------------------------------------ arithmetic


def test_learning_rate_factor_matches_closed_form():
    config = TrainConfig(steps=100, warmup_steps=20)
    for step in range(100):
        warm = min(1.0, (step + 1) / 20)
        decay = 0.5 * (1 + math.cos(math.pi * max(0, step - 20) / 80))
        assert learning_rate_factor(config, step) == pytest.approx(warm * decay, abs=1e-12)
    assert learning_rate_factor(config, 0) == pytest.approx(1 / 20)
    assert learning_rate_factor(config, 100) == pytest.approx(0)
    flat = replace(config, schedule="constant", warmup_steps=0)
    assert {learning_rate_factor(flat, step) for step in range(100)} == {1.0}


@dataclass
class Watched:
    """The optimizer's rates and the weights, step by step."""

    rates: list
    weights: list


def watch(monkeypatch) -> Watched:
    seen = Watched([], [])
    advance = training.TrainingRun.advance

    def record(run, *arguments):
        metrics = advance(run, *arguments)
        seen.rates.append(run.optimizer.param_groups[0]["lr"])
        seen.weights.append([p.detach().clone() for p in run.parameters])
        return metrics

    monkeypatch.setattr(training.TrainingRun, "advance", record)
    return seen


def test_optimizer_uses_the_schedule(tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    run_tiny(tmp_path)
    expected = [FAST.learning_rate * learning_rate_factor(FAST, step) for step in range(30)]
    np.testing.assert_allclose(seen.rates, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("decay", "every", "start"), [(0.9, 1, 0), (0.9, 3, 0), (0.9, 2, 10), (0.0, 1, 0)]
)
def test_average_matches_direct_computation(tmp_path, monkeypatch, decay, every, start):
    seen = watch(monkeypatch)
    torch.manual_seed(0)
    average = [p.detach().double() for p in Tiny().parameters() if p.requires_grad]
    model = run_tiny(tmp_path, replace(FAST, ema_decay=decay, ema_every=every, ema_start=start))
    for step, weights in enumerate(seen.weights, start=1):
        if step % every:
            continue
        rate = min(decay, (1 + step) / (10 + step)) if step > start else 0.0
        pairs = zip(average, weights, strict=True)
        average = [rate * old + (1 - rate) * new.double() for old, new in pairs]
    found = [p.detach().double() for p in model.parameters() if p.requires_grad]
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-6)


def test_gradient_norm_is_clipped(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def record(optimizer, *arguments):
        tensors = itertools.chain(*(group["params"] for group in optimizer.param_groups))
        norms.append(float(torch.cat([p.grad.flatten() for p in tensors]).norm()))
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    run_tiny(tmp_path / "clipped", replace(FAST, max_gradient_norm=0.01))
    assert max(norms) <= 0.01 * (1 + 1e-4)
    norms.clear()
    run_tiny(tmp_path / "free", replace(FAST, max_gradient_norm=0.0))
    assert min(norms) > 0.01


def test_weight_decay_is_on_matrices_only():
    model = Tiny()
    matrices, others = model.parameter_groups(0.3)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert [tuple(p.shape) for p in matrices["params"]] == [(8, 3), (3, 8)]
    assert [tuple(p.shape) for p in others["params"]] == [(8,), (3,)]


# ------------------------------------------------------------------- precision and compile


def test_auto_precision_is_resolved_and_stored(tmp_path):
    run_tiny(tmp_path)
    summary = json.loads((tmp_path / "training.json").read_text())
    facts = json.loads(load_tensors(tmp_path / TRAIN_STATE)[1]["run"])
    assert summary["precision"] in ("fp32", "bf16")
    assert facts["precision"] == summary["precision"]


@pytest.mark.parametrize(("asked", "used"), [("auto", "bf16"), ("fp32", "fp32")])
def test_resumed_run_keeps_what_auto_meant(tmp_path, asked, used):
    with pytest.raises(TrainingInterrupted):
        run_tiny(tmp_path, replace(FAST, precision="bf16"), at_batch={10: interrupt})
    run_tiny(tmp_path, replace(FAST, precision=asked), resume=True)
    assert json.loads((tmp_path / "training.json").read_text())["precision"] == used


def test_bf16_differs_from_fp32_and_keeps_full_precision_weights(tmp_path):
    models = [run_tiny(tmp_path / name, replace(FAST, precision=name)) for name in ("fp32", "bf16")]
    first, second = (m.net[0].weight for m in models)
    assert first.dtype == second.dtype == torch.float32
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.1, rtol=0.1)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="no C++ compiler"
)
def test_compiled_training_follows_the_plain_one(tmp_path):
    experiment = replace(KILLED, train=replace(KILLED.train, steps=10))
    train_experiment(experiment, waves(), tmp_path / "plain")
    compiled = replace(experiment, train=replace(experiment.train, compile=True))
    train_experiment(compiled, waves(), tmp_path / "compiled")
    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("plain", "compiled")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
