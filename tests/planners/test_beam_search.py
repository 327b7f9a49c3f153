"""Laws of beam search: exhaustive search, behavior cloning, rewards, cut-offs, the cache."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from forethought.config import PlannerConfig, from_json, to_json
from forethought.controllers import FollowActions
from forethought.models.base import TokenState
from forethought.models.factored import FactoredTransformerConfig
from forethought.models.transformer import TransformerConfig
from forethought.planners.beam_planner import BeamPlanner, BeamPlannerConfig
from forethought.planners.beam_search import (
    CutOffs,
    RewardSearch,
    beam_search,
    reward_search,
    sample_tokens,
)
from forethought.policy import PlanningPolicy
from forethought.types import Spaces, Trajectory

SIZES = {"context": 2, "horizon": 3, "n_bins": 4, "width": 16, "depth": 2, "heads": 2}
FLAT = TransformerConfig(**SIZES)
FACTORED = FactoredTransformerConfig(**SIZES, head_width=16)
IMITATION = {"reward_token": False, "return_token": "none"}
both = pytest.mark.parametrize("config", [FLAT, FACTORED], ids=["flat", "factored"])


def built(config, dataset):
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.double().eval().requires_grad_(False)


def situation(config, dataset, past: int = 2, batch: int = 2):
    window = config.view(dataset)[np.arange(batch) * 7 + 1]
    history = Trajectory(
        observations=window.observations[:, :past],
        actions=window.actions[:, :past],
        times=window.times[:past],
        rewards=window.rewards[:, :past],
    )
    return history, window.observations[:, past]


def generators(count: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


class Table(TokenState):
    """A token state with known logits: one vector for each number of tokens so far, and history."""

    def __init__(self, logits_of, batch: int = 1) -> None:
        self._tokens = torch.zeros(batch, 1, 0, dtype=torch.int64)
        self.network_calls, self._logits_of = 0, logits_of

    @property
    def tokens(self):
        return self._tokens

    def next_logits(self):
        return self._logits_of(self.tokens)

    def append(self, tokens):
        self._tokens = torch.cat([self.tokens, tokens[..., None]], dim=2)

    def select(self, indices):
        self._tokens = self.tokens[torch.arange(len(indices))[:, None], indices]

    def latest(self, count):
        return self.tokens[:, :, -count:]


def log_probability(model, history, observation, sequence) -> torch.Tensor:
    """(batch,) of one sequence of tokens, token by token without a cache."""
    state = model.begin(history, observation, cache=False)
    total = torch.zeros(len(observation), dtype=torch.float64)
    for token in sequence:
        total += state.next_logits().log_softmax(-1)[:, 0, token]
        state.append(torch.full((len(observation), 1), token))
    return total


@both
@pytest.mark.parametrize("length", [2, 3])
def test_beam_of_width_all_sequences_equals_exhaustive_search(config, length, dataset):
    config = replace(config, **IMITATION, n_bins=3)
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    state = model.begin(history, observation)
    score = beam_search(state, 3, length, 3**length)
    every = list(product(range(3), repeat=length))
    expected = torch.stack(
        [log_probability(model, history, observation, sequence) for sequence in every], dim=1
    )
    assert score.shape[1] == 3**length, "no sequence is lost"
    for env in range(2):
        best = every[int(expected[env].argmax())]
        assert tuple(state.tokens[env, 0].tolist()) == best
        torch.testing.assert_close(score[env], expected[env].sort(descending=True).values)
        found = {tuple(sequence) for sequence in state.tokens[env].tolist()}
        assert len(found) == 3**length
    torch.testing.assert_close(score.exp().sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_a_wide_beam_finds_what_a_greedy_one_misses():
    # the likelier first token leads to unlikely second ones
    first, second = torch.tensor([0.6, 0.4]), torch.tensor([[0.5, 0.5], [0.9, 0.1]])

    def logits_of(tokens):
        if not tokens.shape[2]:
            return first.log().expand(*tokens.shape[:2], -1)
        return second[tokens[..., 0]].log()

    for width, sequence, probability in ((1, [0, 0], 0.3), (2, [1, 0], 0.36)):
        state = Table(logits_of)
        score = beam_search(state, 2, 2, width)
        assert state.tokens[0, 0].tolist() == sequence
        torch.testing.assert_close(score[0, 0].exp(), torch.tensor(probability))


@both
def test_a_beam_as_long_as_the_action_equals_autoregressive_behavior_cloning(config, dataset):
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    for beam in (1, 4**2):
        settings = BeamPlannerConfig(search="likelihood", horizon=1, context=2, beam=beam)
        plan = BeamPlanner(model, settings).plan(observation, history=history)
        if beam == 1:  # each dimension's likeliest value given those before
            state = model.begin(history, observation)
            for _ in range(2):
                state.append(state.next_logits()[..., :4].argmax(-1))
            expected = state.tokens[:, 0]
        else:  # the likeliest action of all
            every = list(product(range(4), repeat=2))
            of_all = torch.stack(
                [log_probability(model, history, observation, action) for action in every], dim=1
            )
            expected = torch.tensor([every[int(index)] for index in of_all.argmax(dim=1)])
        actions = model.tokens.decode(expected, first=3).to(observation)
        torch.testing.assert_close(plan.trajectory.actions[:, 0], actions)


@both
def test_the_mean_of_all_actions_is_that_of_their_bins_and_of_one_elite_its_own(config, dataset):
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    settings = BeamPlannerConfig(search="likelihood", horizon=1, context=2, beam=4**2)
    best, two, every = (
        BeamPlanner(model, replace(settings, elites=elites)).plan(observation, history=history)
        for elites in (1, 2, 4**2)
    )
    values = [model.tokens.column_values(column)[:4].mean() for column in (3, 4)]
    expected = torch.stack(values).expand(2, -1).to(observation)
    torch.testing.assert_close(every.trajectory.actions[:, 0], expected)
    second = 2 * two.trajectory.actions[:, 0] - best.trajectory.actions[:, 0]
    for env in range(2):  # it is another one of the actions that there are
        rows = list(product(*(model.tokens.column_values(c)[:4].tolist() for c in (3, 4))))
        gaps = (torch.tensor(rows).to(second) - second[env]).abs().sum(dim=1)
        assert float(gaps.min()) < 1e-5
    assert float((second - best.trajectory.actions[:, 0]).abs().max()) > 1e-3


@both
def test_expected_actions_are_means_given_the_best_dimensions_before(config, dataset):
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    settings = BeamPlannerConfig(search="likelihood", horizon=2, context=2, beam=3)
    best, expected = (
        BeamPlanner(model, replace(settings, expected_action=mean)).plan(
            observation, history=history
        )
        for mean in (False, True)
    )
    state, means = model.begin(history, observation), []
    for column in (3, 4):
        probabilities = state.next_logits().softmax(-1)[:, 0, :4]
        values = model.tokens.column_values(column)
        means.append((probabilities * values).sum(dim=1))
        chosen = best.trajectory.actions[:, 0, column - 3, None]
        state.append((values.to(chosen) - chosen).abs().argmin(dim=1, keepdim=True))
    ours = expected.trajectory
    torch.testing.assert_close(ours.actions[:, 0].double(), torch.stack(means, dim=1))
    torch.testing.assert_close(ours.actions[:, 1:], best.trajectory.actions[:, 1:])
    torch.testing.assert_close(ours.observations, best.trajectory.observations)
    assert expected.stats["network_calls"] > best.stats["network_calls"]


@both
@pytest.mark.parametrize("search", ["likelihood", "reward"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"hide_returns": True, "stop_token": True, "return_token": "without_reward"}],
    ids=["thesis", "released"],
)
def test_plans_with_and_without_cache_are_identical(config, search, changes, dataset):
    model = built(replace(config, **changes), dataset)
    history, observation = situation(config, dataset)
    settings = BeamPlannerConfig(
        search=search,
        horizon=3,
        context=2,
        beam=8,
        reward=RewardSearch(observations=CutOffs(top=3), actions=CutOffs(cdf=0.4)),
    )
    plans = [
        BeamPlanner(model, replace(settings, cache=cache)).plan(
            observation, history=history, generator=generators()
        )
        for cache in (True, False)
    ]
    ours, theirs = (plan.trajectory for plan in plans)
    torch.testing.assert_close(ours.actions, theirs.actions, rtol=0, atol=0)
    torch.testing.assert_close(
        ours.observations, theirs.observations, rtol=0, atol=0, equal_nan=True
    )
    torch.testing.assert_close(plans[0].value, plans[1].value, rtol=0, atol=1e-9)


@both
def test_environments_are_planned_for_alike_together_and_alone(config, dataset):
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    planner = BeamPlanner(model, BeamPlannerConfig(horizon=3, context=2, beam=8))
    together = planner.plan(observation, history=history, generator=generators())
    for env in range(2):
        alone = planner.plan(
            observation[env : env + 1],
            history=history[env : env + 1],
            generator=generators()[env : env + 1],
        )
        torch.testing.assert_close(
            alone.trajectory.actions[0], together.trajectory.actions[env], rtol=0, atol=0
        )


@both
def test_what_a_critic_cannot_judge_costs_no_other_environment_its_beams(config, dataset):
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    best = model.tokens.column_values(3)[:4].max()

    def critic(seen, action):
        bad = (seen - observation[0]).abs().sum(dim=1) < 1e-6
        return torch.where(bad & (action[:, 0] < best - 1e-6), -torch.inf, action[:, 0])

    every = RewardSearch(actions=CutOffs())
    settings = BeamPlannerConfig(horizon=2, context=2, beam=8, reward=every)
    planner = BeamPlanner(model, settings, critic=critic)
    together = planner.plan(observation, history=history, generator=generators())
    alone = planner.plan(observation[1:], history=history[1:], generator=generators()[1:])
    torch.testing.assert_close(together.stats["scores"][1], alone.stats["scores"][0])
    torch.testing.assert_close(together.trajectory.actions[1], alone.trajectory.actions[0])
    scores = together.stats["scores"][0]
    assert bool(scores[0].isfinite()) and bool((scores[:-1] >= scores[1:]).all())


@both
@pytest.mark.parametrize("returns", ["with_reward", "without_reward"])
def test_values_are_discounted_rewards_and_the_last_estimate_counting_none_twice(
    config, returns, dataset
):
    config = replace(config, return_token=returns)
    model = built(config, dataset)
    layout = model.tokens
    history, observation = situation(config, dataset)
    state = model.begin(history, observation)
    settings = RewardSearch(expand=1, actions=CutOffs(top=1), discount=0.9)
    found = reward_search(state, layout, 3, 1, settings, observation=observation)
    again, rewards = model.begin(history, observation), []
    for step, token in enumerate(state.tokens.unbind(dim=2)):
        column = (layout.action_start + step) % layout.columns
        if column in (layout.reward_column, layout.return_column):
            mean = again.next_logits().softmax(-1)[..., :4] @ layout.column_values(column)
            rewards.append(mean)
        again.append(token)
    r, to_go = rewards[0::2], rewards[1::2]
    expected = r[0] + 0.9 * r[1]
    if returns == "with_reward":
        expected = expected + 0.81 * to_go[2]
    else:
        expected = expected + 0.81 * r[2] + 0.9**3 * to_go[2]
    torch.testing.assert_close(found.score, expected)
    torch.testing.assert_close(found.rewards[:, 0], torch.stack([x[:, 0] for x in r], dim=1))


def test_the_search_finds_the_action_that_pays(dataset):
    """Rewards that the model is sure of: 3 for the third action token, else the lowest."""
    model = built(replace(FLAT, return_token="none"), dataset)
    layout = model.tokens
    values = layout.column_values(layout.reward_column)

    def logits_of(tokens):
        logits = torch.zeros(*tokens.shape[:2], 4, dtype=torch.float64)
        column = (layout.action_start + tokens.shape[2]) % layout.columns
        if column == layout.reward_column:
            logits[:] = -torch.inf
            paid = torch.where(tokens[..., -2] == 2, 3, 0)
            logits.scatter_(-1, paid[..., None], 0.0)
        return logits

    settings = RewardSearch(expand=4, actions=CutOffs(), discount=1.0)
    state = Table(logits_of)
    found = reward_search(state, layout, 3, 32, settings, generator=generators(1)[0])
    torch.testing.assert_close(found.score[0, 0], 3 * values[3])
    chosen = state.tokens[0, 0].unflatten(0, (-1, 1)).flatten().tolist()
    assert [chosen[0], chosen[6], chosen[12]] == [2, 2, 2]


def test_a_critic_takes_the_place_of_rewards_to_go(dataset):
    model = built(FACTORED, dataset)
    history, observation = situation(FACTORED, dataset)
    asked = []

    def critic(seen, action):
        asked.append((seen, action))
        return -(action[:, 0] - 0.4).abs()

    settings = RewardSearch(actions=CutOffs(), discount=0.0)
    config = BeamPlannerConfig(horizon=1, context=2, beam=64, reward=settings)
    plan = BeamPlanner(model, config, critic=critic).plan(
        observation, history=history, generator=generators()
    )
    torch.testing.assert_close(asked[0][0][::128].float(), observation)
    options = model.tokens.column_values(3)
    nearest = options[(options - 0.4).abs().argmin()]
    torch.testing.assert_close(
        plan.trajectory.actions[:, 0, 0].double(), nearest.expand(2), rtol=1e-5, atol=0
    )
    with pytest.raises(ValueError, match="a critic guides planner.search reward"):
        BeamPlanner(model, replace(config, search="likelihood"), critic=critic)


# ---------------------------------------------------------------------------------------- cut-offs


def frequencies(logits, cut_offs, count=20_000):
    class Noise:
        def uniform(self, like):
            return torch.linspace(0, 1, count + 1)[:-1].view(1, count, 1)

    tokens = sample_tokens(logits.expand(1, count, -1), cut_offs, Noise())
    return torch.bincount(tokens.flatten(), minlength=len(logits)) / count


def test_cut_offs_remove_the_least_likely_tokens():
    p = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
    for cut_offs, kept in (
        (CutOffs(), [0, 1, 2, 3, 4]),
        (CutOffs(top=2), [1, 3]),
        (CutOffs(top=1), [1]),
        (CutOffs(cdf=0.04), [0, 1, 2, 3, 4]),
        (CutOffs(cdf=0.3), [1, 3, 4]),  # 0.05, then 0.15 of the mass are below 0.3; 0.35 is not
        (CutOffs(cdf=0.59), [1, 3]),
        (CutOffs(cdf=0.61), [1]),
        (CutOffs(cdf=0.99), [1]),
        (CutOffs(top=3, cdf=0.3), [1, 3, 4]),
    ):
        expected = torch.zeros(5)
        expected[kept] = p[kept] / p[kept].sum()
        torch.testing.assert_close(
            frequencies(p.log(), cut_offs), expected, rtol=0, atol=2e-4, msg=f"{cut_offs}"
        )


def test_an_empty_beam_is_a_clear_error(dataset):
    for bad in ({"cdf": 1.0}, {"top": -1}):
        with pytest.raises(ValueError, match="would leave no token, and the beam empty"):
            CutOffs(**bad)
    broken = Table(lambda tokens: torch.full((*tokens.shape[:2], 5), torch.nan))
    with pytest.raises(ValueError, match="the beam is empty"):
        beam_search(broken, 4, 2, 3)
    for cut_offs in (CutOffs(top=1), CutOffs(cdf=0.5)):
        with pytest.raises(ValueError, match="the beam is empty"):
            sample_tokens(torch.full((1, 2, 5), -torch.inf), cut_offs, None)
    model = built(FLAT, dataset)
    history, observation = situation(FLAT, dataset)

    def critic(seen, action):
        return torch.full((len(seen),), -torch.inf)

    planner = BeamPlanner(model, BeamPlannerConfig(horizon=2, context=2, beam=4), critic=critic)
    with pytest.raises(ValueError, match="the beam is empty"):
        planner.plan(observation, history=history)


def test_a_predicted_end_stops_the_rewards_and_is_masked_in_the_plan(dataset):
    config = replace(FLAT, stop_token=True)
    model = built(config, dataset)
    original = model.column_logits

    def sure_to_end(logits, column):
        if column:
            return original(logits, column)
        stop = torch.tensor([config.n_bins])
        return torch.full_like(logits, -torch.inf).index_fill(-1, stop, 0.0)

    model.column_logits = sure_to_end
    history, observation = situation(config, dataset)
    plan = BeamPlanner(model, BeamPlannerConfig(horizon=3, context=2, beam=4)).plan(
        observation, history=history, generator=generators()
    )
    assert plan.trajectory.observation_mask.tolist() == [[True, False, False]] * 2
    assert plan.trajectory.action_mask.tolist() == [[True, False, False]] * 2
    torch.testing.assert_close(plan.trajectory.observations, observation[:, None].expand(-1, 3, -1))
    first = plan.trajectory.actions[:, :1]
    torch.testing.assert_close(plan.trajectory.actions, first.expand(-1, 3, -1))
    assert not plan.trajectory.rewards[:, 1:].any() and plan.trajectory.rewards[:, 0].all()


# ------------------------------------------------------------------------------- planner and policy


def test_planner_refuses_what_does_not_fit_the_model(dataset, tiny_model):
    model = built(FLAT, dataset)
    with pytest.raises(ValueError, match="of 6 transitions, longer than the context.*of 5"):
        BeamPlanner(model, BeamPlannerConfig(horizon=4, context=2))
    BeamPlanner(model, BeamPlannerConfig(horizon=4, context=2, crop=3))
    with pytest.raises(ValueError, match="needs a model that is a TokenModel; Diffuser offers"):
        BeamPlanner(tiny_model, BeamPlannerConfig())
    with pytest.raises(ValueError, match="planner.elites is 5, but planner.beam keeps 4"):
        BeamPlannerConfig(beam=4, elites=5)
    chooser = FLAT.build(Spaces(observation_dim=3, action_dim=1, n_actions=4))
    for mean in ({"elites": 2}, {"expected_action": True, "search": "likelihood"}):
        with pytest.raises(ValueError, match="discrete actions, which have no mean"):
            BeamPlanner(chooser, BeamPlannerConfig(horizon=3, context=2, beam=4, **mean))
    for wrong in ({}, {"search": "likelihood", "elites": 2}):
        with pytest.raises(ValueError, match="expected_action is for planner.search likelihood"):
            BeamPlannerConfig(beam=4, expected_action=True, **wrong)
    with pytest.raises(ValueError, match="crop is 6 transitions; use 0 .* or 2 to 5"):
        BeamPlanner(model, BeamPlannerConfig(horizon=3, context=2, crop=6))
    with pytest.raises(ValueError, match=r"discount is 0.5, but .* discounted by 0.99"):
        BeamPlanner(
            model, BeamPlannerConfig(horizon=3, context=2, reward=RewardSearch(discount=0.5))
        )
    with pytest.raises(ValueError, match="a plan of one transition does not show"):
        BeamPlannerConfig(critic="some/folder", critic_value="state", horizon=1)
    bare = built(replace(FLAT, **IMITATION), dataset)
    planner = BeamPlanner(bare, BeamPlannerConfig(horizon=3, context=2, beam=2))
    with pytest.raises(ValueError, match="needs a model with reward tokens"):
        planner.plan(torch.zeros(1, 3))


@both
def test_models_that_roll_plan_beyond_their_window(config, dataset):
    model = built(replace(config, positions="rotary", band=2), dataset)
    history, observation = situation(config, dataset)
    settings = BeamPlannerConfig(horizon=12, context=2, beam=3)
    plan = BeamPlanner(model, settings).plan(observation, history=history, generator=generators())
    assert plan.trajectory.horizon == 12
    with pytest.raises(ValueError, match="planner.crop is 3, but .* roll on for ever"):
        BeamPlanner(model, replace(settings, crop=3))


@both
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_plans_and_the_model_can_be_learned_from_after_planning(config, positions, dataset):
    config = replace(config, positions=positions)
    model = built(config, dataset)
    history, observation = situation(config, dataset)
    plan = BeamPlanner(model, BeamPlannerConfig(horizon=3, context=2, beam=4)).plan(
        observation, history=history, generator=generators()
    )
    trajectory = plan.trajectory
    for tensor in (trajectory.observations, trajectory.actions, trajectory.rewards, plan.value):
        assert not tensor.is_inference()
    loss, _ = model.train().requires_grad_(True).loss(config.view(dataset)[np.arange(2)])
    loss.backward()


def test_planner_settings_survive_json():
    config = BeamPlannerConfig(reward=RewardSearch(actions=CutOffs(top=20), expand=3), beam=7)
    assert from_json(PlannerConfig, to_json(config)) == config


@both
def test_policy_gives_the_latest_transitions_and_known_rewards_as_history(config, dataset):
    model = built(config, dataset).float()
    planner = BeamPlanner(model, BeamPlannerConfig(horizon=2, context=2, beam=4))
    seen, plan = [], planner.plan

    def keep(observation, **given):
        seen.append(given["history"])
        return plan(observation, **given)

    planner.plan = keep
    policy = PlanningPolicy(planner, FollowActions(2), replan_every=1, goal_time="receding")
    for told in (True, False):
        seen.clear()
        policy.reset(1)
        acted = []
        for step in range(4):
            observation = torch.full((1, 3), step / 10)
            acted.append(policy(observation)[0])
            if told:
                policy.observe_rewards(torch.tensor([float(step)]), torch.tensor([0]))
        assert seen[0] is None and [h.horizon for h in seen[1:]] == [1, 2, 2]
        last = seen[3]
        torch.testing.assert_close(last.actions[0], torch.stack(acted[1:3]))
        torch.testing.assert_close(last.observations[0, :, 0], torch.tensor([0.1, 0.2]))
        assert last.times.tolist() == [-2, -1]
        if told:
            assert last.rewards.tolist() == [[1.0, 2.0]]
        else:
            assert last.rewards is None


@both
@pytest.mark.parametrize("horizon", [1, 2])
def test_environments_planned_for_together_act_as_each_alone(config, dataset, horizon):
    model = built(config, dataset)
    planner = BeamPlanner(model, BeamPlannerConfig(horizon=horizon, context=2, beam=4))
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    acted = {}
    for together in (False, True):
        policy = PlanningPolicy(
            planner, FollowActions(2), replan_every=1, goal_time="receding", together=together
        )
        policy.reset(3, seeds=[3, 4, 5])
        steps = []
        for step, observation in enumerate(observations):
            rows = torch.tensor([0, 1, 2] if step < 2 else [0, 2])  # one episode ends
            steps.append(policy(observation[rows], rows=rows))
            policy.observe_rewards(observation[rows, 0], rows)
        acted[together] = torch.cat(steps)
        assert len(policy.plan_seconds) == 10 and policy.first_plans[1] is not None
    torch.testing.assert_close(acted[True], acted[False], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="cannot keep an arrival time each"):
        PlanningPolicy(planner, FollowActions(2), replan_every=1, together=True)
