"""Scoring predictions: a perfect model is at the floor, a wrong one is not; files and refusals."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from forethought.cli import main
from forethought.datasets.linear import build_linear
from forethought.envs.linear import LinearEnv
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.predictions import (
    LinearSimulator,
    PredictionSettings,
    compare,
    draw_questions,
)
from forethought.recipes.gamma import gamma_experiment
from forethought.training import train_experiment

TINY = GammaMatchingConfig(width=16, blocks=1, ode_steps=2, target_ode_steps=1)


class Perfect:
    """Draws from the system itself, moved by ``shift``."""

    def __init__(self, system, discount, shift=0.0):
        self.system, self.discount, self.shift = system, discount, shift
        self.gamma_config = TINY
        self.noise = np.random.default_rng(5)

    def parameters(self):
        return iter([torch.zeros(1)])

    def sample(self, observation, action, n, generator=None):
        drawn = [
            self.system.sample_occupancy(s, a, self.discount, n, self.noise)
            for s, a in zip(observation.double().numpy(), action.double().numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).float() + self.shift


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_a_perfect_model_is_at_the_noise_floor_and_a_shifted_one_is_not(discount):
    env = LinearEnv(2)
    simulator = LinearSimulator(env)
    questions = draw_questions(simulator, simulator.act, 8, seed=0)
    settings = PredictionSettings(pairs=8, samples=800)
    rows = [
        compare(
            Perfect(env.system, discount, shift),  # type: ignore[arg-type]
            simulator,
            simulator.act,
            questions,
            env.arrival_rewards,
            discount,
            settings,
        )
        for shift in (0.0, 0.5)
    ]
    perfect, shifted = rows
    for name in ("energy", "sliced"):
        far = shifted[name]["mean"]
        assert max(perfect[name]["mean"], perfect[f"{name}_floor"]["mean"]) < 0.3 * far
    assert perfect["value_error"] < 4 * perfect["value_floor"] < shifted["value_error"]
    exact = []
    for state, action in zip(questions.states, questions.action.numpy(), strict=True):
        mean, covariance = env.system.occupancy(state, action, discount)
        exact.append(-(np.trace(covariance) + mean @ mean) / 2 / (1 - discount))
    np.testing.assert_allclose(perfect["true_values"], exact, rtol=0.15)


def test_evaluating_a_gamma_model_writes_its_protocol_and_the_report_shows_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    env = "forethought/linear-2-v0"
    model = replace(TINY, most_discount=0.95, discount=0.5)
    experiment = gamma_experiment("gamma/tiny", "linear-2", env, model, steps=5, batch_size=16)
    train_experiment(experiment, build_linear(0, 1_000, 2), tmp_path / "model")
    words = ["--pairs", "3", "--samples", "40", "--discounts", "0", "0.9"]
    main(["evaluate", "model", *words, "--seed", "4"])
    result = json.loads((tmp_path / "model/evaluation/linear-2-seed4.json").read_text())
    assert [row["discount"] for row in result["rows"]] == [0, 0.9]
    assert result["protocol"]["samples"] == 40 and result["protocol"]["train_steps"] == 5
    assert result["protocol"]["dataset"]["fingerprint"]
    assert "written to" in capsys.readouterr().out
    main(["report", "model", "--out", "shown", "--markdown", "shown.md"])
    assert "| gamma/tiny | 0.9 |" in (tmp_path / "shown.md").read_text()
    assert "Predictions of gamma-models" in (tmp_path / "shown/report.html").read_text()
    for words, part in (
        (["evaluate", "model", "--discounts", "0.99"], "beyond what this model was trained for"),
        (["evaluate", "model", "--pairs", "1"], "must be at least 2"),
        (["bench", "model"], "predicts and does not act"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert part in " ".join(capsys.readouterr().err.split())


def test_the_linear_environment_pays_for_what_it_reaches():
    env = gymnasium.make("forethought/linear-8-v0")
    env.reset(seed=0)
    observation, reward, *_ = env.step(np.zeros(4, np.float32))
    assert reward == pytest.approx(-float(np.mean(observation**2)), rel=1e-5)
