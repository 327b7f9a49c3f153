"""Laws of the views: windows and transitions equal a plain loop over episodes."""

import itertools

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.views import HindsightGoals, TransitionView, Windows

LENGTHS = (7, 1, 12, 3, 5)


def present(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor


def make_dataset(lengths=LENGTHS, *, seed=0):
    rng = np.random.default_rng(seed)
    episodes = [
        Episode(
            rng.normal(size=(length + 1, 3)).astype(np.float32),
            rng.uniform(0.1, 1, size=(length, 2)).astype(
                np.float32
            ),  # never zero: not like padding
            rng.uniform(0.1, 1, size=length).astype(np.float32),
            terminated=index % 2 == 0,
        )
        for index, length in enumerate(lengths)
    ]
    return EpisodeDataset.from_episodes(episodes)


def reference_window(episode, start, *, horizon, stride, returns):
    """One window, row by row, from an Episode; ``returns`` are the episode's returns-to-go."""
    steps = len(episode)
    names = ("observations", "actions", "rewards", "returns_to_go", "observation_mask")
    window = {name: [] for name in (*names, "action_mask")}
    for row in range(horizon):
        time = start + row * stride
        window["observations"].append(episode.observations[min(time, steps)])
        window["observation_mask"].append(time <= steps)
        block = []
        for step in range(time, time + stride):
            block.append(episode.actions[step] if step < steps else np.zeros(2, np.float32))
        window["actions"].append(np.concatenate(block))
        window["action_mask"].append(time + stride <= steps)
        window["rewards"].append(episode.rewards[time] if time < steps else 0.0)
        window["returns_to_go"].append(returns[time] if time < steps else 0.0)
    return window


def reference_windows(dataset, *, horizon, stride, pad, discount=0.9):
    windows = []
    for episode in dataset:
        steps = len(episode)
        powers = discount ** np.arange(steps)
        returns = [powers[: steps - t] @ episode.rewards[t:] for t in range(steps)]
        last_start = steps - 1 if pad == "repeat" else steps - (horizon - 1) * stride
        for start in range(last_start + 1):
            windows.append(
                reference_window(episode, start, horizon=horizon, stride=stride, returns=returns)
            )
    return {name: np.array([w[name] for w in windows]) for name in windows[0]} if windows else {}


CASES = list(itertools.product((2, 3, 4, 8), (1, 2, 3, 5), ("repeat", "none"), ("block", "none")))


@pytest.mark.parametrize(("horizon", "stride", "pad", "actions"), CASES)
def test_windows_match_the_reference(horizon, stride, pad, actions):
    dataset = make_dataset()
    expected = reference_windows(dataset, horizon=horizon, stride=stride, pad=pad)
    options = {"stride": stride, "pad": pad, "actions": actions}
    if not expected:
        with pytest.raises(ValueError, match="no window of .* fits into any episode"):
            Windows(dataset, horizon, **options)
        return
    view = Windows(dataset, horizon, **options)
    assert len(view) == len(expected["observations"])
    batch = view[np.arange(len(view))]
    for name in ("observations", "observation_mask", "action_mask"):
        np.testing.assert_array_equal(getattr(batch, name).numpy(), expected[name], name)
    if actions == "block":
        np.testing.assert_array_equal(batch.actions.numpy(), expected["actions"])
    else:
        assert batch.actions.shape == (len(view), horizon, 0)
    np.testing.assert_array_equal(batch.times.numpy(), np.arange(horizon) * stride)
    assert batch.rewards is None and batch.returns_to_go is None
    if pad == "none":
        assert present(batch.observation_mask).all()


@pytest.mark.parametrize("pad", ["repeat", "none"])
@pytest.mark.parametrize("horizon", [2, 5])
def test_rewards_and_returns_match_the_reference(horizon, pad):
    dataset = make_dataset()
    expected = reference_windows(dataset, horizon=horizon, stride=1, pad=pad)
    view = Windows(dataset, horizon, pad=pad, discount=0.9)
    batch = view[np.arange(len(view))]
    np.testing.assert_array_equal(
        present(batch.rewards).numpy(), expected["rewards"].astype(np.float32)
    )
    np.testing.assert_allclose(
        present(batch.returns_to_go).numpy(), expected["returns_to_go"], rtol=1e-6, atol=1e-6
    )


def test_masks_differ_exactly_at_the_last_observation():
    view = Windows(make_dataset(), 6)
    batch = view[np.arange(len(view))]
    observed, acted = present(batch.observation_mask), present(batch.action_mask)
    # A window that reaches its episode's end holds its last observation once; others never.
    torch.testing.assert_close((observed & ~acted).sum(dim=1), (~acted.all(dim=1)).long())
    assert not (acted & ~observed).any()
    padding = batch.actions[~acted]
    torch.testing.assert_close(padding, torch.zeros_like(padding))


def test_batches_follow_their_indices_in_any_order(tmp_path):
    dataset = make_dataset()
    view = Windows(dataset, 4, stride=2)
    everything = view[np.arange(len(view))]
    indices = np.random.default_rng(0).integers(0, len(view), size=50)
    dataset.save(tmp_path / "data")
    opened = Windows(EpisodeDataset.open(tmp_path / "data"), 4, stride=2)
    for batch in (view[indices], opened[indices]):
        for name in ("observations", "actions", "observation_mask", "action_mask"):
            expected = getattr(everything[torch.from_numpy(indices)], name)
            torch.testing.assert_close(getattr(batch, name), expected, rtol=0, atol=0)


def test_batches_are_copies_of_the_data():
    dataset = make_dataset()
    before = dataset.fingerprint
    batch = Windows(dataset, 4)[np.arange(3)]
    batch.observations.zero_()
    batch.actions.zero_()
    assert dataset.fingerprint == before


def test_transitions_match_a_loop():
    dataset = make_dataset()
    expected = {name: [] for name in ("observation", "action", "reward", "next_observation")}
    expected |= {"next_action": [], "terminated": []}
    for episode in dataset:
        for t in range(len(episode)):
            last = t == len(episode) - 1
            expected["observation"].append(episode.observations[t])
            expected["action"].append(episode.actions[t])
            expected["reward"].append(episode.rewards[t])
            expected["next_observation"].append(episode.observations[t + 1])
            expected["next_action"].append(np.zeros(2) if last else episode.actions[t + 1])
            expected["terminated"].append(last and episode.terminated)
    view = TransitionView(dataset)
    assert len(view) == dataset.n_steps == sum(LENGTHS)
    batch = view[np.arange(len(view))]
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(batch, name).numpy(), np.array(values), name)
    assert batch.terminated.dtype == torch.bool and batch.terminated.sum() == 3
    shuffled = np.random.default_rng(0).permutation(len(view))
    torch.testing.assert_close(view[shuffled].reward, batch.reward[torch.from_numpy(shuffled)])


