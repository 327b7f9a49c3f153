"""Laws of the mazes: D4RL's physics, starts, goals, rewards and step limits."""

import os

import gymnasium
import numpy as np
import pytest

import forethought.envs  # noqa: F401  (registers the ids)
from forethought.envs import maze
from forethought.envs.maze import LAYOUTS, REFERENCE_RETURNS, STEP_LIMITS, Layout, MazeEnv
from forethought.envs.maze_data import collect

# One corridor of free cells, wide enough to reach the speed limit in.
CORRIDOR = "#" * 20 + "\n#" + "O" * 18 + "#\n" + "#" * 20
NAMES = list(LAYOUTS)


def test_one_full_action_from_rest_gives_the_closed_form_velocity():
    env = MazeEnv("umaze")
    env.reset(options={"start": (1.0, 1.0)})
    observation, *_ = env.step([0.0, 1.0])
    np.testing.assert_allclose(observation, [1.0, 1.0 + 0.002382, 0.0, 0.2382], atol=1e-4)
    np.testing.assert_allclose(observation[3], maze.VELOCITY_PER_ACTION, rtol=1e-6)


def test_velocity_seen_at_full_thrust_is_the_speed_limit():
    env = MazeEnv(CORRIDOR)
    env.reset(options={"start": (1.0, 1.0)})
    speeds = [env.step([0.0, 1.0])[0][3] for _ in range(200)]
    np.testing.assert_allclose(max(speeds), 5.226, atol=5e-4)
    np.testing.assert_allclose(max(speeds), maze.SPEED_LIMIT, rtol=1e-6)


def test_actions_beyond_the_box_act_like_its_rim():
    states = []
    for action in ([1.0, -1.0], [50.0, -7.0]):
        env = MazeEnv("umaze")
        env.reset(options={"start": (3.0, 1.0, 1.0, 1.0)})
        env.step(action)
        states.append(env.get_state())
    np.testing.assert_array_equal(*states)
    with pytest.raises(ValueError, match="not finite"):
        env.step([np.nan, 0.0])


def _to_pointmaze(state, shape):
    row, col, v_row, v_col = state
    return np.array([col + 0.7 - shape[1] / 2, shape[0] / 2 - 0.7 - row, v_col, -v_row])


def _from_pointmaze(state, shape):
    x, y, v_x, v_y = state
    return np.array([shape[0] / 2 - 0.7 - y, x + shape[1] / 2 - 0.7, -v_y, v_x])


@pytest.fixture(scope="module", params=[("umaze", "UMaze"), ("medium", "Medium")])
def pointmaze(request):
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    name, other_name = request.param
    other = gymnasium.make(f"PointMaze_{other_name}-v3", continuing_task=True).unwrapped
    os.unlink(other.tmp_xml_file_path)  # PointMaze leaves it behind
    yield MazeEnv(name), other
    other.close()


@pytest.mark.parametrize("pushes", ["random", "sliding"])
def test_steps_agree_with_pointmaze_through_the_frame_map(pointmaze, pushes):
    ours, theirs = pointmaze
    shape, random = ours.layout.shape, np.random.default_rng(0)
    bottom = shape[0] - 2.0  # a row with free cells 1 to 3 in both mazes
    state = np.array([bottom, 1.1, -0.3, 0.6])
    np.testing.assert_allclose(_from_pointmaze(_to_pointmaze(state, shape), shape), state)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    ours.set_state(state)
    theirs.point_env.set_state(*np.split(_to_pointmaze(state, shape), 2))
    # Down against a wall (so the ball slides), or eight steps at a time somewhere.
    blocks = np.repeat(random.uniform(-1.5, 1.5, (50, 2)), 8, axis=0)
    actions = blocks if pushes == "random" else np.tile([1.0, 0.15], (150, 1))
    positions = []
    for action in actions:
        ours.step(action)
        theirs.step(np.array([action[1], -action[0]]))
        mapped = _from_pointmaze(theirs.point_env._get_obs()[0], shape)
        np.testing.assert_allclose(ours.get_state(), mapped, atol=1e-6)
        positions.append(ours.get_state()[:2])
    if pushes == "sliding":
        assert positions[-1][0] > bottom + 0.19, "the ball should be pressed against the wall below"
        assert positions[-1][1] - positions[30][1] > 0.3, "the ball should slide along the wall"


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_pointmazes_maps(name):
    maps = pytest.importorskip("gymnasium_robotics.envs.maze.maps")
    other = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}[name]
    np.testing.assert_array_equal(LAYOUTS[name].walls, np.array(other) == 1)


def test_targets_limits_and_reference_returns_are_d4rls():
    expected = {
        "umaze": ((1, 1), 300, (23.85, 161.86)),
        "medium": ((6, 6), 600, (13.13, 277.39)),
        "large": ((7, 9), 800, (6.7, 273.99)),
    }
    for name, (target, limit, returns) in expected.items():
        assert (LAYOUTS[name].target, STEP_LIMITS[name], REFERENCE_RETURNS[name]) == expected[name]
        for task in ("maze2d", "multi2d"):
            spec = gymnasium.spec(f"forethought/{task}-{name}-v0")
            assert spec.max_episode_steps == limit
            env = gymnasium.make(spec).unwrapped
            assert env.reference_returns == returns
            env.reset(seed=0)
            assert (tuple(env.goal) == target) == (task == "maze2d")


