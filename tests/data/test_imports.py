"""Laws of the importers: what is exported in another format comes back, row for row.

The files are written as the formats' own tools write them (D4RL's generation scripts with h5py,
Minari's API, OGBench's loader), small and random.
"""

import sys

import h5py
import numpy as np
import pytest

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.imports import (
    from_d4rl_hdf5,
    from_minari,
    from_ogbench_npz,
    import_dataset,
)


def make_dataset(*, n_episodes=7, observation_dim=3, action_dim=2, seed=0):
    rng = np.random.default_rng(seed)
    episodes = []
    for index, length in enumerate(rng.integers(1, 12, size=n_episodes)):
        observations = rng.normal(size=(length + 1, observation_dim)).astype(np.float32)
        actions = rng.uniform(-1, 1, size=(length, action_dim)).astype(np.float32)
        rewards = rng.normal(size=length).astype(np.float32)
        episodes.append(Episode(observations, actions, rewards, terminated=index % 3 == 0))
    return EpisodeDataset.from_episodes(episodes)


def assert_same(imported, expected):
    for name in ("starts", "observations", "actions", "rewards", "terminated"):
        np.testing.assert_array_equal(getattr(imported, name), getattr(expected, name), name)
    assert imported.observations.dtype == imported.rewards.dtype == np.float32


def write_hdf5(file, arrays, *, metadata=True):
    with h5py.File(file, "w") as handle:
        for name, values in arrays.items():
            handle.create_dataset(name, data=values, compression="gzip" if len(values) else None)
        if metadata:
            handle["metadata/algorithm"] = np.bytes_("SAC")
            handle["metadata/iteration"] = np.int32(2000)
            handle["metadata/policy/fc0/weight"] = np.zeros((4, 3), np.float32)
    return file


def locomotion_arrays(dataset, *, seed=1):
    """As D4RL's collect_data.py: one row per step."""
    rows = {name: [] for name in ("observations", "next_observations", "actions", "rewards")}
    terminals, timeouts = [], []
    for episode in dataset:
        rows["observations"].append(episode.observations[:-1])
        rows["next_observations"].append(episode.observations[1:])
        rows["actions"].append(episode.actions)
        rows["rewards"].append(episode.rewards)
        last = np.arange(len(episode)) == len(episode) - 1
        terminals.append(last & episode.terminated)
        timeouts.append(last & (not episode.terminated))
    arrays = {name: np.concatenate(parts) for name, parts in rows.items()}
    arrays |= {"terminals": np.concatenate(terminals), "timeouts": np.concatenate(timeouts)}
    n_rows = len(arrays["rewards"])
    arrays["infos/action_log_probs"] = np.zeros(n_rows, np.float32)
    arrays["infos/qpos"] = np.random.default_rng(seed).normal(size=(n_rows, 6)).astype("f4")
    arrays["infos/qvel"] = np.zeros((n_rows, 6), np.float32)
    return arrays


def maze2d_arrays(n_rows=60, *, seed=0):
    """As D4RL's generate_maze2d_datasets.py and relabel_maze2d_rewards.py; new goals at 20, 45."""
    rng = np.random.default_rng(seed)
    observations = np.cumsum(rng.normal(scale=0.1, size=(n_rows, 4)), axis=0) + 2
    observations = observations.astype(np.float32)
    goals = np.repeat(np.array([[1, 1], [3, 2], [2, 5]], "f4"), [20, 25, n_rows - 45], axis=0)
    timeouts = np.zeros(n_rows, bool)
    timeouts[[19, 44]] = True
    near = np.linalg.norm(observations[:, :2] - 2, axis=1) <= 0.5
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, size=(n_rows, 2)).astype(np.float32),
        "rewards": near.astype(np.float32),  # describes observation t: off by one (#194)
        "terminals": np.zeros(n_rows, bool),
        "timeouts": timeouts,
        "infos/goal": goals,
        "infos/qpos": observations[:, :2],
        "infos/qvel": observations[:, 2:],
    }


