"""A critic leads the search where rewards lie too far ahead; those that cannot are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.agents.iql import IQLConfig
from forethought.checkpoint import save_config, save_model
from forethought.config import Experiment, PlannerConfig, from_json, to_json
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.trajectory_tokens import TrajectoryTokens
from forethought.models.base import TokenState, ValueModel
from forethought.models.factored import FactoredTransformerConfig
from forethought.planners.beam_planner import BeamPlanner, BeamPlannerConfig
from forethought.planners.beam_search import CutOffs, RewardSearch, reward_search
from forethought.planners.critics import ModelCritic, load_critic
from forethought.types import Spaces

# ------------------------------------------------------------------------- a table known exactly

NEXT = {0: (1, 2), 1: (1, 0), 2: (3, 0), 3: (4, 2), 4: (5, 3), 5: (5, 5)}  # state: action 0, 1
GOAL, DISCOUNT, N = 5, 0.9, 6


def best_values() -> torch.Tensor:
    """Q (states, actions) of the graph by value iteration: 1 on entering the goal, which ends."""
    q = torch.zeros(N, 2)
    for _ in range(100):
        v = q.amax(dim=1)
        v[GOAL] = 0
        for state in range(GOAL):
            for action, reached in enumerate(NEXT[state]):
                q[state, action] = float(reached == GOAL) + DISCOUNT * v[reached]
    return q


def graph_layout() -> TrajectoryTokens:
    layout = TrajectoryTokens(
        Spaces(observation_dim=1, action_dim=1),
        n_bins=N,
        kind="uniform",
        reconstruct="mean",
        reward=True,
        returns="none",
        discount=DISCOUNT,
    )
    tokens = torch.arange(N, dtype=torch.float32)
    layout.tokenizer.values.copy_(torch.stack([tokens, tokens, tokens / (N - 1)]))
    return layout


class Graph(TokenState):
    """A model that is sure where actions lead, and thinks the dead end the likelier choice."""

    network_calls = 0

    def __init__(self, start: int) -> None:
        self._prefix = torch.tensor([[[start]]])
        self._tokens = torch.zeros(1, 1, 0, dtype=torch.int64)

    @property
    def tokens(self):
        return self._tokens

    def latest(self, count):
        prefix = self._prefix.expand(-1, self.beams, -1)
        return torch.cat([prefix, self._tokens], dim=2)[:, :, -count:]

    def next_logits(self):
        column = (1 + self._tokens.shape[2]) % 3
        logits = torch.full((1, self.beams, N), -torch.inf)
        if column == 1:
            logits[..., 0], logits[..., 1] = np.log(0.8), np.log(0.2)
            return logits
        state, action = self.latest(2 if column == 2 else 3)[0, :, :2].unbind(dim=1)
        reached = torch.tensor([NEXT[int(s)][int(a)] for s, a in zip(state, action, strict=True)])
        paid = (N - 1) * ((reached == GOAL) & (state != GOAL)).long()
        logits.scatter_(2, (reached if column == 0 else paid)[None, :, None], 0.0)
        return logits

    def append(self, tokens):
        self._tokens = torch.cat([self._tokens, tokens[..., None]], dim=2)

    def select(self, indices):
        self._tokens = self._tokens[torch.arange(len(indices))[:, None], indices]


def first_action(start: int, *, guided: bool, horizon: int = 2) -> tuple[int, float]:
    """What a search of ``horizon`` steps does first in a state, and the value it expects."""
    q = best_values()
    q[GOAL] = 0

    def critic(seen, action):
        return q[seen[:, 0].round().long(), action[:, 0].round().long()]

    layout, state = graph_layout(), Graph(start)
    found = reward_search(
        state,
        layout,
        horizon,
        16,
        RewardSearch(expand=4, actions=CutOffs(), discount=DISCOUNT),
        generator=torch.Generator().manual_seed(0),
        critic=critic if guided else None,
        observation=torch.tensor([[float(start)]]),
    )
    return int(state.tokens[0, 0, 0]), float(found.score[0, 0])


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_critic_leads_a_short_search_along_the_shortest_way(horizon):
    state, way = 0, [0]
    while state != GOAL:
        action, value = first_action(state, guided=True, horizon=horizon)
        assert value == pytest.approx(float(best_values()[state].max()), abs=1e-5)
        state = NEXT[state][action]
        way.append(state)
        assert len(way) <= 5, "0, 2, 3, 4, 5 is the shortest way"
    assert way == [0, 2, 3, 4, 5]


def test_without_a_critic_a_reward_beyond_the_horizon_is_not_seen():
    for state in (0, 2):
        assert first_action(state, guided=False)[1] == 0.0
    assert first_action(3, guided=False) == (0, pytest.approx(DISCOUNT))


# ------------------------------------------------------------------------- models and checkpoints

CONFIG = FactoredTransformerConfig(
    context=1, horizon=3, n_bins=5, width=8, depth=1, heads=2, head_width=8, dropout=0.0
)
SEARCH = BeamPlannerConfig(
    beam=8, horizon=2, context=1, reward=RewardSearch(actions=CutOffs(), discount=0.99)
)


@pytest.fixture(scope="module")
def dataset() -> EpisodeDataset:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            random.normal(size=(9, 3)).astype(np.float32),
            random.uniform(-1, 1, (8, 2)).astype(np.float32),
            np.array([0.0] * 7 + [i % 2], dtype=np.float32),
        )
        for i in range(6)
    ]
    return EpisodeDataset.from_episodes(episodes)


@pytest.fixture(scope="module")
def transformer(dataset):
    torch.manual_seed(0)
    model = CONFIG.build(dataset.spaces)
    model.fit_statistics(dataset)
    return model.eval().requires_grad_(False)


def checkpoint(folder, dataset):
    torch.manual_seed(1)
    config = IQLConfig(width=8)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    experiment = Experiment(name="iql", dataset="d", env="e", model=config)
    facts = {"name": "d", "fingerprint": "0"}
    save_config(folder, experiment, dataset.spaces, dataset=facts, seed=0)
    save_model(folder, model.state_dict())
    return model


def test_the_planner_ranks_by_the_values_of_the_checkpoint_it_is_given(
    tmp_path, dataset, transformer
):
    iql = checkpoint(tmp_path, dataset)
    settings = replace(SEARCH, horizon=1, beam=16, critic=str(tmp_path))
    assert from_json(PlannerConfig, to_json(settings)) == settings
    observation = torch.from_numpy(dataset.observations[:2])
    plan = settings.build(transformer).plan(observation, generator=torch.Generator().manual_seed(0))
    assert plan.value is not None
    expected = iql.action_value(observation, plan.trajectory.actions[:, 0])
    torch.testing.assert_close(plan.value, expected)
    longer = replace(settings, horizon=2, critic_value="state")
    plan = longer.build(transformer).plan(observation, generator=torch.Generator().manual_seed(0))
    assert plan.value is not None and plan.trajectory.rewards is not None
    later = iql.state_value(plan.trajectory.observations[:, 1])
    torch.testing.assert_close(plan.value, plan.trajectory.rewards[:, 0] + 0.99 * later)


def test_values_are_in_the_data_s_units_of_reward(dataset):
    scaled = IQLConfig(width=8, scale_returns=True, return_range=50.0).build(dataset.spaces)
    scaled.fit_statistics(dataset)
    plain = IQLConfig(width=8).build(dataset.spaces)
    weights = {k: v for k, v in scaled.state_dict().items() if k != "reward_scale"}
    plain.load_state_dict(weights)
    observation, action = (torch.from_numpy(a[:5]) for a in (dataset.observations, dataset.actions))
    value = plain.action_value(observation, action)
    torch.testing.assert_close(50 * scaled.action_value(observation, action), value)
    torch.testing.assert_close(50 * scaled.state_value(observation), plain.state_value(observation))
    with pytest.raises(ValueError, match="return_range is 0"):
        IQLConfig(return_range=0)


def test_values_for_goals_are_asked_with_each_environment_s_goal(dataset, transformer):
    config = IQLConfig(width=8, goal_dims=(0, 1))
    iql = config.build(dataset.spaces)
    iql.fit_statistics(dataset)
    critic = ModelCritic(iql, dataset.spaces, name="runs/iql")
    planner = BeamPlanner(transformer, SEARCH, critic=critic)
    observation = torch.from_numpy(dataset.observations[:2])
    with pytest.raises(ValueError, match="runs/iql was trained with goals, .* gives none"):
        planner.plan(observation)
    goals = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.5, 0.0]])
    assert planner.plan(observation, goal=goals).value is not None
    seen, action = observation.repeat_interleave(3, dim=0), torch.zeros(6, 2)
    each = goals.repeat_interleave(3, dim=0)
    torch.testing.assert_close(
        critic.toward(goals)(seen, action), iql.action_value(seen, action, each)
    )
    with pytest.raises(ValueError, match="trained with goals"):
        critic(seen, action)


def test_a_critic_that_cannot_judge_these_plans_is_a_clear_error(tmp_path, dataset, transformer):
    missing = replace(SEARCH, critic=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"critic .*nowhere does not exist; .*Train"):
        missing.build(transformer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not a checkpoint folder"):
        replace(SEARCH, critic=str(tmp_path / "empty")).build(transformer)
    checkpoint(tmp_path / "iql", dataset)
    named = replace(SEARCH, critic=str(tmp_path / "iql"))
    with pytest.raises(ValueError, match=r"discount is 0.9, but .*/iql was trained with .* 0.99"):
        replace(named, reward=replace(SEARCH.reward, discount=0.9)).build(transformer)
    with pytest.raises(ValueError, match="guides planner.search reward"):
        replace(named, search="likelihood").build(transformer)
    for spaces, wrong in (
        (Spaces(observation_dim=4, action_dim=2), "observation_dim 3; the planning model has 4"),
        (Spaces(observation_dim=3, action_dim=1), "action_dim 2; the planning model has 1"),
    ):
        with pytest.raises(ValueError, match=wrong):
            load_critic(tmp_path / "iql", spaces)
    with pytest.raises(ValueError, match="needs a model that is a ValueModel; .* TokenModel"):
        ModelCritic(transformer, dataset.spaces)
    assert isinstance(IQLConfig(width=8).build(dataset.spaces), ValueModel)
