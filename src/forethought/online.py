"""Training of agents that gather their own data (SAC), with the same step as every other learner.

Acting and learning take turns: ``n_envs`` environment steps, then as many optimizer steps as
``steps_per_update`` allows. Beside the checkpoint a run leaves everything that its policy did, as a
data set, small snapshots of the actor, and a learning curve. All of a run's randomness is in its
weights, its two generators and its episodes' seeds, so it can be killed at any instant and resumed
with the same bits on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from forethought.checkpoint import (
    CONFIG,
    TRAIN_STATE,
    hardware,
    load_config,
    load_model,
    load_tensors,
    save_config,
    save_model,
    save_tensors,
    write_json,
    write_result,
    write_text,
)
from forethought.collector import Collector
from forethought.config import Experiment, OnlineConfig, TrainConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.replay import ReplayBuffer, StepRecord
from forethought.models.base import Actor, Explorer, Model, require
from forethought.policy import ReactivePolicy
from forethought.progress import TrainProgress
from forethought.rollout import evaluate
from forethought.training import (
    TrainingInterrupted,
    TrainingRun,
    check_same_run,
    diverged,
    stop_requests,
)

CURVE, SNAPSHOTS, RECORD, DATASET = "curve.json", "snapshots", "record", "dataset"


def train_online(
    experiment: Experiment,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    resume: bool = False,
) -> Model:
    """Train the experiment's agent in its environment; returns it with the averaged weights.

    Leaves in ``out``: a checkpoint, ``metrics.jsonl`` and ``training.json`` as ``train`` does,
    ``curve.json``, ``snapshots/`` (see ``load_snapshot``), ``record/`` (every step so far) and at
    the end ``dataset/``, the same as episodes. Raises FloatingPointError if the loss stops being
    finite and TrainingInterrupted after Ctrl-C.
    """
    if experiment.online is None:
        raise ValueError(f"{experiment.name} has no online settings; it learns from a data set")
    if resume and (out / TRAIN_STATE).exists():
        check_same_run(experiment, out)
        _check_same_collection(experiment, out)
    out.mkdir(parents=True, exist_ok=True)
    for scratch in out.rglob(".*.tmp"):  # of an attempt that was killed while it wrote
        scratch.unlink()
    torch.manual_seed(experiment.train.seed)
    make_env = partial(gymnasium.make, experiment.env, disable_env_checker=True)
    collector = Collector(make_env, experiment.online.n_envs, experiment.train.seed)
    model = experiment.model.build(collector.spaces)
    facts = {"name": "online", "fingerprint": None, "env": experiment.env}
    save_config(out, experiment, collector.spaces, dataset=facts, seed=experiment.train.seed)
    session = _Session(experiment, model.to(device), collector, out)
    try:
        if resume and (out / TRAIN_STATE).exists():
            session.restore()
        else:
            session.record.cut(0)
        session.train()
    finally:
        collector.close()
    model.load_state_dict(session.run.averaged_state())
    return model


def _check_same_collection(experiment: Experiment, out: Path) -> None:
    begun: Experiment = load_config(out)["experiment"]
    if (experiment.env, experiment.online) != (begun.env, begun.online):
        raise ValueError(
            f"the run in {out} was begun in {begun.env} with {begun.online}; now it is "
            f"{experiment.env} with {experiment.online}. Resume with the former, or train anew "
            "into another --out"
        )


def load_snapshot(file: Path | str) -> Model:
    """The agent of a file in ``snapshots/``, ready to act; its critics are untrained."""
    file = Path(file)
    config = load_config(file.parent.parent)
    model = config["experiment"].model.build(config["spaces"])
    tensors, _ = load_tensors(file)
    expected = set(require(model, Explorer, needed_by="a snapshot").actor_state())
    if set(tensors) != expected:
        raise ValueError(
            f"{file} does not fit the agent of {file.parent.parent}: it has {sorted(tensors)}, "
            f"which should be {sorted(expected)}"
        )
    model.load_state_dict(tensors, strict=False)
    return model.eval().requires_grad_(False)


def export_policy(run: Path, out: Path, *, snapshot: str = "") -> None:
    """Write a checkpoint folder with the policy of ``run`` alone, a fraction of its size.

    snapshot: name of a file in ``run/snapshots`` to take it from, instead of the final weights
    """
    model = load_snapshot(run / SNAPSHOTS / snapshot) if snapshot else load_model(run)
    actor = require(model, Explorer, needed_by="an exported policy").actor_state()
    curve = json.loads((run / CURVE).read_text())
    made = f"{SNAPSHOTS}/{snapshot}"
    row = next(r for r in reversed(curve["rows"]) if not snapshot or r.get("snapshot") == made)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CONFIG, (run / CONFIG).read_text())
    save_model(out, actor)
    write_json(out / "training.json", {"protocol": curve["protocol"], **row})


class _Session:
    """A run in progress: agent, environments, buffer, record, curve."""

    def __init__(
        self, experiment: Experiment, model: Model, collector: Collector, out: Path
    ) -> None:
        assert experiment.online is not None, "checked by train_online"
        self.experiment, self.model, self.collector, self.out = experiment, model, collector, out
        self.config: TrainConfig = experiment.train
        self.online: OnlineConfig = experiment.online
        self.explorer = require(model, Explorer, needed_by="online training")
        self.policy = ReactivePolicy(require(model, Actor, needed_by="online training"))
        self.explorer.fit_ranges(collector.action_box, None)
        self.run = TrainingRun(model, self.config)
        spaces = collector.spaces
        self.buffer = ReplayBuffer(
            self.online.buffer_size, spaces.observation_dim, spaces.action_dim
        )
        self.record = StepRecord(out / RECORD)
        self.curve: list[dict[str, Any]] = []
        self.saved_step = 0
        learned = math.ceil(self.config.steps * self.online.steps_per_update)
        self.total_steps = self.online.random_steps + learned
        self.clock = time.perf_counter()

    def train(self) -> None:
        """The loop: act, learn, and now and then look, save or stop."""
        run, config = self.run, self.config
        with (
            stop_requests() as stop,
            TrainProgress(self.out, first=run.step, total=config.steps) as progress,
        ):
            while run.step < config.steps:
                self.collect()
                while run.step < min(self.updates_due(), config.steps):
                    self.learn(progress)
                done = run.step == config.steps
                if self.has_passed(self.online.evaluate_every) or done:
                    self.evaluate()
                if run.step >= self.saved_step + config.save_every or done or stop.requested:
                    self.save()
                if stop.requested and not done:
                    raise TrainingInterrupted(f"stopped at step {run.step} of {config.steps}")
        self.finish()

    def collect(self) -> None:
        """One step in every environment: at random at first, then by the policy."""
        low, high = self.collector.action_box
        if self.buffer.total < self.online.random_steps:
            shape = (len(self.collector.envs), len(low))
            share = torch.rand(shape, generator=self.run.noise, device=self.run.device)
            action = low + (high - low) * share.cpu().numpy()
        else:
            observation = torch.from_numpy(self.collector.observation).to(self.run.device)
            action = self.explorer.explore(observation, self.run.noise).cpu().numpy()
        steps = self.collector.step(action)
        before = self.buffer.total
        self.buffer.add(steps)
        self.record.add(steps)
        if before < self.online.random_steps <= self.buffer.total:
            if self.online.normalize_observations:
                self.explorer.fit_ranges(self.collector.action_box, self.buffer.observations)
            steps = self.buffer[np.arange(len(self.buffer))]
            self.explorer.fit_steps(steps.to(self.run.device))

    def updates_due(self) -> int:
        """Optimizer steps that the environment steps so far allow."""
        learned = self.buffer.total - self.online.random_steps
        return int(learned / self.online.steps_per_update + 1e-9)

    def learn(self, progress: TrainProgress) -> None:
        """One optimizer step, logged when due."""
        run = self.run
        run.advance(self.model, self.buffer)
        if run.step % self.config.log_every == 0 or run.step == self.config.steps:
            metrics = run.take_metrics()
            progress.log(run.step, metrics)
            if not all(math.isfinite(value) for value in metrics.values()):
                raise FloatingPointError(diverged(run.step, self.out))
        progress.advance()

    def has_passed(self, period: int) -> bool:
        """Whether the last step crossed a multiple of ``period`` environment steps."""
        now = self.buffer.total
        return now // period > (now - len(self.collector.envs)) // period

    def evaluate(self) -> None:
        """A row of the learning curve, on the same starts each time; a snapshot when due."""
        self.count_seconds()
        if not all(bool(p.isfinite().all()) for p in self.run.parameters):
            raise FloatingPointError(diverged(self.run.step, self.out))
        result = evaluate(
            self.policy,
            self.experiment.env,
            self.online.evaluation_episodes,
            self.online.evaluation_seed,
            n_parallel=self.online.evaluation_episodes,
        )
        returns = [episode["return"] for episode in result.episodes]
        row = {
            "env_steps": self.buffer.total,
            "updates": self.run.step,
            "seconds": round(self.run.seconds, 1),
            "return": float(np.mean(returns)),
            "score": result.score,
            "returns": [round(value, 3) for value in returns],
            "length": float(np.mean([episode["steps"] for episode in result.episodes])),
        }
        taken = sum("snapshot" in earlier for earlier in self.curve)
        due = self.buffer.total * self.online.snapshots >= (taken + 1) * self.total_steps
        if due:
            row["snapshot"] = f"{SNAPSHOTS}/step-{self.buffer.total:010d}.safetensors"
            (self.out / SNAPSHOTS).mkdir(exist_ok=True)
            save_tensors(self.out / row["snapshot"], self.explorer.actor_state(), {})
        self.curve.append(row)
        self.write_curve()
        self.clock = time.perf_counter()  # what evaluation took is not training time

    def write_curve(self) -> None:
        """``curve.json``: a protocol and one row an evaluation."""
        reference = gymnasium.spec(self.experiment.env).kwargs.get("reference_returns")
        protocol = {
            "env": self.experiment.env,
            "episodes": self.online.evaluation_episodes,
            "seed": self.online.evaluation_seed,
            "policy": "deterministic (the mode)",
            "reference_returns": reference,
            "training_seed": self.config.seed,
            "seconds": "of training, without evaluation",
            "hardware": hardware(),
        }
        data = {"kind": "curve", "recipe": self.experiment.name, "protocol": protocol}
        write_result(self.out / CURVE, {**data, "rows": self.curve})

    def count_seconds(self) -> None:
        """Add the time since the last call to the run's training time."""
        now = time.perf_counter()
        self.run.seconds, self.clock = self.run.seconds + now - self.clock, now

    def save(self) -> None:
        """The record first, then the state that refers to it."""
        self.count_seconds()
        self.record.flush()
        facts = {
            "total": self.buffer.total,
            "collector": self.collector.state(),
            "curve": self.curve,
        }
        self.run.save(self.out, facts)
        self.saved_step = self.run.step

    def restore(self) -> None:
        """Continue from the saved state; what was done after it is done again."""
        facts = self.run.restore(self.out / TRAIN_STATE)["more"]
        save_model(self.out, self.run.averaged_state())  # a kill may have come between the files
        self.record.cut(facts["total"])
        needed = self.collector.rows_needed(facts["collector"])
        self.collector.restore(facts["collector"], self.record.latest(needed))
        rows = self.record.latest(self.buffer.capacity)
        if rows is not None:
            self.buffer.total = facts["total"] - len(rows)
            self.buffer.add(rows)
        assert self.buffer.total == facts["total"], "the record is flushed before the state"
        self.curve, self.saved_step = facts["curve"], self.run.step
        if self.curve:
            self.write_curve()
        self.clock = time.perf_counter()

    def finish(self) -> None:
        """``training.json``, and the record as a data set."""
        last = self.curve[-1]
        facts = {"env_steps": self.buffer.total, "return": last["return"], "score": last["score"]}
        write_json(self.out / "training.json", self.run.summary() | facts)
        recorded_dataset(self.out).save(self.out / DATASET)


def recorded_dataset(out: Path) -> EpisodeDataset:
    """Everything that the run in ``out`` has recorded so far, as episodes; also while it runs."""
    config = load_config(out)
    experiment: Experiment = config["experiment"]
    if experiment.online is None:
        raise ValueError(f"{out} was not trained online, so it holds no record")
    metadata = {"env": experiment.env, "builder": experiment.name, "seed": experiment.train.seed}
    return StepRecord(out / RECORD).dataset(experiment.online.n_envs, metadata)