def antmaze_arrays(lengths=(6, 9, 5), *, seed=0):
    """As D4RL's generate_ant_maze_datasets.py: whole episodes, each reset is a jump in x, y."""
    rng = np.random.default_rng(seed)
    observations, goals, timeouts, rewards = [], [], [], []
    for index, length in enumerate(lengths):
        walk = np.cumsum(rng.uniform(-0.3, 0.3, size=(length, 5)), axis=0)
        walk[:, 0] += 10.0 * (index % 2)
        observations.append(walk)
        goals.append(np.tile(rng.uniform(0, 20, size=2), (length, 1)))
        timeouts.append(np.arange(length) == length - 1)
        rewards.append(np.arange(length) >= length - 3)  # near the goal from then on (#199)
    rows = sum(lengths)
    flags = np.concatenate(rewards).astype(np.float32)
    return {
        "observations": np.concatenate(observations).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        "rewards": flags,
        "terminals": flags,  # relabel_antmaze_rewards.py writes floats
        "timeouts": np.concatenate(timeouts),
        "infos/goal": np.concatenate(goals).astype(np.float32),
        "infos/qpos": np.concatenate(observations).astype(np.float32)[:, :3],
        "infos/qvel": np.zeros((rows, 2), np.float32),
    }


def test_locomotion_file_with_next_observations_comes_back_exactly(tmp_path):
    dataset = make_dataset()
    imported = import_dataset(write_hdf5(tmp_path / "hopper.hdf5", locomotion_arrays(dataset)))
    assert_same(imported, dataset)
    assert imported.metadata["layout"] == "locomotion"
    assert imported.metadata["source_metadata"] == {"algorithm": "SAC", "iteration": 2000}
    assert imported.metadata["dropped_steps"] == 0


def test_resets_that_no_flag_marks_are_found_by_next_observations(tmp_path):
    dataset = make_dataset(seed=3)
    arrays = locomotion_arrays(dataset)
    arrays["timeouts"][:] = False  # medium-replay (#162), and the very old files
    expected = EpisodeDataset.from_episodes(list(dataset))
    assert_same(import_dataset(write_hdf5(tmp_path / "replay.hdf5", arrays)), expected)
    del arrays["timeouts"]
    assert_same(import_dataset(write_hdf5(tmp_path / "old.h5", arrays)), expected)


def test_trailing_unfinished_episode_is_kept(tmp_path):
    dataset = make_dataset(n_episodes=3)
    arrays = locomotion_arrays(dataset)
    arrays["timeouts"][-1] = arrays["terminals"][-1] = False
    imported = import_dataset(write_hdf5(tmp_path / "cut.hdf5", arrays))
    assert len(imported) == 3 and not imported.terminated[-1]
    np.testing.assert_array_equal(imported[2].observations, dataset[2].observations)


def test_without_next_observations_truncated_episodes_lose_their_last_step(tmp_path):
    dataset = make_dataset(seed=5)
    arrays = locomotion_arrays(dataset)
    del arrays["next_observations"]
    imported = import_dataset(write_hdf5(tmp_path / "walker.hdf5", arrays))
    expected, dropped = [], 0
    for episode in dataset:
        if episode.terminated:  # reward and termination kept, final observation repeated
            rows = np.concatenate([episode.observations[:-1], episode.observations[-2:-1]])
            expected.append(Episode(rows, episode.actions, episode.rewards, True))
        else:
            dropped += 1
            if len(episode) > 1:
                steps = (episode.actions[:-1], episode.rewards[:-1])
                expected.append(Episode(episode.observations[:-1], *steps, False))
    assert_same(imported, EpisodeDataset.from_episodes(expected))
    assert imported.metadata["dropped_steps"] == dropped
    assert imported.metadata["repeated_final_observations"] == sum(dataset.terminated)