@pytest.mark.parametrize("n", [2, 3, 100])
def test_several_steps_are_the_single_steps_joined_up_to_the_episode_s_end(n):
    dataset, discount = make_dataset(), 0.9
    single = TransitionView(dataset)
    view = TransitionView(dataset, n_steps=n, discount=discount)
    joined, first = view[np.arange(len(view))], 0
    for length in LENGTHS:
        for t in range(length):
            end = min(t + n, length)
            way, last = single[np.arange(first + t, first + end)], single[[first + end - 1]]
            weights = discount ** torch.arange(end - t)
            torch.testing.assert_close(joined.reward[first + t], (way.reward * weights).sum())
            for name in ("next_observation", "next_action", "terminated"):
                assert getattr(joined, name)[first + t].equal(getattr(last, name)[0]), name
            assert float(present(joined.discount)[first + t]) == pytest.approx(
                discount ** (end - t)
            )
        first += length
    assert joined.observation.equal(single[np.arange(len(view))].observation)


def test_several_steps_with_goals_from_hindsight_are_refused():
    with pytest.raises(ValueError, match="steps of 2 cannot have goals from hindsight"):
        TransitionView(make_dataset(), hindsight=GOALS, n_steps=2)


# ------------------------------------------------------------------------- hindsight goals


GOALS = HindsightGoals(discount=0.8, radius=0.7, dims=(0, 2))


