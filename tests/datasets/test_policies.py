"""Data round a policy: disturbances do what they say, ends end episodes, seeds repeat."""

import numpy as np
import pytest
import torch

from forethought.data.views import TransitionView
from forethought.datasets.policies import (
    ALONE,
    NOISY,
    Disturbances,
    build_policy_data,
    run_disturbed,
    visited_states,
)
from forethought.models.base import Explorer

BOX = np.array([[-2.0, 0.0], [2.0, 1.0]])


class Counter:
    """A process that counts its steps and ends at a number of its own."""

    def draw_starts(self, n, seed):
        return np.zeros((n, 2))

    def advance(self, states, actions):
        reached = states + [1.0, 0.0]
        return reached, reached[:, 0], (reached[:, 0] >= reached[:, 1]) & (reached[:, 1] > 0)

    def observe(self, states):
        return states


class Constant(Explorer):
    """Always the same action."""

    def fit_ranges(self, action_box, observations):
        raise AssertionError("not asked for")

    def explore(self, observation, generator=None):
        return torch.tensor([0.5, 0.5]).expand(len(observation), 2)

    def actor_state(self):
        return {}


def run(n, *, noise=0.0, share=0.0, length=1.0, n_steps=20, ends=0):
    disturbances = Disturbances(
        noise=np.full(n, noise), share=np.full(n, share), length=np.full(n, length)
    )
    states = np.stack([np.zeros(n), np.full(n, ends)], axis=1)
    generator = np.random.default_rng(0)
    return run_disturbed(
        Counter(),
        Constant(),
        states,
        disturbances,
        action_box=BOX,
        n_steps=n_steps,
        generator=generator,
    )


def test_an_undisturbed_policy_acts_alone():
    for episode in run(3):
        np.testing.assert_array_equal(episode.actions, np.full((20, 2), 0.5))
        np.testing.assert_array_equal(episode.observations[:, 0], np.arange(21))
        assert not episode.terminated


def test_random_actions_fill_the_box():
    actions = np.concatenate([episode.actions for episode in run(200, share=1.0)])
    np.testing.assert_allclose(actions.mean(axis=0), BOX.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(actions.std(axis=0), (BOX[1] - BOX[0]) / 12**0.5, rtol=0.05)


def test_random_stretches_have_their_share_and_length():
    episodes = run(200, share=0.4, length=5.0, n_steps=200)
    is_random = np.stack([(episode.actions != 0.5).any(axis=1) for episode in episodes])
    assert is_random.mean() == pytest.approx(0.4, abs=0.03)
    same = (np.diff([e.actions for e in episodes], axis=1) == 0).all(axis=-1)
    held = same[is_random[:, 1:] & is_random[:, :-1]]
    assert held.mean() == pytest.approx(0.8 / (0.8 + 0.2 * 0.4), abs=0.03)


def test_gaussian_noise_has_its_size_and_stays_in_the_box():
    actions = np.concatenate([episode.actions for episode in run(300, noise=0.1)])
    np.testing.assert_allclose(actions.std(axis=0), [0.2, 0.05], rtol=0.05)
    wild = np.concatenate([episode.actions for episode in run(20, noise=3.0)])
    assert (wild >= BOX[0]).all() and (wild <= BOX[1]).all()


def test_an_episode_ends_where_its_process_does():
    for episode in run(3, ends=5):
        assert len(episode) == 5 and episode.terminated
        np.testing.assert_array_equal(episode.observations[:, 0], np.arange(6))
        np.testing.assert_array_equal(episode.rewards, np.arange(1, 6))


def test_the_mixture_has_the_shares_it_says():
    drawn = Disturbances.draw(20_000, np.random.default_rng(0))
    alone = (drawn.noise == 0) & (drawn.share == 0)
    assert alone.mean() == pytest.approx(ALONE, abs=0.02)
    assert (drawn.noise > 0).mean() == pytest.approx(NOISY, abs=0.02)
    assert not ((drawn.noise > 0) & (drawn.share > 0)).any()


@pytest.mark.parametrize("task", ["pendulum", "acrobot", "mountain-car", "reacher"])
def test_shipped_policies_make_repeatable_data(task):
    first, second = (build_policy_data(task, seed=3, n_steps=1000) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert "not the replay buffer" in first.metadata["behavior"]
    batch = TransitionView(first)[np.arange(len(first.actions) - len(first))]
    assert not bool(batch.terminated.any())
    assert build_policy_data(task, seed=4, n_steps=1000).fingerprint != first.fingerprint


def test_visited_states_lie_on_the_episodes_before_their_ends():
    class Short(Counter):
        def draw_starts(self, n, seed):
            return np.stack([np.zeros(n), np.full(n, 7.0)], axis=1)

    class One(Constant):
        def explore(self, observation, generator=None):
            return torch.zeros(len(observation), 2)

    states = visited_states("reacher", Short(), One(), n=200, seed=0)
    times = states[:, 0]
    assert set(times) == set(range(7))  # of the 7 steps, each begins somewhere
    again = visited_states("reacher", Short(), One(), n=200, seed=0)
    np.testing.assert_array_equal(states, again)


def test_short_episodes_from_everywhere_cover_what_the_policy_leaves():
    """The fastest tenth of velocities at the top, where nobody gets by itself."""
    shares = []
    for everywhere in (False, True):
        data = build_policy_data("pendulum", 0, 20_000, everywhere=everywhere)
        x, _, velocity = data.observations.T
        shares.append(np.mean((x > 0) & (np.abs(velocity) > 7)))
        assert np.diff(data.starts).max() == (21 if everywhere else 201)
    assert shares[1] > 3 * shares[0]