def test_column_flags_and_rewards_are_read_as_vectors(tmp_path):
    dataset = make_dataset()
    arrays = locomotion_arrays(dataset)
    for name in ("rewards", "terminals"):
        arrays[name] = arrays[name].astype(np.float32)[:, None]
    assert_same(import_dataset(write_hdf5(tmp_path / "columns.hdf5", arrays)), dataset)


def test_maze2d_record_stays_whole_and_its_rewards_shift_by_one_row(tmp_path):
    arrays = maze2d_arrays()
    imported = import_dataset(write_hdf5(tmp_path / "maze2d-umaze.hdf5", arrays))
    assert len(imported) == 1 and imported.n_steps == 59 and imported.metadata["layout"] == "maze2d"
    episode = imported[0]
    np.testing.assert_array_equal(episode.observations, arrays["observations"])
    np.testing.assert_array_equal(episode.actions, arrays["actions"][:-1])
    reached = np.linalg.norm(episode.observations[1:, :2] - 2, axis=1) <= 0.5
    np.testing.assert_array_equal(episode.rewards, reached.astype(np.float32))
    assert 0 < reached.sum() < len(reached), "the test needs both rewards"
    np.testing.assert_array_equal(imported.goal_changes, [20, 45])
    assert not imported.terminated.any()


def test_maze2d_goal_changes_come_from_timeouts_where_goals_are_missing(tmp_path):
    arrays = maze2d_arrays()
    del arrays["infos/goal"]
    file = write_hdf5(tmp_path / "maze.hdf5", arrays)
    np.testing.assert_array_equal(from_d4rl_hdf5(file, layout="maze2d").goal_changes, [20, 45])
    arrays["infos/goal"] = np.ones((60, 2), np.float32)
    file = write_hdf5(tmp_path / "constant.hdf5", arrays)
    np.testing.assert_array_equal(import_dataset(file).goal_changes, [20, 45])


def test_maze2d_without_timeouts_is_read(tmp_path):
    arrays = maze2d_arrays()
    del arrays["timeouts"]  # as generated locally (#176)
    imported = import_dataset(write_hdf5(tmp_path / "maze.hdf5", arrays))
    np.testing.assert_array_equal(imported.goal_changes, [20, 45])


def test_maze2d_stale_rows_are_counted_and_kept(tmp_path):
    arrays = maze2d_arrays()
    arrays["observations"][20] = arrays["observations"][19]
    imported = import_dataset(write_hdf5(tmp_path / "maze.hdf5", arrays))
    assert imported.metadata["stale_rows"] == 1 and imported.n_steps == 59


def test_maze2d_all_zero_rows_are_refused(tmp_path):
    arrays = maze2d_arrays()
    arrays["observations"][[7, 9]] = 0
    with pytest.raises(ValueError, match=r"2 all-zero observations \(first in row 7\).*#65"):
        import_dataset(write_hdf5(tmp_path / "maze.hdf5", arrays))


def test_maze2d_with_terminals_is_refused(tmp_path):
    arrays = maze2d_arrays()
    arrays["terminals"][3] = True
    with pytest.raises(ValueError, match="has terminals.*another layout"):
        import_dataset(write_hdf5(tmp_path / "maze.hdf5", arrays))


def check_antmaze(imported, arrays, lengths):
    first = 0
    assert len(imported) == len(lengths)
    for episode, length in zip(imported, lengths, strict=True):
        rows = slice(first, first + length)
        np.testing.assert_array_equal(
            episode.observations[: length - 1], arrays["observations"][rows][:-1]
        )
        np.testing.assert_array_equal(episode.rewards, arrays["rewards"][rows][: len(episode)])
        first += length


