"""Laws of EpisodeDataset: the flat layout, its parts, its folder, and what it refuses."""

import io
import json
import os

import numpy as np
import pytest
from rich.console import Console

from forethought.data import summary
from forethought.data.episodes import FORMAT_VERSION, Episode, EpisodeDataset, require_finite

ARRAYS = ("observations", "actions", "rewards", "starts", "terminated")


def make_episode(rng, length, *, terminated=False, observation_dim=3, action_dim=2):
    return Episode(
        rng.normal(size=(length + 1, observation_dim)).astype(np.float32),
        rng.uniform(-1, 1, size=(length, action_dim)).astype(np.float32),
        rng.normal(size=length).astype(np.float32),
        terminated,
    )


def make_dataset(lengths=(5, 1, 8, 3), *, seed=0, **metadata):
    rng = np.random.default_rng(seed)
    episodes = [make_episode(rng, n, terminated=i % 2 == 0) for i, n in enumerate(lengths)]
    return EpisodeDataset.from_episodes(episodes, **metadata)


def assert_same(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.metadata == other.metadata


def episode_set(dataset):
    return {(e.observations.tobytes(), e.actions.tobytes(), e.terminated) for e in dataset}


def test_flat_layout_has_one_zero_padded_row_after_each_episode():
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, 2, terminated=True), make_episode(rng, 3)]
    dataset = EpisodeDataset.from_episodes(episodes)
    np.testing.assert_array_equal(dataset.starts, [0, 3, 7])
    assert len(dataset) == 2 and dataset.n_steps == 5
    for name in ("actions", "rewards"):
        flat = getattr(dataset, name)
        np.testing.assert_array_equal(flat[[2, 6]], np.zeros_like(flat[[2, 6]]))
        np.testing.assert_array_equal(flat[:2], getattr(episodes[0], name))
        np.testing.assert_array_equal(flat[3:6], getattr(episodes[1], name))
    np.testing.assert_array_equal(dataset.observations[3:7], episodes[1].observations)


def test_episodes_come_back_by_index_and_in_order():
    rng = np.random.default_rng(1)
    episodes = [make_episode(rng, n) for n in (4, 1, 6)]
    dataset = EpisodeDataset.from_episodes(episodes)
    for found, expected in zip(dataset, episodes, strict=True):
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(dataset[-1].observations, episodes[-1].observations)
    with pytest.raises(IndexError):
        dataset[3]


def test_spaces_know_the_widths_and_discrete_actions():
    spaces = make_dataset().spaces
    assert (spaces.observation_dim, spaces.action_dim, spaces.n_actions) == (3, 2, None)
    assert make_dataset(n_actions=5).spaces.n_actions == 5


def test_fingerprint_changes_with_any_array_and_with_nothing_else():
    dataset = make_dataset()
    assert make_dataset(builder="x").fingerprint == dataset.fingerprint
    prints = {dataset.fingerprint}
    for name in ("observations", "actions", "rewards", "terminated"):
        changed = make_dataset()
        array = getattr(changed, name)
        array.flat[2] = ~array.flat[2] if array.dtype == bool else array.flat[2] + 1e-3
        prints.add(changed.fingerprint)
    prints.add(EpisodeDataset.from_episodes(list(dataset)[:3]).fingerprint)
    assert len(prints) == 6


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 1.0])
def test_returns_to_go_matches_double_loop(discount):
    dataset = make_dataset((5, 1, 300, 3), seed=4)
    expected = np.zeros(len(dataset.rewards))
    for first, end in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
        for row in range(first, end):
            for later in range(row, end):
                expected[row] += discount ** (later - row) * float(dataset.rewards[later])
    found = dataset.returns_to_go(discount)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[dataset.starts[1:] - 1], 0)


@pytest.mark.parametrize("discount", [-0.1, 1.1])
def test_returns_to_go_refuses_other_discounts(discount):
    with pytest.raises(ValueError, match="must lie in"):
        make_dataset().returns_to_go(discount)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.99])
