"""Locomotion data: who acts for how long, whole episodes, repeatable, scored as D4RL does."""

import numpy as np
import pytest
from fake_policies import fake_run

from forethought.datasets.locomotion import QUALITIES, TASKS, build_locomotion, sources_of
from forethought.registry import datasets
from forethought.scores import normalized_score
from forethought.snapshots import ShippedPolicies, ship_policies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("policies")
    ship_policies(fake_run(root / "run"), root / "out", episodes=2)
    return str(root / "out")


def policies(**changes):
    facts = {"env": "e", "files": ("a", "b", "c"), "env_steps": (40, 60, 90), "random_steps": 10}
    return ShippedPolicies(**{"folder": "", **facts, "expert": "c", "medium": "b", **changes})


def test_every_data_set_of_the_thesis_table_is_registered():
    assert {f"{task}-{quality}" for task in TASKS for quality in QUALITIES} <= set(datasets)


def test_replay_mixture_takes_each_snapshot_for_the_time_before_it():
    found = sources_of(policies(), "medium-replay")
    assert [s.file for s in found] == ["", "a", "b"]  # nothing of what came after the medium one
    np.testing.assert_allclose([s.share for s in found], [10 / 60, 30 / 60, 20 / 60])
    assert "" not in [s.file for s in sources_of(policies(random_steps=0), "medium-replay")]


def test_other_qualities_have_the_policies_they_are_named_for():
    halves = [(s.file, s.share) for s in sources_of(policies(), "medium-expert")]
    assert halves == [("b", 0.5), ("c", 0.5)]
    for quality, file in (("medium", "b"), ("expert", "c")):
        assert [(s.file, s.share) for s in sources_of(policies(), quality)] == [(file, 1.0)]
    with pytest.raises(ValueError, match="known: medium"):
        sources_of(policies(), "good")


@pytest.mark.parametrize("quality", ["expert", "medium-expert", "medium-replay"])
def test_data_are_whole_episodes_of_about_the_steps_asked_for(folder, quality):
    seen = []
    dataset = build_locomotion("hopper", quality, 0, 600, seen.append, folder=folder)
    assert 600 <= dataset.n_steps < 1_200
    lengths = np.diff(dataset.starts) - 1
    assert (dataset.terminated | (lengths == 1_000)).all()
    assert seen == sorted(seen) and seen[-1] >= 590
    facts = dataset.metadata
    assert facts["builder"] == f"hopper-{quality}" and facts["env"] == "forethought/hopper-v0"
    assert sum(source["steps"] for source in facts["sources"]) == dataset.n_steps
    assert ("not the replay buffer" in facts["behavior"]) == (quality == "medium-replay")
    scores = [normalized_score(e.rewards.sum(), (-20.272305, 3234.3)) for e in dataset]
    assert facts["score"]["mean"] == pytest.approx(np.mean(scores), abs=1e-4)


def test_data_repeat_by_their_seed(folder):
    first, again, other = (
        build_locomotion("hopper", "medium", seed, 200, folder=folder) for seed in (1, 1, 2)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_builder_says_what_is_missing():
    with pytest.raises(FileNotFoundError, match="no policies have been shipped there"):
        build_locomotion("hopper", "medium", 0, 10, folder="nowhere")
    with pytest.raises(ValueError, match="at least one"):
        build_locomotion("hopper", "medium", 0, 0)
