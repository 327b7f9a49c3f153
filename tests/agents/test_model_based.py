"""MVE, gamma-MVE and MBPO: with an exact model they change nothing, and what they do with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.agents.gamma_mve import GammaMVE, GammaMVEConfig
from forethought.agents.mbpo import MBPO, MBPOConfig
from forethought.agents.mve import MVE, MVEConfig
from forethought.agents.sac import SACConfig
from forethought.config import Experiment, from_json, to_json
from forethought.models.base import DynamicsModel
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.models.gamma_matching import GammaMatching, GammaMatchingConfig
from forethought.planners.reactive import ReactiveConfig
from forethought.types import Spaces, Transitions

SPACES = Spaces(observation_dim=1, action_dim=1)
DECAY, DISCOUNT = 0.9, 0.95
SLOPE = DECAY / (1 - DISCOUNT * DECAY)  # V(s) = SLOPE s if s' = DECAY s and r = s'
SAC = SACConfig(width=8, discount=DISCOUNT, initial_temperature=1e-9)
ENSEMBLE = DynamicsConfig(width=8, layers=1, members=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observations(n: int = 12) -> torch.Tensor:
    return torch.linspace(-2, 2, n)[:, None]


class ExactDecay(Dynamics):
    """s' = DECAY s and r = s', whatever the action; ends where s' falls below ``floor``."""

    floor = 0.0

    def advance(self, observation, action, generator=None):
        reached = DECAY * observation
        return reached, reached[:, 0], reached[:, 0].abs() < self.floor


class ExactOccupancy(GammaMatching):
    """States DECAY^T s, T geometric, one for each of ``n_samples`` equally likely times."""

    def sample(self, observation, action, n_samples, generator=None, *, discount=None):
        level = (torch.arange(n_samples, dtype=torch.float64) + 0.5) / n_samples
        time = torch.ceil(torch.log1p(-level) / np.log(self.discount))
        return observation[:, None] * (DECAY**time)[None, :, None].float()


def set_exact_critics(agent, slope: float = SLOPE) -> None:
    """Q'(s, a) = slope * s: relu(s) - relu(-s) through both hidden layers."""
    with torch.no_grad():
        for parameter in agent.target_critics.parameters():
            parameter.zero_()
        first, second, last = agent.target_critics.weights
        first[:, 0, 0], first[:, 0, 1] = 1.0, -1.0
        second[:, 0, 0], second[:, 1, 1] = 1.0, 1.0
        last[:, 0, 0], last[:, 1, 0] = slope, -slope


def mve(rollout: int, **changes) -> MVE:
    torch.manual_seed(0)
    model = MVEConfig(sac=SAC, dynamics=ENSEMBLE, rollout=rollout, **changes).build(SPACES)
    model.dynamics = ExactDecay(ENSEMBLE, SPACES)
    return model


def gamma_mve(discount: float, rollout: int, **changes) -> GammaMVE:
    torch.manual_seed(0)
    gamma = GammaMatchingConfig(width=8, blocks=1, discount=discount)
    config = GammaMVEConfig(sac=SAC, gamma=gamma, rollout=rollout, samples=4_000, **changes)
    model = config.build(SPACES)
    model.world = ExactOccupancy(gamma, SPACES)
    model.reward_of = lambda states: states[..., 0]
    return model


@pytest.mark.parametrize("rollout", [1, 5])
def test_mve_with_exact_dynamics_keeps_the_exact_value(rollout):
    model, s = mve(rollout), observations()
    set_exact_critics(model.agent)
    torch.testing.assert_close(model.expand(s, model.agent, seeded()), SLOPE * s[:, 0])


def test_mve_is_the_rewards_along_the_way_and_the_value_after():
    model, s = mve(3), observations()
    set_exact_critics(model.agent, slope=0.0)
    part = sum(DISCOUNT**k * DECAY ** (k + 1) for k in range(3))
    torch.testing.assert_close(model.expand(s, model.agent, seeded()), part * s[:, 0])
    set_exact_critics(model.agent, slope=2.0)
    part += DISCOUNT**3 * DECAY**3 * 2.0
    torch.testing.assert_close(model.expand(s, model.agent, seeded()), part * s[:, 0])


def test_an_imagined_end_cuts_the_rest_off():
    model, s = mve(4), torch.tensor([[1.0], [-1.0]])
    set_exact_critics(model.agent)
    model.dynamics.floor = 0.8  # 0.9, then 0.81, then the end at 0.729
    part = sum(DISCOUNT**k * DECAY ** (k + 1) for k in range(3))
    torch.testing.assert_close(model.expand(s, model.agent, seeded()), part * s[:, 0])