def test_split_is_disjoint_complete_and_a_function_of_the_seed(fraction):
    dataset = make_dataset(tuple(range(1, 21)), builder="x")
    first, second = dataset.split(fraction, seed=3)
    assert len(first) == min(max(round(fraction * 20), 1), 19)
    assert len(first) + len(second) == 20
    assert episode_set(first) | episode_set(second) == episode_set(dataset)
    assert not episode_set(first) & episode_set(second)
    assert first.metadata == second.metadata == {"builder": "x"}
    assert_same(first, dataset.split(fraction, seed=3)[0])
    assert dataset.split(0.5, seed=4)[0].fingerprint != dataset.split(0.5, seed=3)[0].fingerprint


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_split_refuses_an_empty_part(fraction):
    with pytest.raises(ValueError, match="cannot split 4 episodes"):
        make_dataset().split(fraction, seed=0)
    with pytest.raises(ValueError, match="cannot split 1 episodes"):
        make_dataset((5,)).split(0.5, seed=0)


def test_filter_keeps_the_episodes_asked_for():
    dataset = make_dataset(builder="x")
    kept = dataset.filter(lambda episode: len(episode) >= 3)
    assert [len(episode) for episode in kept] == [5, 8, 3]
    np.testing.assert_array_equal(kept.terminated, [True, True, False])
    assert kept.metadata == {"builder": "x"}
    with pytest.raises(ValueError, match="empty"):
        dataset.filter(lambda episode: False)


def test_cut_begins_episodes_at_the_rows_and_drops_the_step_into_them():
    dataset = make_dataset((9, 4), seed=2)  # rows 0..9 and 10..14, the first one terminated
    pieces = dataset.cut(np.array([4, 10, 13, 14]))  # row 10 is a start already; 13 and 14 lone
    assert [len(piece) for piece in pieces] == [3, 5, 2]
    np.testing.assert_array_equal(pieces.terminated, [False, True, False])
    for piece, (first, last) in zip(pieces, [(0, 3), (4, 9), (10, 12)], strict=True):
        np.testing.assert_array_equal(piece.observations, dataset.observations[first : last + 1])
        np.testing.assert_array_equal(piece.actions, dataset.actions[first:last])
        np.testing.assert_array_equal(piece.rewards, dataset.rewards[first:last])
    padding = pieces.starts[1:] - 1
    np.testing.assert_array_equal(pieces.actions[padding], 0)
    np.testing.assert_array_equal(pieces.rewards[padding], 0)
    assert_same(dataset.cut(np.array([], dtype=int)), dataset)


def test_cut_leaves_the_original_alone_and_works_on_memory_maps(tmp_path):
    dataset = make_dataset((9, 4))
    dataset.save(tmp_path / "data")
    opened = EpisodeDataset.open(tmp_path / "data")
    assert_same(opened.cut(np.array([4])), dataset.cut(np.array([4])))
    assert_same(opened, dataset)


def test_cut_refuses_rows_outside_and_cuts_that_leave_nothing():
    dataset = make_dataset((3,))
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 4\]"):
        dataset.cut(np.array([5]))
    with pytest.raises(ValueError, match="empty after 3 cuts"):
        dataset.cut(np.array([1, 2, 3]))


def test_episodes_with_mismatched_lengths_are_refused():
    rows = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="4 actions needs 5 observations .* got 4 and 4"):
        Episode(rows, rows, np.zeros(4))
    with pytest.raises(ValueError, match="got 4 and 2"):
        Episode(rows, rows[:3], np.zeros(2))


def test_from_episodes_refuses_none_and_unequal_widths():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="empty: no episode"):
        EpisodeDataset.from_episodes([])
    with pytest.raises(ValueError, match="one O and one A"):
        other = make_episode(rng, 3, observation_dim=4)
        EpisodeDataset.from_episodes([make_episode(rng, 3), other])
    with pytest.raises(ValueError, match="one O and one A"):
        rows = np.zeros((4, 2), np.float32)
        EpisodeDataset.from_episodes([Episode(rows, np.zeros(3), np.zeros(3))])
    with pytest.raises(ValueError, match="at least one step"):
        EpisodeDataset.from_episodes([make_episode(rng, 0)])


