"""A transformer of one's own logs and environment, from the shell; critics of other tasks."""

import sys

import numpy as np
import pytest

from forethought.cli import main
from forethought.data.episodes import Episode, EpisodeDataset

ENVIRONMENT = """
import gymnasium
import numpy as np


class Cart(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.state[1] += 0.1 * action[0]
        self.state[0] += self.state[1]
        return self.state.copy(), 1.0, False, False, {}


gymnasium.register("own/cart-v0", Cart, max_episode_steps=5)
gymnasium.register("own/other-cart-v0", Cart, max_episode_steps=5)
"""
RECIPES = """
from dataclasses import replace
from pathlib import Path

from forethought.registry import recipes

Path("runs-of-this-file").open("a").write("run ")


def cart(env="own_carts:own/cart-v0"):
    base = recipes["transformer/hopper-medium"]()
    size = {"context": 1, "horizon": 2, "width": 8, "depth": 1, "heads": 2, "head_width": 8}
    model = replace(base.model, **size, n_bins=5, discount=0.99)
    reward = replace(base.planner.reward, discount=0.99)
    planner = replace(base.planner, context=1, beam=2, elites=1, reward=reward)
    train = replace(base.train, steps=2, batch_size=2)
    return replace(
        base, name="cart", dataset="logs", env=env, model=model, planner=planner, train=train
    )


def nowhere():
    return cart(env="")


def critic():
    base = recipes["iql/hopper-medium"]()
    model = replace(base.model, width=8, discount=0.99)
    train = replace(base.train, steps=2, batch_size=2)
    env = "own_carts:own/other-cart-v0"
    return replace(base, name="critic", dataset="logs", env=env, model=model, train=train)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_carts.py").write_text(ENVIRONMENT)
    (tmp_path / "own_recipes.py").write_text(RECIPES)
    noise = np.random.default_rng(0)
    episodes = [Episode(noise.normal(size=(6, 2)), noise.normal(size=(5, 1)), np.ones(5))] * 3
    EpisodeDataset.from_episodes(episodes).save(tmp_path / "logs")
    return tmp_path


def test_an_environment_of_one_s_own_is_acted_in_by_module_and_name(place, capsys):
    main(["train", "own_recipes.py:cart", "--out", "model"])
    assert (place / "runs-of-this-file").read_text() == "run ", "once, not once a use"
    main(["evaluate", "model", "--episodes", "2"])
    told = capsys.readouterr().out
    assert "own/cart-v0, n = 2" in told and "return" in told and "–" in told
    with pytest.raises(SystemExit):
        main(["evaluate", "model", "--episodes", "2", "--multi"])
    assert "--multi is for maze2d tasks" in capsys.readouterr().err


def test_a_model_for_no_environment_is_told_so(place, capsys):
    main(["train", "own_recipes.py:nowhere", "--out", "model", "--model.horizon", "9"])
    told = " ".join(capsys.readouterr().out.split())
    assert "names no environment to act in" in told and "evaluate" not in told
    assert "windows of 10 transitions, but the longest episode has 5" in told
    with pytest.raises(SystemExit):
        main(["evaluate", "model", "--episodes", "2"])
    assert "Name one of your own MODULE:ID" in capsys.readouterr().err


def test_a_critic_of_another_task_is_refused(place, capsys):
    main(["train", "own_recipes.py:cart", "--out", "model"])
    main(["train", "own_recipes.py:critic", "--out", "critic"])
    with pytest.raises(SystemExit):
        main(["evaluate", "model", "--episodes", "2", "--planner.critic", "critic"])
    error = capsys.readouterr().err
    assert "has values for own_carts:own/other-cart-v0; this model acts in own_carts" in error


def test_recipes_of_a_family_are_listed_whole(place, capsys):
    main(["list", "transformer"])
    told = capsys.readouterr().out
    assert "transformer/halfcheetah-medium-replay-flat-uniform " in told and "diffuser" not in told