def test_share_of_starts_in_the_goals_cell_is_one_over_the_free_cells():
    env, n_draws = MazeEnv("umaze"), 4000
    env.reset(seed=0)
    starts = np.array([env.reset()[0] for _ in range(n_draws)])
    share = np.mean(np.all(np.round(starts[:, :2]) == [1, 1], axis=1))
    expected = 1 / len(env.layout.free_cells())
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n_draws)
    offsets = starts[:, :2] - np.round(starts[:, :2])
    assert np.abs(offsets).max() <= 0.1 + 1e-6
    assert np.abs(offsets).max() > 0.099
    # The standard error of a standard deviation is about sigma / sqrt(2 n).
    np.testing.assert_allclose(starts[:, 2:].std(), 0.1, atol=4 * 0.1 / np.sqrt(4 * n_draws))


def test_random_goals_cover_every_free_cell_within_a_tenth():
    env = MazeEnv("medium", goal="random")
    env.reset(seed=0)
    goals = []
    for _ in range(1000):
        env.reset()
        goals.append(env.goal)
    goals = np.array(goals)
    assert np.abs(goals - np.round(goals)).max() <= 0.1
    assert {tuple(cell) for cell in np.round(goals).astype(int).tolist()} == set(
        env.layout.free_cells()
    )


@pytest.mark.parametrize(("offset", "reward"), [(0.499, 1.0), (0.501, 0.0)])
def test_reward_is_for_reaching_half_a_unit_from_the_goal(offset, reward):
    env = MazeEnv(CORRIDOR)
    # Starts outside the disc or inside it, and crosses its rim in the one step.
    start = 5.0 - offset - 0.01 * np.sign(0.5 - offset)
    velocity = np.sign(0.5 - offset) * (1 + 0.01 / maze.BALL_MASS)
    env.reset(options={"start": (1.0, start, 0.0, velocity), "goal": (1.0, 5.0)})
    observation, received, terminated, truncated, info = env.step([0.0, 0.0])
    np.testing.assert_allclose(observation[1], 5.0 - offset, atol=1e-6)
    assert (received, info["success"]) == (reward, bool(reward))
    assert not (terminated or truncated)


@pytest.mark.parametrize("name", NAMES)
def test_episodes_end_by_truncation_at_the_step_limit(name):
    env = gymnasium.make(f"forethought/maze2d-{name}-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(STEP_LIMITS[name])]
    assert ends == [(False, False)] * (STEP_LIMITS[name] - 1) + [(False, True)]


def test_make_takes_a_layout_string_and_a_step_limit():
    env = gymnasium.make("forethought/maze2d-umaze-v0", layout=CORRIDOR, max_episode_steps=7)
    assert env.unwrapped.layout == Layout.parse(CORRIDOR)
    assert env.spec.max_episode_steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"####\#O#\####", "lengths"),
        (r"###\#x#\###", "unknown characters"),
        (r"###\###\###", "no free cell"),
        (r"###\#OO\###", "open border"),
        (r"####\#GG#\####", "more than one"),
        ("", "lengths"),
    ],
)
def test_bad_layouts_are_refused_with_the_reason(text, message):
    with pytest.raises(ValueError, match=message):
        Layout.parse(text)


def test_unknown_layout_names_are_refused_with_a_hint():
    with pytest.raises(ValueError, match="umaze"):
        MazeEnv("u-maze")


@pytest.mark.parametrize("name", ["start", "goal"])
@pytest.mark.parametrize(("point", "reason"), [((2.0, 1.0), "wall"), ((-3.0, 9.0), "outside")])
def test_points_in_walls_or_outside_are_refused_by_name(name, point, reason):
    env = MazeEnv("umaze")
    with pytest.raises(ValueError, match=rf"{name} \({point[0]:g}, .*{reason}.*free cells"):
        env.reset(options={name: point})


def test_unknown_options_and_wrong_sizes_are_refused():
    env = MazeEnv("umaze")
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"strat": (1, 1)})
    with pytest.raises(ValueError, match="goal"):
        env.reset(options={"goal": (1, 1, 0, 0)})


def test_cells_and_points_agree_in_the_shifted_frame():
    layout = LAYOUTS["large"]
    for cell in layout.free_cells():
        center = layout.center_of(cell)
        np.testing.assert_allclose(center, np.array(cell) - 0.2)
        assert layout.cell_of(center) == layout.cell_of(cell) == cell
    assert layout.is_free([0.31, 0.31])
    assert not layout.is_free([0.29, 0.31])
    np.testing.assert_array_equal(
        layout.contains([[-0.69, 0], [-0.71, 0], [8.29, 11.29], [8.31, 0]]),
        [True, False, True, False],
    )