def test_metadata_may_be_called_episodes():
    dataset = make_dataset(episodes=4)
    assert dataset.filter(lambda episode: True).metadata == {"episodes": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((5, 2))}, "mismatched lengths: 6 observation rows, 5 action rows"),
        ({"rewards": np.zeros((6, 1))}, r"rewards \(rows,\)"),
        ({"starts": np.array([0, 5])}, "do not cover its 6 rows"),
        ({"starts": np.array([0])}, "empty"),
        ({"starts": np.array([0, 5, 6])}, "at least one step"),
        ({"terminated": np.zeros(2, bool)}, "`terminated` flag"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, message):
    arrays = {
        "observations": np.zeros((6, 3), np.float32),
        "actions": np.zeros((6, 2), np.float32),
        "rewards": np.zeros(6, np.float32),
        "starts": np.array([0, 6]),
        "terminated": np.zeros(1, bool),
    }
    EpisodeDataset(**arrays)
    with pytest.raises(ValueError, match=message):
        EpisodeDataset(**(arrays | change))


def test_values_that_are_not_finite_are_named_by_row():
    values = np.zeros((300_000, 2), np.float32)
    require_finite(values, "log")
    values[270_000, 1] = np.inf
    with pytest.raises(ValueError, match="log holds NaN or infinite values .first in row 270000"):
        require_finite(values, "log")


def test_save_and_open_round_trip(tmp_path):
    dataset = make_dataset(builder="x", seed_of_builder=3)
    dataset.goal_changes = np.array([2, 7])
    dataset.save(tmp_path / "deep" / "data")
    opened = EpisodeDataset.open(tmp_path / "deep" / "data")
    assert_same(opened, dataset)
    assert opened.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(opened.goal_changes, [2, 7])
    assert isinstance(opened.observations, np.memmap)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["data"]


def test_saved_folder_is_readable_by_others_as_any_new_folder(tmp_path):
    make_dataset().save(tmp_path / "data")
    (tmp_path / "plain").mkdir()
    assert os.stat(tmp_path / "data").st_mode == os.stat(tmp_path / "plain").st_mode


