"""Off-policy evaluation: fitted Q against a closed form, changed policies, tables."""

from pathlib import Path

import numpy as np
import pytest
import torch

from forethought.checkpoint import load_model
from forethought.datasets.linear import build_linear
from forethought.envs.linear import LinearSystem
from forethought.registry import studies
from forethought.studies import off_policy_evaluation as ope
from forethought.studies.base import StudySettings
from forethought.studies.fitted_q import FittedQ
from forethought.studies.off_policy_evaluation_show import estimates, markdown, plot


def test_fitted_q_approaches_the_closed_form():
    """With r = s_0 the value is the occupancy's mean over 1 - discount."""
    system, noise = LinearSystem(2), np.random.default_rng(0)
    dataset = build_linear(0, 20_000, 2)
    actions = system.act(np.array(dataset.observations), noise).astype(np.float32)
    network = FittedQ(dataset, actions, lambda s: s[..., 0], 0.8)
    assert network.train(4.0) > 100
    states, taken = noise.normal(size=(40, 2)), noise.normal(size=(40, 1))
    exact = [system.occupancy(s, a, 0.8)[0][0] / 0.2 for s, a in zip(states, taken, strict=True)]
    found = network.values(torch.from_numpy(states).float(), torch.from_numpy(taken).float())
    assert np.abs(found.numpy() - exact).mean() < 0.15 * np.std(exact)


@pytest.fixture(scope="module")
def shipped():
    return Path(__file__).parents[2] / "pretrained" / "sac" / "pendulum"


def test_changed_policies_act_as_said(shipped):
    observation = torch.tensor([[1.0, 0.0, 0.5], [-1.0, 0.1, -3.0]])
    plain = load_model(shipped).act(observation)
    turned, pushed, noisy = (load_model(shipped) for _ in range(3))
    ope.change_policy(turned, ope.Change(label="", gain=-1.0))
    torch.testing.assert_close(turned.act(observation), -plain)
    ope.change_policy(pushed, ope.Change(label="", gain=0.0, shift=0.5))
    torch.testing.assert_close(pushed.act(observation), torch.full((2, 1), 2 * np.tanh(0.5)))
    ope.change_policy(noisy, ope.Change(label="", noise=1.0))
    torch.testing.assert_close(noisy.act(observation), plain)
    spread = [
        load.policy(load.observation_normalizer.normalize(observation))[:, 1]
        for load in (noisy, load_model(shipped))
    ]
    torch.testing.assert_close(spread[0], spread[1] + 1.0)


def test_a_policy_is_written_once_and_truths_differ(tmp_path, shipped, monkeypatch):
    monkeypatch.setattr(ope, "STARTS", 20)
    settings = StudySettings(runs=tmp_path, pretrained=shipped.parents[1])
    good, bad = (ope.truth(settings, policy=name) for name in ("shipped", "reversed"))
    assert good["rows"][0]["value"] > bad["rows"][0]["value"] + 10
    weights = ope.write_policy(settings, "reversed") / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert ope.write_policy(settings, "reversed").exists() and weights.stat().st_mtime_ns == before


def parts(values):
    found = {"data": {"rows": [{"discount": 0.9, "value": -5.0, "interval": [-6.0, -4.0]}]}}
    for name, (true, guess) in values.items():
        row = {"discount": 0.9, "value": true, "interval": [true - 1, true + 1]}
        found[f"{name}-truth"] = {"rows": [row]}
        found[f"{name}-gamma"] = {"rows": [row | {"value": guess}]}
    return found


def test_tables_hold_errors_and_ranks():
    known = parts({"a": (-1.0, -2.0), "b": (-3.0, -3.0), "c": (-9.0, -4.0)})
    policies, pairs = estimates(known, "gamma", 0)
    assert policies == ["a", "b", "c"] and pairs[:, 0].tolist() == [-2.0, -3.0, -4.0]
    text = markdown(known)
    assert "| γ-model (TD2-CFM) | 3 | 2.0 [" in text and "| 25% | 1.00 |" in text
    assert "| return of the logs | 3 | 3.3 [" in text
    assert list(plot(known)) == ["values"] and plot({}) == {} and markdown({})
    names = [part.name for part in studies["off-policy-evaluation"]().parts]
    assert len(names) == len(set(names)) == 1 + 4 * len(ope.POLICIES)
