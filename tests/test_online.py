"""Online training: bit-equal resume, also after SIGKILL, what a run leaves, and its guards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from forethought import commands, online
from forethought.agents.gamma_mve import GammaMVEConfig
from forethought.agents.mbpo import MBPOConfig
from forethought.agents.mve import MVEConfig
from forethought.agents.sac import SACConfig
from forethought.checkpoint import TRAIN_STATE, load_model, load_tensors
from forethought.cli import main
from forethought.collector import Collector
from forethought.config import Experiment, OnlineConfig, TrainConfig, from_json, to_json
from forethought.data.episodes import EpisodeDataset
from forethought.models.dynamics import DynamicsConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.online import export_policy, load_snapshot, recorded_dataset, train_online
from forethought.planners.reactive import ReactiveConfig
from forethought.registry import recipes
from forethought.training import TrainingInterrupted

SMALL = Experiment(
    name="sac/small",
    dataset="",
    env="forethought/pendulum-v0",
    model=SACConfig(width=8),
    train=TrainConfig(
        steps=300,
        batch_size=8,
        warmup_steps=0,
        schedule="constant",
        ema_decay=0.0,
        precision="fp32",
        save_every=20,
        log_every=30,
    ),
    planner=ReactiveConfig(),
    online=OnlineConfig(
        n_envs=3,
        steps_per_update=2.0,
        random_steps=50,
        buffer_size=250,  # wraps
        normalize_observations=True,
        evaluate_every=200,
        evaluation_episodes=2,
        snapshots=2,
    ),
)

ENSEMBLE = DynamicsConfig(width=8, layers=1, members=2)
AGENTS = {
    "sac": SMALL.model,
    "mve": MVEConfig(sac=SMALL.model, dynamics=ENSEMBLE, rollout=2, model_every=2, warm_up=40),
    "gamma-mve": GammaMVEConfig(
        sac=SMALL.model,
        gamma=GammaMatchingConfig(width=8, blocks=1, discount=0.8, target_ode_steps=1),
        reward_width=8,
        model_every=2,
        warm_up=40,
    ),
    "mbpo": MBPOConfig(
        sac=SMALL.model,
        dynamics=ENSEMBLE,
        rollout_every=3,
        most_rollout=3,
        rollout_growth=200,
        imagined_size=100,
        warm_up=40,
    ),
}


def assert_same_run(first: Path, second: Path) -> None:
    for name in (TRAIN_STATE, "model.safetensors"):
        ours, theirs = load_tensors(first / name)[0], load_tensors(second / name)[0]
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=0, atol=0, msg=f"{name}: {key}")
    data = [EpisodeDataset.open(out / "dataset") for out in (first, second)]
    assert data[0].fingerprint == data[1].fingerprint
    curves = [json.loads((out / "curve.json").read_text())["rows"] for out in (first, second)]
    rows = [[{**row, "seconds": 0} for row in curve] for curve in curves]
    assert rows[0] == rows[1]
    snapshots = [sorted(p.name for p in (out / "snapshots").iterdir()) for out in (first, second)]
    assert snapshots[0] == snapshots[1] and len(snapshots[0]) == 2


def run_small(out: Path, resume: bool, agent: str = "sac") -> None:
    torch.set_num_threads(1)
    steps = SMALL.train.steps if agent == "sac" else 120  # enough, and those with models are slow
    train = replace(SMALL.train, steps=steps)
    train_online(replace(SMALL, model=AGENTS[agent], train=train), out, resume=resume)


@pytest.mark.parametrize(
    "agent",
    # the agents with a model share their loop: one of them is enough every time
    [pytest.param(a, marks=pytest.mark.slow) if a in ("mve", "mbpo") else a for a in AGENTS],
)
def test_run_killed_at_random_instants_ends_bit_equal(agent, tmp_path):
    """Forks are killed in the middle; each goes on from the last saved state."""
    run_small(tmp_path / "whole", resume=False, agent=agent)
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import test_online as t;"
        "t.run_small(pathlib.Path(sys.argv[1]), True, sys.argv[3])"
    )
    source = str(Path(online.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    out, kills, rng = tmp_path / "killed", 0, np.random.default_rng(0)
    command = [sys.executable, "-c", code, str(out), str(Path(__file__).parent), agent]
    for wanted in (1, 4):  # record files that must be there before the kill
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while child.poll() is None and len(list(out.glob("record/*.safetensors"))) < wanted:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    run_small(out, resume=True, agent=agent)
    assert kills == 2
    assert_same_run(tmp_path / "whole", out)
    assert not list(out.rglob(".*.tmp"))


def test_interrupted_and_resumed_run_is_bit_equal(tmp_path, monkeypatch):
    run_small(tmp_path / "whole", resume=False)
    learn, seen = online._Session.learn, []

    def interrupt(session, progress):
        learn(session, progress)
        if session.run.step in (37, 161):
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(session.run.step)

    monkeypatch.setattr(online._Session, "learn", interrupt)
    for _ in range(2):
        with pytest.raises(TrainingInterrupted):
            run_small(tmp_path / "parts", resume=True)
    run_small(tmp_path / "parts", resume=True)
    assert seen[-1] == 300
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_leaves_all_that_it_did(tmp_path):
    run_small(tmp_path, resume=False)
    rows = json.loads((tmp_path / "curve.json").read_text())["rows"]
    assert [row["env_steps"] // 200 for row in rows] == [1, 2, 3, 3]  # 50 + 300 * 2, and the end
    assert all(len(row["returns"]) == 2 for row in rows)
    dataset = EpisodeDataset.open(tmp_path / "dataset")
    summary = json.loads((tmp_path / "training.json").read_text())
    assert dataset.n_steps == summary["env_steps"] == rows[-1]["env_steps"]
    assert recorded_dataset(tmp_path).fingerprint == dataset.fingerprint
    assert dataset.metadata["env"] == "forethought/pendulum-v0"
    observation = torch.randn(5, 3)
    agent = load_model(tmp_path)
    last = load_snapshot(tmp_path / rows[-1]["snapshot"])
    torch.testing.assert_close(last.act(observation), agent.act(observation), rtol=0, atol=0)
    assert bool((agent.observation_normalizer.scale != 1).all())
    for snapshot in ("", rows[-1]["snapshot"].removeprefix("snapshots/")):
        export_policy(tmp_path, tmp_path / "policy", snapshot=snapshot)
        policy = load_model(tmp_path / "policy")
        torch.testing.assert_close(policy.act(observation), agent.act(observation), rtol=0, atol=0)
    kept = load_tensors(tmp_path / "policy" / "model.safetensors")[0]
    assert not any(name.startswith("critics") for name in kept)


def test_steps_and_updates_keep_their_ratio(tmp_path):
    for ratio in (0.5, 3.0):
        out = tmp_path / str(ratio)
        settings = replace(SMALL.online, n_envs=1, steps_per_update=ratio, evaluate_every=10**6)
        train = replace(SMALL.train, steps=40)
        train_online(replace(SMALL, online=settings, train=train), out)
        total = json.loads((out / "training.json").read_text())["env_steps"]
        assert total == 50 + 40 * ratio


def test_resume_with_other_settings_is_refused(tmp_path):
    short = replace(SMALL, train=replace(SMALL.train, steps=20))
    train_online(short, tmp_path)
    other = replace(short, online=replace(SMALL.online, n_envs=2))
    with pytest.raises(ValueError, match="was begun in .* train anew"):
        train_online(other, tmp_path, resume=True)
    with pytest.raises(ValueError, match="--model.width is 4"):
        train_online(replace(short, model=SACConfig(width=4)), tmp_path, resume=True)


def test_divergence_stops_the_run_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    step = Collector.step

    def poison(collector, action):
        steps = step(collector, action)
        if poison.calls > 60:
            steps.reward[:] = np.nan
        poison.calls += 1
        return steps

    poison.calls = 0
    monkeypatch.setattr(Collector, "step", poison)
    with pytest.raises(FloatingPointError, match="diverged"):
        train_online(SMALL, tmp_path)
    for tensor in load_tensors(tmp_path / TRAIN_STATE)[0].values():
        assert bool(tensor.isfinite().all())


def test_environments_without_a_finite_box_are_refused():
    with pytest.raises(ValueError, match="actions in a box"):
        Collector(lambda: gymnasium.make("CartPole-v1"), 1, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("n_envs", 0), ("steps_per_update", 0.0), ("random_steps", 0)]
)
def test_online_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"online.{name} is {value}"):
        OnlineConfig(**{name: value})


def test_experiment_survives_json():
    for name in recipes:
        experiment = recipes[name]()
        assert from_json(Experiment, json.loads(json.dumps(to_json(experiment)))) == experiment


def test_command_line_trains_and_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "find_recipe", lambda name: SMALL)
    out = str(tmp_path / "run")
    words = ["train", "sac/small", "--out", out, "--train.steps", "20", "--online.n-envs", "2"]
    main(words)
    main(["evaluate", out, "--episodes", "2", "--out", str(tmp_path / "score.json")])
    data = json.loads((tmp_path / "score.json").read_text())
    assert data["n"] == 2 and data["score"]["mean"] < 0
    with pytest.raises(SystemExit):
        main([*words[:2], "--out", str(tmp_path / "other"), "--data", "somewhere"])
    assert "gathers its own data" in capsys.readouterr().err