def test_save_replaces_a_data_set_even_the_one_it_was_opened_from(tmp_path):
    make_dataset().save(tmp_path / "data")
    opened = EpisodeDataset.open(tmp_path / "data")
    opened.filter(lambda episode: len(episode) > 3).save(tmp_path / "data")
    assert len(EpisodeDataset.open(tmp_path / "data")) == 2
    opened.save(tmp_path / "data")
    assert_same(EpisodeDataset.open(tmp_path / "data"), make_dataset())
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_failing_save_keeps_the_old_folder(tmp_path, monkeypatch, failing):
    old, new = make_dataset(), make_dataset(seed=1)
    old.save(tmp_path / "data")
    write, rename = np.save, type(tmp_path).rename

    def fail_to_write(file, array):
        if file.name == "starts.npy":
            raise OSError("disk full")
        write(file, array)

    def fail_to_rename(source, target):
        if target.name == "data" and source.suffix != ".old":
            raise OSError("disk full")
        return rename(source, target)

    if failing == "write":
        monkeypatch.setattr(np, "save", fail_to_write)
    else:
        monkeypatch.setattr(type(tmp_path), "rename", fail_to_rename)
    with pytest.raises(OSError, match="disk full"):
        new.save(tmp_path / "data")
    assert_same(EpisodeDataset.open(tmp_path / "data"), old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_save_never_replaces_a_folder_that_is_not_a_data_set(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is not a data set"):
        make_dataset().save(tmp_path)
    with pytest.raises(ValueError, match="exists and is not a data set"):
        make_dataset().save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    make_dataset().save(tmp_path / "empty")


def test_open_refuses_other_folders_and_newer_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match="forethought data build NAME"):
        EpisodeDataset.open(tmp_path)
    make_dataset().save(tmp_path / "data")
    header_file = tmp_path / "data" / "dataset.json"
    header = json.loads(header_file.read_text())
    header_file.write_text(json.dumps(header | {"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(ValueError, match=f"reads up to {FORMAT_VERSION}.*pip install --upgrade"):
        EpisodeDataset.open(tmp_path / "data")
    for damaged in ("{", "[]", json.dumps({"format_version": 1})):
        header_file.write_text(damaged)
        with pytest.raises(ValueError, match="dataset.json is damaged"):
            EpisodeDataset.open(tmp_path / "data")


@pytest.mark.parametrize("name", ARRAYS)
def test_open_refuses_missing_and_truncated_arrays(tmp_path, name):
    make_dataset().save(tmp_path / "data")
    file = tmp_path / "data" / f"{name}.npy"
    content = file.read_bytes()
    for kept in (len(content) - 1, 20, 0):
        file.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=f"{name}.npy is truncated or damaged"):
            EpisodeDataset.open(tmp_path / "data")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.npy is missing"):
        EpisodeDataset.open(tmp_path / "data")


def test_open_refuses_arrays_that_disagree(tmp_path):
    make_dataset().save(tmp_path / "data")
    np.save(tmp_path / "data" / "rewards.npy", np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="data: mismatched lengths"):
        EpisodeDataset.open(tmp_path / "data")
    make_dataset((5, 1, 8)).save(tmp_path / "other")
    header = (tmp_path / "other" / "dataset.json").read_text()
    make_dataset().save(tmp_path / "data")
    (tmp_path / "data" / "dataset.json").write_text(header)
    with pytest.raises(ValueError, match="truncated: 17 steps found, 14 recorded"):
        EpisodeDataset.open(tmp_path / "data")


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_open_names_the_row_that_is_not_finite(tmp_path, name):
    dataset = make_dataset()
    getattr(dataset, name)[4] = np.nan
    dataset.save(tmp_path / "data")
    with pytest.raises(ValueError, match=f"{name} holds NaN or infinite values .first in row 4"):
        EpisodeDataset.open(tmp_path / "data")


@pytest.mark.parametrize("chunk", [3, 1 << 16])
def test_summary_leaves_padding_out_and_does_not_depend_on_chunks(monkeypatch, chunk):
    monkeypatch.setattr(summary, "CHUNK", chunk)
    dataset = make_dataset(builder="x")
    dataset.observations += 1000  # far from zero: the deviation must keep its digits
    found = summary.summarize(dataset)
    columns = {
        "observations": np.concatenate([e.observations for e in dataset]),
        "actions": np.concatenate([e.actions for e in dataset]),
        "rewards": np.concatenate([e.rewards for e in dataset]),
        "returns": np.array([e.rewards.sum(dtype=np.float64) for e in dataset]),
        "lengths": np.array([len(e) for e in dataset]),
    }
    for name, values in columns.items():
        values = values.astype(np.float64)
        for statistic in ("min", "mean", "max", "std"):
            expected = getattr(np, statistic)(values, axis=0)
            np.testing.assert_allclose(found[name][statistic], expected, rtol=1e-9, atol=1e-9)
    for name in ("rewards", "returns", "lengths"):
        assert sum(found[name]["histogram"]["counts"]) == len(columns[name])
    assert found["share_terminated"] == 0.5
    assert json.loads(json.dumps(found)) == found


def test_summary_prints_on_a_narrow_console_and_for_constant_rewards():
    dataset = make_dataset((4,), notes=["a [bold] claim"])
    dataset.rewards[:] = 0
    console = Console(width=80, record=True, file=io.StringIO())
    summary.print_summary(dataset, console)
    text = console.export_text()
    assert "a [bold] claim" in text and "observations[2]" in text
    assert summary.text_histogram([0, 1, 50, 100]) == " ▁▄█"


@pytest.mark.parametrize(("given", "kept"), [(np.float64, np.float32), (np.int64, np.int64)])
def test_numbers_are_single_precision_and_choices_whole(given, kept):
    rows = np.arange(8.0).reshape(4, 2)
    data = EpisodeDataset.from_episodes([Episode(rows, rows[1:, :1].astype(given), rows[1:, 0])])
    assert data.observations.dtype == data.rewards.dtype == np.float32
    assert data.actions.dtype == kept