@pytest.mark.parametrize("shift", [0, 2])
def test_antmaze_resets_are_found_even_if_timeouts_are_out_of_step(tmp_path, shift):
    lengths = (6, 9, 5)
    arrays = antmaze_arrays(lengths)
    arrays["terminals"] = np.zeros_like(arrays["terminals"])
    arrays["timeouts"] = np.roll(arrays["timeouts"], shift)
    imported = import_dataset(write_hdf5(tmp_path / "antmaze.hdf5", arrays))
    check_antmaze(imported, arrays, lengths)
    assert imported.metadata["layout"] == "antmaze"
    assert imported.metadata["timeouts_used"] == (shift == 0)
    assert imported.metadata["dropped_steps"] == 3
    np.testing.assert_array_equal(np.diff(imported.starts), lengths)
    goals = arrays["infos/goal"][[0, 6, 15]]
    np.testing.assert_array_equal(np.float32(imported.metadata["source_goals"]), goals)


def test_antmaze_terminals_near_the_goal_end_no_episode(tmp_path):
    arrays = antmaze_arrays()
    imported = import_dataset(write_hdf5(tmp_path / "antmaze.hdf5", arrays))
    check_antmaze(imported, arrays, (6, 9, 5))
    assert imported.terminated.all() and imported.metadata["terminals_inside"] == 3 * 2


def test_antmaze_timeout_without_a_jump_ends_an_episode_when_in_step(tmp_path):
    arrays = antmaze_arrays((12, 6))
    arrays["terminals"] = np.zeros_like(arrays["terminals"])
    arrays["timeouts"][4] = True  # reset near where the ant stood
    imported = import_dataset(write_hdf5(tmp_path / "antmaze.hdf5", arrays))
    np.testing.assert_array_equal(np.diff(imported.starts), [5, 7, 6])


def test_antmaze_change_of_goal_ends_an_episode(tmp_path):
    arrays = antmaze_arrays((12, 6))
    arrays["terminals"] = np.zeros_like(arrays["terminals"])
    arrays["infos/goal"][7:12] += 1  # reset near where the ant stood, by no flag
    imported = import_dataset(write_hdf5(tmp_path / "antmaze.hdf5", arrays))
    np.testing.assert_array_equal(np.diff(imported.starts), [7, 5, 6])


def write_npz(file, dataset):
    """OGBench: a trajectory's last row holds its final observation and an unused action."""
    taken = np.zeros(len(dataset.observations), np.float32)
    taken[dataset.starts[1:] - 1] = 1
    actions = np.where(taken[:, None], 0.5, dataset.actions).astype(np.float32)
    qpos = np.zeros((len(taken), 2), np.float32)
    arrays = {"observations": dataset.observations, "actions": actions, "terminals": taken}
    np.savez_compressed(file, **arrays, qpos=qpos)
    return file


def test_ogbench_file_comes_back_without_rewards(tmp_path):
    dataset = make_dataset()
    imported = import_dataset(write_npz(tmp_path / "pointmaze-medium-navigate-v0.npz", dataset))
    dataset.rewards, dataset.terminated = dataset.rewards * 0, np.zeros(len(dataset), bool)
    assert_same(imported, dataset)
    assert imported.metadata["ignored_keys"] == ["qpos"]


def test_an_npz_file_s_own_rewards_are_kept(tmp_path):
    dataset = make_dataset(n_episodes=3)
    file = write_npz(tmp_path / "own.npz", dataset)
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **arrays, rewards=np.arange(len(arrays["terminals"])))
    imported = import_dataset(file)
    steps = np.delete(np.arange(len(dataset.observations)), dataset.starts[1:] - 1)
    np.testing.assert_array_equal(np.delete(imported.rewards, imported.starts[1:] - 1), steps)
    assert imported.metadata["ignored_keys"] == ["qpos"]


