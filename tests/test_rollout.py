"""Laws of the loop that makes data and scores, on an environment whose every number is known."""

import json

import gymnasium
import numpy as np
import pytest
import torch

from forethought.rollout import evaluate, rollout


class Counter(gymnasium.Env):
    """observation (step, start, last action); reward step + 10 start; reuses one observation array.

    The start is drawn from the reset seed: 0, 1 or 2. With ``terminate`` the episode ends by itself
    after 3 + 2 start steps, else at its time limit. It is at its goal at the steps in ``inside``.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, terminate=True, inside=(), reference_returns=None):
        self.terminate, self.inside = terminate, inside
        self._shown = np.zeros(3, dtype=np.float32)
        self.goal_observation = np.zeros(3, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = int(self.np_random.integers(3))
        self._shown[:] = 0, self.start, 0
        self.goal_observation[1] = self.start
        return self._shown, {}

    def step(self, action):
        self._shown[0] += 1
        self._shown[2] = action[0]
        step = int(self._shown[0])
        terminated = self.terminate and step == 3 + 2 * self.start
        info = {"success": step in self.inside}
        return self._shown, step + 10.0 * self.start, terminated, False, info


gymnasium.register("law/Counter-v0", entry_point=Counter, max_episode_steps=9)
gymnasium.register(
    "law/Scored-v0",
    entry_point=Counter,
    max_episode_steps=4,
    kwargs={"terminate": False, "inside": (2, 4), "reference_returns": (10.0, 30.0)},
)


def make(terminate: bool = True):
    return lambda: gymnasium.make("law/Counter-v0", terminate=terminate, disable_env_checker=True)


class Echo:
    """Acts a tenth of the observed step plus noise from its seeds, or always ``action``."""

    def __init__(self, noise: float = 0.0, action: float | None = None) -> None:
        self.noise, self.action = noise, action

    def reset(self, n_envs, seeds=None):
        assert len(seeds) == n_envs
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, observation, goal=None, rows=None):
        torch.testing.assert_close(goal[:, 1], observation[:, 1])  # each row has its own goal
        draws = np.array([self.generators[row].normal() for row in rows.tolist()])
        action = 0.1 * observation[:, :1] + self.noise * torch.from_numpy(draws)[:, None].float()
        return action if self.action is None else torch.full_like(action, self.action)


def test_episodes_hold_one_more_observation_and_aligned_rewards():
    episodes = rollout(Echo(), make(), 12, seed=0, n_parallel=5)
    starts = {int(e.observations[0, 1]) for e in episodes}
    assert starts == {0, 1, 2}, "the seeds should cover all starts"
    for episode in episodes:
        start, steps = episode.observations[0, 1], len(episode)
        assert steps == 3 + 2 * start
        assert len(episode.observations) == steps + 1 and len(episode.rewards) == steps
        # the environment shows one array over and over: the record must hold copies
        np.testing.assert_array_equal(episode.observations[:, 0], np.arange(steps + 1))
        # rewards[t] follows actions[t]; observations[t + 1] is its result
        np.testing.assert_array_equal(episode.rewards, np.arange(1, steps + 1) + 10 * start)
        np.testing.assert_array_equal(episode.observations[1:, 2], episode.actions[:, 0])
        np.testing.assert_allclose(episode.actions[:, 0], 0.1 * np.arange(steps), rtol=1e-6)
        assert episode.goal[1] == start, "goals are copies too"


def test_termination_and_time_limit_are_told_apart():
    assert all(e.terminated for e in rollout(Echo(), make(), 6, seed=0))
    cut = rollout(Echo(), make(terminate=False), 6, seed=0)
    assert [(e.terminated, len(e)) for e in cut] == [(False, 9)] * 6


def test_recorded_actions_are_those_the_environment_took():
    (episode,) = rollout(Echo(action=5.0), make(), 1, seed=0)
    np.testing.assert_array_equal(episode.actions, np.ones((len(episode), 1)))
    np.testing.assert_array_equal(episode.observations[1:, 2], np.ones(len(episode)))


@pytest.mark.parametrize("n_parallel", [1, 3, 100])
def test_episodes_depend_on_the_seed_but_not_on_how_many_run_together(n_parallel):
    ours = rollout(Echo(noise=0.1), make(), 10, seed=5, n_parallel=7)
    theirs = rollout(Echo(noise=0.1), make(), 10, seed=5, n_parallel=n_parallel)
    for one, other in zip(ours, theirs, strict=True):
        assert one.seed == other.seed and one.terminated == other.terminated
        for name in ("observations", "actions", "rewards", "successes", "goal"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    again = rollout(Echo(noise=0.1), make(), 10, seed=6)
    assert len({e.seed for e in [*ours, *again]}) == 20, "all episodes have seeds of their own"


def test_a_longer_run_starts_with_the_shorter_one():
    short, long = (rollout(Echo(noise=0.1), make(), n, seed=5) for n in (4, 9))
    for one, other in zip(short, long, strict=False):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_progress_is_reported_and_empty_requests_refused():
    done = []
    rollout(Echo(), make(), 7, seed=0, n_parallel=3, on_episode=done.append)
    assert done == [3, 6, 7]
    with pytest.raises(ValueError, match="both must be at least 1"):
        rollout(Echo(), make(), 0, seed=0)


def test_evaluation_scores_against_the_registered_reference_returns():
    result = evaluate(Echo(), "law/Scored-v0", 8, seed=0, protocol={"planner": "echo"})
    starts = [record["start"][1] for record in result.episodes]
    returns = [1 + 2 + 3 + 4 + 4 * 10 * start for start in starts]
    assert [record["return"] for record in result.episodes] == returns
    scores = [100 * (total - 10) / (30 - 10) for total in returns]
    assert [record["score"] for record in result.episodes] == scores
    np.testing.assert_allclose(result.score["mean"], np.mean(scores))
    assert result.n == 8 and result.protocol["reference_returns"] == (10.0, 30.0)
    assert result.protocol["planner"] == "echo" and result.protocol["seed"] == 0
    assert len(result.paths) == 8
    back = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert back["episodes"][0]["goal"] == [0.0, starts[0], 0.0]


def test_an_environment_without_references_is_scored_by_its_return():
    result = evaluate(Echo(), "law/Counter-v0", 3, seed=0)
    assert [r["score"] for r in result.episodes] == [r["return"] for r in result.episodes]


@pytest.mark.parametrize(
    ("inside", "success", "arrival"),
    [((2, 4), True, 2), ((4,), True, 4), ((2,), False, 2), ((), False, None), ((9,), False, None)],
)
def test_success_is_being_at_the_goal_at_some_step_and_at_the_last(inside, success, arrival):
    env_id = "law/Success-v0"
    gymnasium.register(
        env_id, Counter, max_episode_steps=4, kwargs={"terminate": False, "inside": inside}
    )
    try:
        result = evaluate(Echo(), env_id, 2, seed=0)
    finally:
        del gymnasium.registry[env_id]
    assert result.success_rate == float(success)
    assert [r["success"] for r in result.episodes] == [success] * 2
    assert [r["arrival_step"] for r in result.episodes] == [arrival] * 2
    assert [r["steps"] for r in result.episodes] == [4, 4]


def test_one_episode_is_json_without_an_interval():
    result = evaluate(Echo(), "law/Scored-v0", 1, seed=0)
    json.dumps(result.to_json(), allow_nan=False)  # no infinity: strict readers refuse it
