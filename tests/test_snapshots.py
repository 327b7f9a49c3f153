"""Shipped policies: which are chosen, what is kept of them, and that they act as scored."""

import json

import numpy as np
import pytest
import torch
from fake_policies import STEPS, fake_run

from forethought.checkpoint import load_model, load_tensors
from forethought.models.base import Explorer
from forethought.online import load_snapshot
from forethought.rollout import evaluate, rollout
from forethought.snapshots import (
    RandomPolicy,
    ShippedPolicies,
    StochasticPolicy,
    choose,
    ship_policies,
)

ENV = "forethought/hopper-v0"


class Unit(Explorer):
    """Standard normal actions."""

    def fit_ranges(self, action_box, observations):
        raise AssertionError("not asked for")

    def explore(self, observation, generator=None):
        return torch.randn(len(observation), 2, generator=generator)

    def actor_state(self):
        return {}


def test_expert_is_the_best_and_medium_nearest_to_a_third_of_it_before_it():
    assert choose([100, 310, 290, 900, 300]) == (3, 1)  # 300 comes after the expert
    assert choose([0, 10]) == (1, 0)
    with pytest.raises(ValueError, match="first snapshot earns most"):
        choose([10, 5, 3])


def test_stochastic_policy_gives_each_environment_noise_of_its_own():
    policy, observation = StochasticPolicy(Unit()), torch.zeros(3, 4)
    policy.reset(3, seeds=[5, 6, 7])
    together = policy(observation)
    policy.reset(3, seeds=[5, 6, 7])
    torch.testing.assert_close(policy(observation[:1], rows=torch.tensor([2])), together[2:])
    torch.testing.assert_close(policy(observation[:2], rows=torch.tensor([0, 1])), together[:2])
    assert not torch.equal(together[0], together[1])


def test_random_policy_fills_its_box():
    box = np.array([[-2.0, 0.0], [2.0, 1.0]])
    policy = RandomPolicy(box)
    policy.reset(2_000)
    actions = policy(torch.zeros(2_000, 4)).numpy()
    np.testing.assert_allclose(actions.mean(axis=0), box.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(actions.std(axis=0), (box[1] - box[0]) / 12**0.5, rtol=0.05)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run, out = fake_run(folder / "run"), folder / "out"
    seen = []
    return run, out, ship_policies(run, out, episodes=3, on_snapshot=seen.append), seen


def test_what_is_shipped_is_half_as_large_and_acts_as_it_was_scored(shipped):
    run, out, listed, seen = shipped
    assert listed["snapshots"] == seen and [row["env_steps"] for row in seen] == list(STEPS)
    for row in seen:
        full, half = (load_tensors(folder / row["file"])[0] for folder in (run, out))
        for name, tensor in half.items():
            wanted = full[name].half() if name.startswith("policy.") else full[name]
            assert torch.equal(tensor, wanted)
        policy = StochasticPolicy(load_snapshot(out / row["file"]))
        seed = listed["protocol"]["seed"]
        result = evaluate(policy, ENV, 3, seed, n_parallel=2)  # the score is the same however run
        assert np.mean([e["return"] for e in result.episodes]) == pytest.approx(row["return"], 1e-3)


def test_the_expert_is_the_checkpoint_and_the_list_comes_back(shipped):
    _, out, listed, _ = shipped
    policies = ShippedPolicies.open(out)
    assert policies.env == ENV and policies.env_steps == STEPS and policies.random_steps == 10_000
    returns = [row["return"] for row in listed["snapshots"]]
    assert policies.expert == policies.files[int(np.argmax(returns))]
    observation = torch.randn(4, 11)
    expected = policies.load(policies.expert).act(observation)
    assert torch.equal(load_model(out).act(observation), expected)
    assert json.loads((out / "training.json").read_text())["snapshot"] == policies.expert


def test_missing_or_damaged_lists_and_short_runs_say_what_to_do(shipped, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ship_policies\.py RUN .*nowhere"):
        ShippedPolicies.open(tmp_path / "nowhere")
    (tmp_path / "snapshots.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        ShippedPolicies.open(tmp_path)
    run = fake_run(tmp_path / "short")
    curve = json.loads((run / "curve.json").read_text())
    (run / "curve.json").write_text(json.dumps({**curve, "rows": curve["rows"][:2]}))
    with pytest.raises(ValueError, match="1 snapshots; a medium and an expert need two"):
        ship_policies(run, tmp_path / "out")


def test_episodes_of_the_stochastic_policy_do_not_depend_on_the_batching(shipped):
    import gymnasium

    _, out, listed, _ = shipped
    policy = StochasticPolicy(ShippedPolicies.open(out).load(listed["medium"]))
    runs = [rollout(policy, lambda: gymnasium.make(ENV), 3, 0, n_parallel=n) for n in (1, 3)]
    for alone, together in zip(*runs, strict=True):
        np.testing.assert_allclose(alone.actions[:5], together.actions[:5], rtol=1e-5)