def test_damaged_and_foreign_npz_are_refused(tmp_path):
    file = write_npz(tmp_path / "data.npz", make_dataset(n_episodes=200))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated.*fetch it again"):
        from_ogbench_npz(file)
    single = tmp_path / "single.npz"
    with single.open("wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(ValueError, match=r"no \.npz file"):
        from_ogbench_npz(single)
    np.savez(tmp_path / "other.npz", states=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="lacks observations, actions, terminals; found states"):
        from_ogbench_npz(tmp_path / "other.npz")
    images = {"observations": np.zeros((4, 8, 8, 3), np.uint8), "actions": np.zeros((4, 2))}
    np.savez(tmp_path / "visual.npz", **images, terminals=np.zeros(4))
    with pytest.raises(ValueError, match=r"observations has shape \(4, 8, 8, 3\)"):
        from_ogbench_npz(tmp_path / "visual.npz")


@pytest.fixture
def minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return pytest.importorskip("minari")


def write_minari(minari, dataset, name, *, actions=None, as_dict=False):
    from gymnasium.spaces import Box, Dict, Discrete
    from minari.data_collector.episode_buffer import EpisodeBuffer

    box = Box(-np.inf, np.inf, (dataset.spaces.observation_dim,), np.float32)
    space, action_space = box, Box(-1, 1, (dataset.spaces.action_dim,), np.float32)
    if as_dict:
        space = Dict({"achieved_goal": box, "desired_goal": box, "observation": box})
    if actions is not None:
        action_space = Discrete(4, start=1)
    buffers = []
    for index, episode in enumerate(dataset):
        rows = episode.observations
        if as_dict:
            rows = {"achieved_goal": rows * 0, "desired_goal": rows + 1, "observation": rows}
        last = np.arange(len(episode)) == len(episode) - 1
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=rows,
                actions=episode.actions if actions is None else actions[index],
                rewards=list(episode.rewards),
                terminations=list(last & episode.terminated),
                truncations=list(last & (not episode.terminated)),
            )
        )
    with pytest.warns(UserWarning):  # Minari asks for the author, the code, ...
        minari.create_dataset_from_buffers(
            name, buffers, observation_space=space, action_space=action_space
        )
    return dataset


def test_minari_data_set_comes_back_by_name_and_by_folder(minari, tmp_path):
    dataset = write_minari(minari, make_dataset(), "test/walk/random-v0")
    imported = import_dataset("test/walk/random-v0")
    assert_same(imported, dataset)
    assert imported.metadata["source"] == "test/walk/random-v0"
    folder = tmp_path / "minari" / "test" / "walk" / "random-v0"
    assert_same(import_dataset(folder), dataset)
    assert_same(import_dataset(folder / "data"), dataset)
    with pytest.raises(ValueError, match="part of a Minari data set; import its folder"):
        import_dataset(folder / "data" / "main_data.hdf5")


def test_minari_dict_observations_can_append_goals(minari):
    dataset = write_minari(minari, make_dataset(), "test/goals-v0", as_dict=True)
    assert_same(from_minari("test/goals-v0"), dataset)
    both = from_minari("test/goals-v0", append=("desired_goal",))
    expected = np.concatenate([dataset.observations, dataset.observations + 1], axis=1)
    np.testing.assert_array_equal(both.observations, expected)
    with pytest.raises(
        ValueError, match=r"no observation keys \['goal'\]; found \['achieved_goal'"
    ):
        from_minari("test/goals-v0", append=("goal",))


def test_minari_discrete_actions_become_one_column_of_indices(minari):
    dataset = make_dataset()
    rng = np.random.default_rng(0)
    actions = [rng.integers(1, 5, size=len(episode)) for episode in dataset]
    write_minari(minari, dataset, "test/discrete-v0", actions=actions)
    imported = from_minari("test/discrete-v0")
    assert imported.spaces.n_actions == 4 and imported.spaces.action_dim == 1
    for episode, expected in zip(imported, actions, strict=True):
        np.testing.assert_array_equal(episode.actions[:, 0], expected - 1)
    with pytest.raises(ValueError, match="needs Dict observations"):
        from_minari("test/discrete-v0", append=("desired_goal",))


