"""Episodes that end: resets, what the last step reached, and the way back to a saved state."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from forethought.collector import Collector
from forethought.data.replay import Steps, concatenate


class Walk(gymnasium.Env):
    """Adds the action to a random start; terminates beyond 3, truncates after 5 steps.

    steady: whether an episode is a function of its seed and its actions
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, *, steady: bool = True) -> None:
        self._noise = None if steady else np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._at, self._steps = self.np_random.uniform(0, 1), 0
        return np.array([self._at], np.float32), {}

    def step(self, action):
        self._at += float(action[0]) + (0.0 if self._noise is None else self._noise.normal())
        self._steps += 1
        return np.array([self._at], np.float32), self._at, self._at > 3, self._steps == 5, {}


ACTIONS = np.array([[1.0], [0.5]])  # environment 0 terminates, environment 1 mostly truncates


def walked(collector: Collector, n: int) -> Steps:
    return concatenate([collector.step(ACTIONS) for _ in range(n)])


def test_episodes_end_by_either_flag_and_begin_anew_from_another_start():
    collector = Collector(Walk, 2, seed=0)
    rows = walked(collector, 12)
    for env, flag in ((0, rows.terminated), (1, rows.truncated)):
        own = rows[slice(env, None, 2)]
        ended = (own.terminated | own.truncated)[:-1]
        assert flag[env::2].any() and 2 <= ended.sum() <= 5
        reached, following = own.next_observation[:-1], own.observation[1:]
        np.testing.assert_array_equal(following[~ended], reached[~ended])
        starts = following[ended][:, 0]
        assert (starts < 1).all() and len(np.unique(starts)) == len(starts)
        np.testing.assert_allclose(own.next_observation, own.observation + own.action, atol=1e-6)
    assert not rows.truncated[0::2].any(), "environment 0 was to terminate"
    assert (rows.next_observation[rows.terminated] > 3).all()


def test_actions_are_limited_before_they_are_recorded():
    steps = Collector(Walk, 2, seed=0).step(np.array([[7.0], [-7.0]]))
    assert steps.action.tolist() == [[1.0], [-1.0]]


@pytest.mark.parametrize("n", range(9))
def test_a_restored_collector_goes_on_as_if_it_had_never_stopped(n):
    whole, first, second = (Collector(Walk, 2, seed=3) for _ in range(3))
    expected = walked(whole, n + 10)[slice(2 * n, None)]
    rows = walked(first, n) if n else None
    needed = first.rows_needed(first.state())
    second.restore(first.state(), rows[slice(2 * n - needed, None)] if needed and rows else None)
    found = walked(second, 10)
    for name in ("observation", "action", "reward", "next_observation", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_an_environment_that_does_not_repeat_itself_is_refused():
    first, second = (Collector(lambda: Walk(steady=False), 2, seed=0) for _ in range(2))
    rows = concatenate([first.step(0 * ACTIONS)])
    while first.state()["lengths"] == [0, 0]:
        rows = concatenate([rows, first.step(0 * ACTIONS)])
    with pytest.raises(ValueError, match="does not repeat an episode"):
        second.restore(first.state(), rows)
    with pytest.raises(ValueError, match="begun with 2 environments, not 1"):
        Collector(Walk, 1, seed=0).restore(first.state(), rows)
