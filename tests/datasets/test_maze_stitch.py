"""The stitching data: no episode leads from the start to the goal, all of them together do."""

import numpy as np
import pytest

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.datasets.maze_stitch import STEPS, build_medium_stitch
from forethought.envs.maze_reach import MazeReachEnv
from forethought.studies.q_guided import coverage


@pytest.fixture(scope="module")
def dataset():
    return build_medium_stitch(n_steps=8_000)


def test_no_episode_joins_start_and_goal_but_their_union_does(dataset):
    facts = coverage(dataset, "medium")
    assert facts["moves_of_the_way"] == 10 and facts["most_moves_nearer"] <= 5
    assert facts["from_start_to_goal"] == 0 and facts["joined"]
    assert facts["rewarded"] == dataset.terminated.sum() > 0


def test_the_only_reward_is_at_the_goal_and_ends_its_episode(dataset):
    target = np.array(MazeReachEnv("medium").layout.target)
    for episode in dataset:
        distance = np.linalg.norm(episode.observations[:, :2] - target, axis=1)
        assert not episode.rewards[:-1].any() and len(episode) <= STEPS
        assert bool(episode.rewards[-1]) == episode.terminated == (distance[-1] <= 0.5)
    assert np.abs(dataset.actions).max() <= 1


def test_the_same_seed_builds_the_same_data():
    first, again, other = (build_medium_stitch(seed, 300) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.observations, again.observations)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    with pytest.raises(ValueError, match="at least one"):
        build_medium_stitch(n_steps=0)


def walk(*cells) -> Episode:
    points = np.array([[*cell, 0, 0] for cell in cells], dtype=np.float32)
    return Episode(points, np.zeros((len(cells) - 1, 2), np.float32), np.zeros(len(cells) - 1))


def test_coverage_tells_a_whole_way_a_chain_and_a_gap_apart():
    way = MazeReachEnv("medium").layout.shortest_path((1, 1), (6, 6))
    whole = coverage(EpisodeDataset.from_episodes([walk(*way)]), "medium")
    assert whole["from_start_to_goal"] == 1 and whole["joined"]
    chain = coverage(EpisodeDataset.from_episodes([walk(*way[4:]), walk(*way[:5])]), "medium")
    assert chain["from_start_to_goal"] == 0 and chain["joined"] and chain["most_moves_nearer"] == 6
    gap = coverage(EpisodeDataset.from_episodes([walk(*way[5:]), walk(*way[:5])]), "medium")
    assert not gap["joined"]