def test_missing_minari_data_and_missing_minari_say_what_to_do(minari, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="minari download D4RL/kitchen/mixed-v2"):
        import_dataset("D4RL/kitchen/mixed-v2")
    with pytest.raises(ValueError, match="not a Minari data set"):
        import_dataset(tmp_path)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'forethought\[minari\]'"):
        import_dataset("D4RL/kitchen/mixed-v2")


def test_files_that_are_not_what_they_say_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.hdf5 is not a file; expected"):
        import_dataset(tmp_path / "nowhere.hdf5")
    with pytest.raises(FileNotFoundError, match="is not a file; expected"):
        import_dataset("maze-umaze")
    text = tmp_path / "page.hdf5"
    text.write_text("<html>403 Forbidden</html>")
    with pytest.raises(ValueError, match="not an HDF5 file; expected D4RL's .hdf5, fetch it again"):
        import_dataset(text)
    other = tmp_path / "log.csv"
    other.write_text("1,2,3\n")
    with pytest.raises(ValueError, match=r"unknown ending '\.csv'; expected \.hdf5"):
        import_dataset(other)
    with pytest.raises(ValueError, match="unknown layout 'maze'. Did you mean 'maze2d'"):
        import_dataset(text, layout="maze")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown D4RL layout 'minari'"):
        from_d4rl_hdf5(text, layout="minari")  # type: ignore[arg-type]


def test_truncated_hdf5_is_refused(tmp_path):
    file = write_hdf5(tmp_path / "data.hdf5", locomotion_arrays(make_dataset(n_episodes=50)))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="truncated or damaged.*fetch it again"):
        import_dataset(file)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_missing_keys_are_named_beside_those_found(tmp_path, key):
    arrays = locomotion_arrays(make_dataset())
    del arrays[key]
    with pytest.raises(ValueError, match=f"lacks {key}; found .*timeouts"):
        import_dataset(write_hdf5(tmp_path / "data.hdf5", arrays))


def test_ends_that_cannot_be_known_are_refused(tmp_path):
    arrays = locomotion_arrays(make_dataset())
    del arrays["timeouts"], arrays["next_observations"]
    with pytest.raises(ValueError, match="neither 'timeouts' nor 'next_observations'"):
        import_dataset(write_hdf5(tmp_path / "data.hdf5", arrays))


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "next_observations"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_by_key_and_row(tmp_path, key, value):
    arrays = locomotion_arrays(make_dataset())
    arrays[key][4] = value
    with pytest.raises(ValueError, match=f"data.hdf5: {key} holds NaN or infinite .*row 4"):
        import_dataset(write_hdf5(tmp_path / "data.hdf5", arrays))


def test_mismatched_lengths_shapes_and_empty_files_are_refused(tmp_path):
    file, arrays = tmp_path / "data.hdf5", locomotion_arrays(make_dataset())
    rows = len(arrays["rewards"])
    short = arrays | {"actions": arrays["actions"][:-3]}
    with pytest.raises(ValueError, match=f"{rows} observations, {rows - 3} actions"):
        import_dataset(write_hdf5(file, short))
    with pytest.raises(ValueError, match="expected 2 axes"):
        import_dataset(write_hdf5(file, arrays | {"actions": arrays["rewards"]}))
    with pytest.raises(ValueError, match="is empty: its arrays have no rows"):
        import_dataset(write_hdf5(file, {name: values[:0] for name, values in arrays.items()}))
    lone = {name: values[:1] for name, values in maze2d_arrays().items()}
    with pytest.raises(ValueError, match="is empty: a step needs 2 rows, found 1"):
        import_dataset(write_hdf5(file, lone))
    del arrays["next_observations"]
    lone = {name: values[:1] for name, values in arrays.items()}
    lone["terminals"] = lone["terminals"] & False
    with pytest.raises(ValueError, match="is empty: none of its 1 rows makes a step"):
        import_dataset(write_hdf5(file, lone))