@pytest.mark.parametrize(("discount", "rollout"), [(0.5, 1), (0.8, 1), (0.8, 3)])
def test_gamma_mve_with_the_exact_occupancy_keeps_the_exact_value(discount, rollout):
    """Theorem 2, whatever the model's discount and the number of its steps."""
    model, s = gamma_mve(discount, rollout), observations(4)
    if rollout > 1:  # later steps are asked for one sample each, so draw them
        model.world.sample = lambda o, a, n, generator=None: (
            o[:, None] * DECAY ** _geometric(discount, (len(o), n, 1), generator)
        )
    set_exact_critics(model.agent)
    found = model.expand(s, model.agent, seeded())
    torch.testing.assert_close(found, SLOPE * s[:, 0], rtol=0.02 if rollout > 1 else 2e-3, atol=0)


def _geometric(discount: float, shape: tuple[int, ...], generator) -> torch.Tensor:
    return torch.empty(shape).geometric_(1 - discount, generator=generator)


@pytest.mark.parametrize("name", ["mve", "gamma-mve"])
def test_entropy_along_the_way_keeps_the_soft_value(name):
    """Entropy bonuses of a fixed size b are worth b / (1 - discount) for ever."""
    model = mve(4) if name == "mve" else gamma_mve(0.8, 1)
    bonus, agent, s = 0.7, model.agent, observations(4)
    set_exact_critics(agent)
    later = DISCOUNT / (1 - DISCOUNT) * bonus  # Q counts the bonuses from the next step on
    with torch.no_grad():
        agent.target_critics.biases[-1].fill_(later)
    agent._bonus = lambda log_prob: torch.full_like(log_prob, bonus)
    expected = SLOPE * s[:, 0] + bonus / (1 - DISCOUNT)
    torch.testing.assert_close(agent.soft_value(s, seeded()), expected)
    torch.testing.assert_close(model.expand(s, agent, seeded()), expected, rtol=2e-3, atol=0)
    silent = type(model)(replace(model.config, entropy=False), SPACES)
    assert not silent.config.entropy and bonus * 4 > 1  # what the next line would not miss
    model.config = silent.config
    assert float((expected - model.expand(s, agent, seeded())).min()) > 1.0


def test_nothing_follows_where_the_episode_has_ended():
    torch.manual_seed(0)
    gamma = GammaMatchingConfig(width=8, blocks=1, discount=0.8, terminal_flag=True)
    model = GammaMVEConfig(sac=SAC, gamma=gamma, samples=2).build(SPACES)
    model.reward_of = lambda states: states[..., 0]
    flags = torch.tensor([[0.0, 1.0]])  # one of the two samples is an end
    model.world.sample = lambda o, a, n, generator=None: torch.stack(
        [o.expand(-1, n), flags.expand(len(o), -1)], dim=-1
    )
    set_exact_critics(model.agent)
    s = observations(4)
    weight, rest = (1 - DISCOUNT) / (1 - 0.8), (DISCOUNT - 0.8) / (1 - 0.8)
    expected = 0.5 * (weight / (1 - DISCOUNT) + rest * SLOPE) * s[:, 0]
    torch.testing.assert_close(model.expand(s, model.agent, seeded()), expected)


def test_the_expansion_reaches_the_critics_target():
    for model in (mve(2), gamma_mve(0.8, 1)):
        s, n = observations(), 12
        batch = Transitions(
            observation=s,
            action=torch.zeros(n, 1),
            reward=torch.ones(n),
            next_observation=s,
            terminated=torch.arange(n) % 2 == 0,
        )
        set_exact_critics(model.agent)
        expected = 1 + DISCOUNT * ~batch.terminated * SLOPE * s[:, 0]
        found = model.agent.backup(batch, seeded())
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)


def test_before_the_warm_up_is_over_the_value_is_sac_s():
    model, s = mve(3, warm_up=2), observations()
    for _ in range(2):
        soft = model.agent.soft_value(s, seeded())
        torch.testing.assert_close(model.expand(s, model.agent, seeded()), soft)
        model.after_step()
    assert not torch.equal(model.expand(s, model.agent, seeded()), soft)


def test_the_model_learns_on_every_nth_update_only(dataset):
    config = MVEConfig(sac=SACConfig(width=8), dynamics=ENSEMBLE, model_every=3, rollout=1)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    batch = config.view(dataset)[np.arange(8)]
    due = []
    for _ in range(7):
        model.zero_grad()
        model.loss(batch, seeded())[0].backward()
        due.append(model.dynamics.high.grad is not None)
        model.after_step()
    assert due == [True, False, False, True, False, False, True]


def test_agent_and_model_do_not_teach_each_other(dataset):
    """The summed loss gives each the gradient that its own loss gives it alone."""
    torch.manual_seed(0)
    gamma = GammaMatchingConfig(width=8, blocks=1, discount=0.8)
    model = GammaMVEConfig(sac=SACConfig(width=8), gamma=gamma).build(dataset.spaces)
    model.fit_statistics(dataset)
    batch = model.shared.view(dataset)[np.arange(8)]
    model.agent_loss(batch, seeded())[0].backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None} == {"agent"}
    model.zero_grad()
    model.model_loss(batch, seeded())[0].backward()
    taught = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert taught == {"world", "reward"}
    rates = [group.get("lr") for group in model.parameter_groups(0.0)]
    assert rates[-1] == model.shared.model_learning_rate and rates[:-1] == [None] * (len(rates) - 1)


