"""IQL: expectiles in closed form, optimal values on a chain, and who sends gradients to whom."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from forethought.agents.iql import IQL, IQLConfig, expectile_loss
from forethought.config import TrainConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.datasets.maze import build_maze
from forethought.evaluation import EvaluationSettings, evaluate_checkpoint
from forethought.models.base import Actor
from forethought.registry import models, recipes
from forethought.training import TrainingRun, train_experiment
from forethought.types import Transitions

DISCOUNT = 0.9


def test_iql_is_found_by_the_registry():
    assert models["iql"] is IQLConfig


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_minimizer_of_the_expectile_loss_is_the_expectile(expectile):
    # for {0, 1} with equal weights, e (1 - v) = (1 - e) v, so that v = e
    targets, v = torch.tensor([0.0, 1.0]), torch.tensor(0.5, requires_grad=True)
    optimizer = torch.optim.SGD([v], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        expectile_loss(targets - v, expectile).backward()
        optimizer.step()
    assert v.item() == pytest.approx(expectile, abs=1e-5)


def test_expectile_one_half_is_half_the_squared_error():
    u = torch.linspace(-2, 3, 11)
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u.square().mean())


# ------------------------------------------------------------- a chain whose values are known


N_STATES = 4


def chain() -> EpisodeDataset:
    """States 0..4 as one-hot rows; action +1 moves right, -1 left (never below 0).

    Entering state 4 gives reward 1 and ends the episode. The behavior walks at random.
    """
    generator, episodes = np.random.default_rng(0), []
    for _ in range(300):
        state, states, moves = int(generator.integers(N_STATES)), [], []
        for _ in range(12):
            move = int(generator.choice([-1, 1]))
            states.append(state)
            moves.append([move])
            state = max(state + move, 0)
            if state == N_STATES:
                break
        ended = state == N_STATES
        observations = np.eye(N_STATES + 1, dtype=np.float32)[[*states, state]]
        rewards = np.zeros(len(moves), np.float32)
        rewards[-1] = ended
        episodes.append(Episode(observations, np.array(moves, np.float32), rewards, ended))
    return EpisodeDataset.from_episodes(episodes)


@pytest.fixture(scope="module")
def trained() -> dict[float, IQL]:
    """On the chain, for a low and a high expectile."""
    dataset, result = chain(), {}
    for expectile in (0.5, 0.99):
        config = IQLConfig(
            discount=DISCOUNT, expectile=expectile, target_rate=0.1, width=32, temperature=20.0
        )
        train = TrainConfig(
            steps=700, learning_rate=3e-3, warmup_steps=0, ema_decay=0, batch_size=128
        )
        torch.manual_seed(0)
        model = config.build(dataset.spaces)
        model.fit_statistics(dataset)
        run, view = TrainingRun(model, train), config.view(dataset)
        for _ in range(train.steps):
            run.advance(model, view)
        result[expectile] = model
    return result


def values_of(model: IQL) -> torch.Tensor:
    with torch.no_grad():
        return model.value(model.encode(torch.eye(N_STATES + 1)[:N_STATES], None))[:, 0]


def test_value_at_a_high_expectile_is_the_optimum(trained):
    optimum = DISCOUNT ** torch.arange(N_STATES - 1, -1.0, -1)  # 1 on entering the last state
    torch.testing.assert_close(values_of(trained[0.99]), optimum, rtol=0, atol=0.02)


def test_value_at_expectile_one_half_is_the_behavior_s(trained):
    # v_s = (next_left + next_right) / 2, with the reward 1 and then nothing beyond the last state
    matrix, reward = np.eye(N_STATES), np.zeros(N_STATES)
    for state in range(N_STATES):
        matrix[state, max(state - 1, 0)] -= DISCOUNT / 2
        if state + 1 < N_STATES:
            matrix[state, state + 1] -= DISCOUNT / 2
        else:
            reward[state] = 0.5
    expected = torch.from_numpy(np.linalg.solve(matrix, reward)).float()
    torch.testing.assert_close(values_of(trained[0.5]), expected, rtol=0, atol=0.02)


def test_policy_moves_right_everywhere(trained):
    model = trained[0.99]
    assert isinstance(model, Actor)
    assert bool((model.act(torch.eye(N_STATES + 1)[:N_STATES]) > 0.5).all())


# ------------------------------------------------------------------ gradients, targets, goals


def small(dataset: EpisodeDataset, **changes) -> tuple[IQL, Transitions]:
    config = replace(IQLConfig(width=16), **changes)
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    view = config.view(dataset)
    return model, view[np.random.default_rng(0).integers(len(view), size=32)]


PARTS = ("value", "critics", "policy")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_taught_by_its_own_objective_alone(part, dataset):
    """Its gradient under the sum does not change when another part's networks' losses do."""
    model, batch = small(dataset)
    model.loss(batch)[0].backward()
    summed = [p.grad.clone() for p in model.get_submodule(part).parameters()]

    model.zero_grad()
    z = model.encode(batch.observation, None)
    z_action = model.action_normalizer.normalize(batch.action)
    both = torch.cat([z, z_action], dim=-1)
    target = model.target_critics(both)[..., 0].amin(dim=0).detach()
    value = model.value(z)[:, 0]
    if part == "value":
        alone = expectile_loss(target - value, 0.95)
    elif part == "critics":
        next_value = model.value(model.encode(batch.next_observation, None))[:, 0].detach()
        backup = batch.reward + 0.99 * torch.where(batch.terminated, 0.0, next_value)
        q_first, q_second = model.critics(both)[..., 0]
        alone = (q_first - backup).square().mean() + (q_second - backup).square().mean()
    else:
        weight = (10.0 * (target - value)).exp().clamp(max=100.0).detach()
        policy = torch.distributions.Normal(model.policy(z), model.policy.log_std.exp())
        alone = -(weight * policy.log_prob(z_action).sum(dim=-1)).mean()
    alone.backward()
    for ours, parameter in zip(summed, model.get_submodule(part).parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)


def test_targets_are_not_trained_and_follow_the_critics(dataset):
    model, batch = small(dataset, target_rate=0.25)
    model.loss(batch)[0].backward()
    assert all(p.grad is None for p in model.target_critics.parameters())
    before = [p.clone() for p in model.target_critics.parameters()]
    with torch.no_grad():
        for parameter in model.critics.parameters():
            parameter.add_(1.0)
    model.after_step()
    for old, new in zip(before, model.target_critics.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_timeouts_are_backed_up_and_terminations_are_not(dataset):
    model, batch = small(dataset)
    ends = replace(batch, terminated=torch.ones_like(batch.terminated))
    goes_on = replace(batch, terminated=torch.zeros_like(batch.terminated))
    with torch.no_grad():
        z_action = model.action_normalizer.normalize(batch.action)
        both = torch.cat([model.encode(batch.observation, None), z_action], dim=-1)
        critics = model.critics(both)[..., 0]
        next_value = model.value(model.encode(batch.next_observation, None))[:, 0]
    for case, factor in ((ends, 0.0), (goes_on, 0.99)):
        expected = (critics - (batch.reward + factor * next_value)).square().mean(dim=1).sum()
        torch.testing.assert_close(model.loss(case)[1]["critic_loss"], expected)


def test_goals_reach_every_network_and_are_asked_for(dataset):
    model, batch = small(dataset, goal_dims=(0, 1))
    other = replace(batch, goal=batch.goal + 1)
    first, second = model.loss(batch)[1], model.loss(other)[1]
    for name in ("value", "critic_loss", "policy_loss"):
        assert not torch.equal(first[name], second[name]), f"{name} ignores the goal"
    hidden_dim = replace(batch, goal=batch.goal + torch.tensor([0.0, 0.0, 5.0]))
    assert torch.equal(first["policy_loss"], model.loss(hidden_dim)[1]["policy_loss"])
    with pytest.raises(ValueError, match=r"trained with goals .*\(0, 1\).* was given none"):
        model.act(batch.observation)


def test_actions_stay_inside_the_data_s_range(dataset):
    model, batch = small(dataset)
    actions = model.act(100 * batch.observation)
    low, high = dataset.actions.min(axis=0), dataset.actions.max(axis=0)
    slack = 1e-5
    assert bool((actions >= torch.from_numpy(low) - slack).all())
    assert bool((actions <= torch.from_numpy(high) + slack).all())


@pytest.mark.parametrize("name", ["expectile", "discount", "target_rate"])
def test_settings_outside_their_range_are_refused(name):
    with pytest.raises(ValueError, match=rf"model.{name} is 1.0; it must lie in \(0, 1\)"):
        replace(IQLConfig(), **{name: 1.0})
    with pytest.raises(ValueError, match="model.temperature is -1"):
        IQLConfig(temperature=-1)


@pytest.mark.parametrize("layout", ["umaze", "medium", "large"])
def test_recipes_differ_in_goal_and_environment_alone(layout):
    single, multi = recipes[f"iql/maze-{layout}"](), recipes[f"iql/multi-{layout}"]()
    assert single.env.endswith(f"maze2d-{layout}-v0") and multi.env.endswith(f"multi2d-{layout}-v0")
    assert single.dataset == multi.dataset == f"maze-{layout}"
    assert replace(multi.model, goal_dims=()) == single.model and multi.train == single.train


def test_checkpoint_is_evaluated_beside_the_behavior_controller(tmp_path):
    experiment = recipes["iql/multi-umaze"]()
    experiment = replace(
        experiment,
        model=replace(experiment.model, width=8),
        train=replace(experiment.train, steps=2, batch_size=4),
    )
    train_experiment(experiment, build_maze("umaze", seed=0, n_steps=300), tmp_path)
    data = evaluate_checkpoint(
        tmp_path,
        EvaluationSettings(episodes=2),
        experiment.planner,
        experiment.control,
        None,
        Console(quiet=True),
    )
    assert data["protocol"]["env"] == "forethought/multi2d-umaze-v0"
    assert data["protocol"]["controller"] == "the model's own actions"
    names = [row["name"].partition(" ")[0] for row in data["references"]]
    assert names == ["ceiling:", "behavior"]


def test_returns_are_scaled_to_a_range_of_a_thousand_and_only_if_asked_for():
    rng = np.random.default_rng(0)
    rewards = [np.full(4, 1.0, np.float32), np.full(2, 5.0, np.float32)]  # returns 4 and 10
    dataset = EpisodeDataset.from_episodes(
        [
            Episode(
                rng.normal(size=(len(r) + 1, 3)).astype(np.float32),
                rng.normal(size=(len(r), 1)).astype(np.float32),
                r,
            )
            for r in rewards
        ]
    )
    agents = [IQLConfig(scale_returns=scaled).build(dataset.spaces) for scaled in (False, True)]
    for agent in agents:
        agent.fit_statistics(dataset)
    plain, scaled = agents
    assert "reward_scale" not in plain.state_dict()
    assert scaled.state_dict()["reward_scale"] == pytest.approx(1000 / 6)
    weights = {k: v for k, v in scaled.state_dict().items() if k != "reward_scale"}
    plain.load_state_dict(weights)
    batch = IQLConfig().view(dataset)[np.arange(6)]
    larger = replace(batch, reward=batch.reward * (1000 / 6))
    torch.testing.assert_close(scaled.loss(batch)[0], plain.loss(larger)[0])