def test_hindsight_goals_lie_in_the_future_of_the_same_episode():
    dataset = make_dataset()
    view = TransitionView(dataset, hindsight=GOALS)
    assert len(view) == dataset.n_steps * view.N_GOALS
    rng, plain = np.random.default_rng(0), TransitionView(dataset)
    indices = rng.integers(len(view), size=2_000)
    batch, steps = view[indices], plain[indices // view.N_GOALS]
    for name in ("observation", "action", "next_observation", "next_action", "terminated"):
        torch.testing.assert_close(getattr(batch, name), getattr(steps, name), rtol=0, atol=0)
    first_step = np.cumsum([0, *LENGTHS])
    for index, goal in zip(indices // view.N_GOALS, present(batch.goal).numpy(), strict=True):
        episode = int(np.searchsorted(first_step, index, side="right")) - 1
        future = dataset[episode].observations[index - first_step[episode] + 1 :]
        assert (future == goal).all(axis=1).any(), f"step {index}: the goal is not ahead"


def test_hindsight_reward_is_one_within_the_radius_of_the_goal_in_its_dimensions():
    view = TransitionView(make_dataset(), hindsight=GOALS)
    batch = view[np.random.default_rng(0).integers(len(view), size=2_000)]
    gap = batch.next_observation - present(batch.goal)
    near = gap[:, [0, 2]].norm(dim=1) <= 0.7
    torch.testing.assert_close(batch.reward, near.float(), rtol=0, atol=0)
    assert 0.1 < batch.reward.mean() < 0.9
    assert bool((gap[near, 1].abs() > 0.7).any()), "a dimension that is no goal should not count"


@pytest.mark.parametrize("steps_left", [1, 2, 9, 500])
def test_goal_offsets_are_geometric_up_to_the_episode_s_end(steps_left):
    n = TransitionView.N_GOALS
    fraction = (np.arange(n) + 0.5) / n
    offsets = GOALS.offsets(fraction, np.full(n, steps_left))
    expected = 0.8 ** np.arange(steps_left)
    found = np.bincount(offsets, minlength=steps_left + 1)[1:] / n
    # quantiles: off by one at most
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1 / n)
    assert offsets.min() == 1 and offsets.max() <= steps_left


def test_a_batch_with_hindsight_goals_is_a_function_of_its_indices():
    view = TransitionView(make_dataset(), hindsight=GOALS)
    indices = np.random.default_rng(0).integers(len(view), size=50)
    goal = present(view[indices].goal)
    torch.testing.assert_close(present(view[indices[::-1]].goal).flip(0), goal, rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong", [{"discount": 1.0}, {"discount": 0.0}, {"radius": -1.0}, {"dims": ()}]
)
def test_hindsight_settings_that_make_no_sense_are_refused(wrong):
    settings = {"discount": 0.9, "radius": 0.5, "dims": (0,), **wrong}
    with pytest.raises(ValueError, match="hindsight goals need 0 < discount < 1"):
        HindsightGoals(**settings)


def test_goal_dimensions_that_do_not_exist_are_refused():
    goals = HindsightGoals(discount=0.9, radius=1.0, dims=(0, 3))
    with pytest.raises(ValueError, match=r"dimensions \(0, 3\) do not exist in .* 3 dimensions"):
        TransitionView(make_dataset(), hindsight=goals)


def test_views_give_float32():
    dataset = make_dataset()
    batch, step = (
        Windows(dataset, 4, discount=0.9)[np.arange(2)],
        TransitionView(dataset)[np.arange(2)],
    )
    tensors = (batch.observations, batch.actions, batch.rewards, batch.returns_to_go)
    for tensor in (*tensors, step.observation, step.action, step.reward, step.next_observation):
        assert tensor is not None and tensor.dtype == torch.float32


@pytest.mark.parametrize(
    ("horizon", "options", "message"),
    [
        (1, {}, "horizon >= 2 and stride >= 1, got 1 and 1"),
        (4, {"stride": 0}, "got 4 and 0"),
        (4, {"stride": 2, "discount": 0.9}, "stride 1 only, got stride 2"),
        (4, {"discount": 1.5}, "discount is 1.5"),
        (4, {"pad": "zero"}, "'zero'"),
        (4, {"actions": "first"}, "'first'"),
        (14, {"pad": "none"}, r"no window of 13 steps fits .*longest: 12 steps.*pad='repeat'"),
    ],
)
def test_windows_that_make_no_sense_are_refused(horizon, options, message):
    with pytest.raises(ValueError, match=message):
        Windows(make_dataset(), horizon, **options)


def test_an_index_past_the_end_is_refused():
    dataset = make_dataset()
    for view in (Windows(dataset, 4), TransitionView(dataset)):
        with pytest.raises(IndexError):
            view[np.array([len(view)])]
