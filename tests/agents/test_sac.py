"""Soft actor-critic: densities, targets, temperature, and a bandit it must solve."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.agents.sac import SAC, SACConfig, squash
from forethought.config import TrainConfig
from forethought.data.replay import ReplayBuffer, Steps
from forethought.training import TrainingRun
from forethought.types import Spaces, Transitions

SPACES = Spaces(observation_dim=3, action_dim=2)


def agent(**changes) -> SAC:
    torch.manual_seed(0)
    model = SACConfig(width=16, **changes).build(SPACES)
    model.fit_ranges(np.array([[-2.0, -1.0], [2.0, 3.0]], np.float32), None)
    return model


def batch(n: int = 32) -> Transitions:
    rng = torch.Generator().manual_seed(1)
    return Transitions(
        observation=torch.randn(n, 3, generator=rng),
        action=torch.rand(n, 2, generator=rng) * 4 - torch.tensor([2.0, 1.0]),
        reward=torch.randn(n, generator=rng),
        next_observation=torch.randn(n, 3, generator=rng),
        terminated=torch.arange(n) % 3 == 0,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------- density


def test_squashed_density_integrates_to_one_and_is_the_change_of_variables():
    for mean, log_std in ((0.0, 0.0), (0.8, -1.0), (-2.0, 0.5)):
        mean_, log_std_ = torch.tensor([[mean]]).double(), torch.tensor([[log_std]]).double()
        noise = torch.linspace(-9, 9, 40_001).double()[:, None]
        action, log_prob = squash(mean_, log_std_, noise)
        mass = torch.trapezoid(log_prob.exp(), action[:, 0])
        assert float(mass) == pytest.approx(1, abs=1e-3)
        inside = action.abs()[:, 0] < 0.999
        u = torch.atanh(action[inside])
        normal = torch.distributions.Normal(mean_, log_std_.exp()).log_prob(u)
        expected = (normal - torch.log1p(-(action[inside] ** 2)))[:, 0]
        torch.testing.assert_close(log_prob[inside], expected, rtol=1e-6, atol=1e-6)


def test_density_stays_finite_at_the_borders():
    _, log_prob = squash(torch.tensor([[30.0, -30.0]]), torch.zeros(1, 2), torch.zeros(1, 2))
    assert bool(log_prob.isfinite().all())


def test_actions_stay_in_the_box_and_the_mode_is_the_squashed_mean():
    model, observation = agent(), 50 * batch().observation
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
    for action in (model.act(observation), model.explore(observation, seeded())):
        assert bool(((action >= low - 1e-5) & (action <= high + 1e-5)).all())
    mean = model.policy(observation)[:, :2].tanh()
    torch.testing.assert_close(model.act(observation), torch.lerp(low, high, (mean + 1) / 2))


# ---------------------------------------------------------------------------------- target


def test_backup_is_the_computation_by_hand():
    model, steps = agent(initial_temperature=0.3, discount=0.9), batch()
    with torch.no_grad():
        mean, log_std = model.policy(steps.next_observation).chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=seeded(4))
        u = mean + log_std.exp() * noise
        normal = torch.distributions.Normal(mean, log_std.exp())
        log_prob = (normal.log_prob(u) - torch.log1p(-(u.tanh() ** 2))).sum(dim=-1)
        both = torch.cat([steps.next_observation, u.tanh()], dim=-1)
        value = model.target_critics(both)[..., 0].amin(dim=0) - 0.3 * log_prob
        expected = torch.where(steps.terminated, steps.reward, steps.reward + 0.9 * value)
    found = model.backup(steps, seeded(4))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_termination_cuts_the_value_off_and_a_time_limit_does_not():
    model, steps = agent(), batch()
    flags = torch.ones(32, dtype=torch.bool)
    torch.testing.assert_close(model.backup(replace(steps, terminated=flags)), steps.reward)
    goes_on = model.backup(replace(steps, terminated=~flags), seeded())
    value = model.soft_value(steps.next_observation, seeded())
    torch.testing.assert_close(goes_on, steps.reward + 0.99 * value)


def test_expansion_takes_the_place_of_the_value():
    model, steps = agent(), batch()
    model.expansion = lambda observation, learner, generator: observation.sum(dim=-1)
    kept = (~steps.terminated).float()
    expected = steps.reward + 0.99 * kept * steps.next_observation.sum(dim=-1)
    torch.testing.assert_close(model.backup(steps), expected)


def test_reward_scale_keeps_values_in_the_reward_s_units():
    """A critic that has learned scaled rewards gives the same backup, but for its entropy."""
    plain, scaled = agent(initial_temperature=1e-9), agent(initial_temperature=1e-9)
    scaled = SAC(replace(scaled.config, reward_scale=10.0), SPACES)
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        scaled.target_critics.weights[-1].mul_(10.0)
        scaled.target_critics.biases[-1].mul_(10.0)
    first, second = (model.backup(batch(), seeded()) for model in (plain, scaled))
    torch.testing.assert_close(second, 10 * first, rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------------- updates


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_part_is_taught_by_its_own_objective_alone(layer_norm):
    model, steps = agent(critic_layer_norm=layer_norm, initial_temperature=0.2), batch()
    model.loss(steps, seeded())[0].backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("target") for name in ours)
    model.zero_grad()
    generator = seeded()
    backup = model.backup(steps, generator)
    z_action = model.action_normalizer.normalize(steps.action)
    critics = model.critics(torch.cat([steps.observation, z_action], dim=-1))[..., 0]
    (0.5 * (critics - backup).square().mean(dim=1)).sum().backward()
    alone = {n: p.grad.clone() for n, p in model.named_parameters() if n.startswith("critics")}
    model.zero_grad()
    z_new, log_prob = model._draw(steps.observation, generator)
    values = model.critics(torch.cat([steps.observation, z_new], dim=-1))[..., 0]
    (0.2 * log_prob - values.amin(dim=0)).mean().backward()
    alone |= {n: p.grad.clone() for n, p in model.named_parameters() if n.startswith("policy")}
    alone["log_temperature"] = -(log_prob.detach().mean() - 2.0)
    assert alone.keys() == ours.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("target", "direction"), [(-20.0, -1), (3.0, 1)])
def test_temperature_moves_toward_the_target_entropy(target, direction):
    """Too random a policy lowers it; entropies on [-1, 1]^2 never exceed 2 log 2 < 3."""
    model = agent(target_entropy=target)
    model.loss(batch(), seeded())[0].backward()
    assert float(-model.log_temperature.grad) * direction > 0


def test_targets_follow_the_critics():
    model = agent(target_rate=0.25)
    before = [p.clone() for p in model.target_critics.parameters()]
    with torch.no_grad():
        for parameter in model.critics.parameters():
            parameter.add_(1.0)
    model.after_step()
    for old, new in zip(before, model.target_critics.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_one_step_bandit_is_solved():
    """Reward -(a - x)^2, over after one step: the mode must become a = x, and Q(x, x) = 0."""
    model = SACConfig(width=32, initial_temperature=0.1, target_entropy=-3.0).build(
        Spaces(observation_dim=1, action_dim=1)
    )
    model.fit_ranges(np.array([[-1.0], [1.0]], np.float32), None)
    rng = np.random.default_rng(0)
    x, action = (rng.uniform(-0.8, 0.8, (4_000, 1)).astype(np.float32) for _ in range(2))
    buffer = ReplayBuffer(4_000, 1, 1)
    over = np.ones(4_000, bool)
    reward = -((action - x)[:, 0] ** 2)
    buffer.add(
        Steps(
            observation=x,
            action=action,
            reward=reward,
            next_observation=x,
            terminated=over,
            truncated=~over,
        )
    )
    train = TrainConfig(
        batch_size=128, learning_rate=3e-3, warmup_steps=0, schedule="constant", ema_decay=0.0
    )
    run = TrainingRun(model, train)
    for _ in range(400):
        run.advance(model, buffer)
    where = torch.linspace(-0.7, 0.7, 15)[:, None]
    torch.testing.assert_close(model.act(where), where, rtol=0, atol=0.1)
    value = model.critics(torch.cat([where, where], dim=-1))
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=0.05)


# ---------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["discount", "target_rate"])
def test_settings_outside_their_range_are_refused(name):
    with pytest.raises(ValueError, match=rf"model.{name} is 1.0; it must lie in \(0, 1\)"):
        SACConfig(**{name: 1.0})
    with pytest.raises(ValueError, match="model.reward_scale is 0"):
        SACConfig(reward_scale=0)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="continuous actions"):
        SACConfig().build(Spaces(observation_dim=2, action_dim=1, n_actions=3))