@pytest.mark.parametrize("name", NAMES)
def test_shortest_paths_are_as_long_as_powers_of_the_adjacency_say(name):
    layout = LAYOUTS[name]
    cells = np.array(layout.free_cells())
    adjacent = np.abs(cells[:, None] - cells[None]).sum(-1) <= 1
    reached, steps = np.eye(len(cells), dtype=bool), np.full((len(cells),) * 2, -1)
    for step in range(len(cells)):
        steps[reached & (steps < 0)] = step
        reached = (reached.astype(int) @ adjacent) > 0
    for index, start in enumerate(layout.free_cells()):
        path = layout.shortest_path(start, layout.target)
        goal_index = layout.free_cells().index(layout.target)
        assert len(path) - 1 == steps[index, goal_index]
        assert (path[0], path[-1]) == (start, layout.target)
        assert all(
            np.abs(np.subtract(a, b)).sum() == 1 for a, b in zip(path, path[1:], strict=False)
        )
    with pytest.raises(ValueError, match="wall"):
        layout.shortest_path((0, 0), layout.target)


def test_disconnected_cells_have_no_path():
    with pytest.raises(ValueError, match="no path"):
        Layout.parse(r"#####\#O#O#\#####").shortest_path((1, 1), (1, 3))


def test_same_seed_same_episode_and_other_seed_another():
    def run(seed):
        env = gymnasium.make("forethought/multi2d-large-v0")
        first, _ = env.reset(seed=seed)
        action = np.array([0.3, -0.8], np.float32)
        return np.array([first, *[env.step(action)[0] for _ in range(50)]]), env.unwrapped.goal

    for one, two in zip(run(3), run(3), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(run(3)[0], run(4)[0])
    assert not np.array_equal(run(3)[1], run(4)[1])


def test_a_step_is_a_function_of_the_state_alone():
    env, random = MazeEnv("umaze"), np.random.default_rng(0)
    env.reset(seed=0)
    for action in np.repeat(random.uniform(-1, 1, (20, 2)), 10, axis=0):
        state = env.get_state()
        other = MazeEnv("umaze")
        other.set_state(state)
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


def test_spaces_hold_what_the_environment_gives():
    env = gymnasium.make("forethought/multi2d-medium-v0")
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["success"] is False or info["success"] is True
    observation, reward, *_, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert isinstance(reward, float)
    assert isinstance(info["success"], bool)


@pytest.fixture(scope="module")
def walk():
    env = gymnasium.make("forethought/maze2d-umaze-v0")
    done = []
    walk = collect(env, 20_000, np.random.default_rng(0), on_progress=done.append)
    assert done == [10_000, 20_000]
    return walk


def test_collected_positions_are_continuous(walk):
    moves = np.abs(np.diff(walk.observations[:, :2], axis=0))
    assert moves.max() <= maze.SPEED_LIMIT * maze.TIME_STEP + 1e-5
    # dx = v dt with the velocity after the step: no reset, no stale row.
    np.testing.assert_allclose(
        np.diff(walk.observations[:, :2], axis=0), 0.01 * walk.observations[1:, 2:], atol=1e-5
    )


def test_collected_actions_replay_to_the_collected_observations(walk):
    env = MazeEnv("umaze")
    env.set_state(walk.observations[0])
    for step, action in enumerate(walk.actions[:100]):
        np.testing.assert_allclose(env.step(action)[0], walk.observations[step + 1], atol=1e-4)


def test_collected_rewards_describe_the_state_reached(walk):
    distances = np.linalg.norm(walk.observations[1:, :2] - [1, 1], axis=1)
    np.testing.assert_array_equal(walk.rewards, distances <= 0.5)
    assert 0 < walk.rewards.mean() < 0.5
    shapes = {name: (array.shape, str(array.dtype)) for name, array in walk._asdict().items()}
    assert shapes["observations"] == ((20_001, 4), "float32")
    assert shapes["actions"] == ((20_000, 2), "float32")
    assert shapes["rewards"] == ((20_000,), "float32")


def test_collected_goals_change_near_a_cell_or_after_the_limit(walk):
    changes = walk.goal_changes
    assert changes.dtype == np.int64
    assert len(changes) > 100
    assert np.diff(changes).min() >= 1
    # On arrival the observation before the change is within 0.1 of an integer cell.
    before = walk.observations[changes - 1, :2]
    arrived = np.linalg.norm(before - np.round(before), axis=1) < 0.1 + 1e-5
    lengths = np.diff(changes, prepend=0)
    np.testing.assert_array_equal(arrived | (lengths == STEP_LIMITS["umaze"]), True)


def test_goals_are_given_up_after_goal_steps():
    walk = collect(MazeEnv("large"), 100, np.random.default_rng(0), goal_steps=9)
    assert np.diff(walk.goal_changes).max() <= 9
    with pytest.raises(ValueError, match="goal_steps"):
        collect(MazeEnv("large"), 100, np.random.default_rng(0))


def test_collecting_is_a_function_of_the_generator():
    env = gymnasium.make("forethought/maze2d-medium-v0")
    one, two, other = (collect(env, 500, np.random.default_rng(seed), 0.5) for seed in (0, 0, 1))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.observations, other.observations)