# ------------------------------------------------------------------------------------- MBPO


def mbpo(**changes) -> MBPO:
    torch.manual_seed(0)
    model = MBPOConfig(sac=SAC, dynamics=ENSEMBLE, **changes).build(SPACES)
    model.dynamics = ExactDecay(ENSEMBLE, SPACES)
    return model


def test_imagined_steps_are_rollouts_of_the_model_from_the_batch():
    model, s = mbpo(least_rollout=3, most_rollout=3, imagined_size=100), observations()
    model.imagine(s, seeded())
    assert len(model.imagined) == 36
    rows = model.imagined.rows[:36].unflatten(0, (3, 12))
    for k in range(3):
        torch.testing.assert_close(rows[k, :, 0], DECAY**k * s[:, 0])
        torch.testing.assert_close(rows[k, :, 3], DECAY ** (k + 1) * s[:, 0])
        torch.testing.assert_close(rows[k, :, 2], rows[k, :, 3])
    assert bool((rows[..., 1].abs() <= 1).all()) and float(rows[..., 1].std()) > 0.1
    drawn = model.imagined.draw(200, seeded())
    torch.testing.assert_close(drawn.next_observation, DECAY * drawn.observation)


def test_the_ring_keeps_the_latest_and_ended_rollouts_stop():
    model, s = mbpo(least_rollout=4, most_rollout=4, imagined_size=10), torch.ones(3, 1)
    model.dynamics.floor = 0.8
    model.imagine(s, seeded())  # 3 steps each, the last of them an end
    assert int(model.imagined.total) == 9
    assert model.imagined.ended[:9].tolist() == [False] * 6 + [True] * 3
    model.imagine(2 * s[:2], seeded())  # 4 steps each: 8 rows more
    assert int(model.imagined.total) == 17 and len(model.imagined) == 10
    newest = sorted(model.imagined.rows[:, 0].tolist())[-8:]
    np.testing.assert_allclose(newest, np.sort(np.repeat(2 * DECAY ** np.arange(4), 2)), rtol=1e-5)


def test_rollouts_grow_and_batches_are_mixed(monkeypatch):
    model = mbpo(least_rollout=1, most_rollout=5, rollout_growth=8, real_share=0.25)
    lengths, seen = [], []
    for _ in range(10):
        lengths.append(model.rollout)
        model.after_step()
    assert lengths == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    monkeypatch.setattr(
        model.agent, "loss", lambda batch, generator: (seen.append(batch), {}) and (None, {})
    )
    n = 8
    batch = Transitions(
        observation=torch.full((n, 1), 9.0),
        action=torch.zeros(n, 1),
        reward=torch.full((n,), 7.0),
        next_observation=torch.full((n, 1), 5.0),
        terminated=torch.zeros(n, dtype=torch.bool),
    )
    model.agent_loss(batch, seeded())
    assert seen[0].reward[:2].tolist() == [7.0, 7.0] and len(seen[0].reward) == n
    torch.testing.assert_close(seen[0].next_observation[2:], DECAY * seen[0].observation[2:])


# ------------------------------------------------------------------------- settings, errors


def test_settings_of_models_within_models_survive_json():
    gamma = GammaMatchingConfig(width=8, blocks=1, discount=0.7)
    experiment = Experiment(
        name="x",
        dataset="",
        env="none",
        model=GammaMVEConfig(sac=SACConfig(width=8), gamma=gamma),
        planner=ReactiveConfig(),
    )
    data = to_json(experiment)
    assert from_json(Experiment, data) == experiment
    data["model"]["gamma"] = to_json(SACConfig())
    with pytest.raises(ValueError, match=r"model\.gamma is of kind 'sac'; expected a GammaConfig"):
        from_json(Experiment, data)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"model\.gamma\.discount is 0.99"):
        GammaMVEConfig(gamma=GammaMatchingConfig(discount=0.99))
    with pytest.raises(ValueError, match="model.rollout is 0"):
        MVEConfig(rollout=0)
    with pytest.raises(ValueError, match="model.real_share is 2"):
        MBPOConfig(real_share=2.0)
    with pytest.raises(ValueError, match="the second not the smaller"):
        MBPOConfig(least_rollout=3, most_rollout=2)
    with pytest.raises(ValueError, match="model.model_every is 0"):
        MBPOConfig(model_every=0)


def test_the_ensemble_is_a_dynamics_model_for_planners():
    model: DynamicsModel = ENSEMBLE.build(SPACES)
    assert model.step(observations(5), torch.zeros(5, 1), seeded()).shape == (5, 1)
