"""Ring order and wrap-around; the record on disk; episodes from interleaved environments."""

import numpy as np
import pytest

from forethought.data.replay import FIELDS, ReplayBuffer, StepRecord, Steps, concatenate


def numbered(first: int, n: int) -> Steps:
    """Rows whose reward is their number; the rest follows from it."""
    number = np.arange(first, first + n, dtype=np.float32)
    return Steps(
        observation=np.stack([number, -number], axis=1),
        action=number[:, None] / 10,
        reward=number,
        next_observation=np.stack([number + 0.5, -number], axis=1),
        terminated=number % 7 == 6,
        truncated=number % 5 == 4,
    )


@pytest.mark.parametrize("sizes", [[1] * 12, [3, 3, 3, 3], [2, 9, 1], [12], [5, 5, 2]])
def test_ring_holds_the_latest_rows_each_in_its_slot(sizes):
    buffer, first = ReplayBuffer(5, 2, 1), 0
    for size in sizes:
        buffer.add(numbered(first, size))
        first += size
        latest = range(max(0, first - 5), first)
        assert len(buffer) == len(latest)
        for number in latest:
            step = buffer[np.array([number % 5])]
            expected = numbered(number, 1)
            for name in ("observation", "action", "reward", "next_observation", "terminated"):
                np.testing.assert_array_equal(getattr(step, name), getattr(expected, name))
    assert buffer.total == first == 12


def test_a_time_limit_is_no_termination():
    buffer = ReplayBuffer(20, 2, 1)
    buffer.add(numbered(0, 14))
    ends = buffer[np.arange(14)].terminated.numpy()
    np.testing.assert_array_equal(np.flatnonzero(ends), [6, 13])


def test_record_returns_what_was_flushed_and_forgets_what_was_cut(tmp_path):
    record = StepRecord(tmp_path)
    assert record.latest() is None
    for first in (0, 4, 8):
        record.add(numbered(first, 2))
        record.add(numbered(first + 2, 2))
        record.flush()
    record.add(numbered(12, 2))  # never flushed
    again = StepRecord(tmp_path)
    for n in (1, 4, 6, 12, 99):
        rows, expected = again.latest(n), numbered(max(0, 12 - n), min(n, 12))
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))
    again.cut(8)
    assert again.latest().reward.tolist() == list(range(8)) and again.total == 8


def test_episodes_are_taken_apart_by_environment(tmp_path):
    """Two environments in turn: one terminates after 3 steps, the other is truncated after 4."""
    record, rng = StepRecord(tmp_path), np.random.default_rng(0)
    paths = rng.normal(size=(2, 7, 2)).astype(np.float32)  # next observations
    ends = {(0, 2): "terminated", (1, 3): "truncated"}
    rows, here = [], np.zeros((2, 2), np.float32)
    for t in range(6):
        flags = {"terminated": np.zeros(2, bool), "truncated": np.zeros(2, bool)}
        for env in range(2):
            if (env, t) in ends:
                flags[ends[env, t]][env] = True
        reached = paths[:, t]
        action, reward = np.full((2, 1), t, np.float32), np.array([t, 10 + t], np.float32)
        rows.append(
            Steps(observation=here, action=action, reward=reward, next_observation=reached, **flags)
        )
        here = np.where((flags["terminated"] | flags["truncated"])[:, None], 0, reached)
    record.add(concatenate(rows))
    record.flush()
    dataset = record.dataset(2, {"env": "none"})
    assert [len(episode) for episode in dataset] == [3, 4, 3, 2]  # by the step they began at
    assert dataset.terminated.tolist() == [True, False, False, False]
    assert [e.rewards[0] for e in dataset] == [0, 10, 3, 14]
    np.testing.assert_array_equal(dataset[1].observations[1:], paths[1, :4])
    np.testing.assert_array_equal(dataset[2].observations[0], 0)


def test_an_empty_record_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no steps yet"):
        StepRecord(tmp_path).dataset(1, {})
    with pytest.raises(ValueError, match="buffer of 0 steps"):
        ReplayBuffer(0, 1, 1)
