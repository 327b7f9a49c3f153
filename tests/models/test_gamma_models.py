"""Gamma-models: densities integrate to one, batches hold the policy's actions, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.views import TransitionView
from forethought.models.base import DensityModel, require
from forethought.models.gamma_flow import GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.types import Spaces, Transitions

SPACES = Spaces(observation_dim=2, action_dim=1)
FLOW = GammaFlowConfig(transforms=2, width=16)
MATCHING = GammaMatchingConfig(width=16, blocks=1, most_discount=0.99, ode_steps=20)


def ends(*terminated: bool) -> EpisodeDataset:
    """Episodes of three steps whose actions are 10 * episode + step."""
    draw = np.random.default_rng(0)
    return EpisodeDataset.from_episodes(
        [
            Episode(
                draw.normal(size=(4, 2)).astype(np.float32),
                (10 * k + np.arange(3, dtype=np.float32))[:, None],
                np.zeros(3, np.float32),
                end,
            )
            for k, end in enumerate(terminated)
        ]
    )


AFFINE = replace(FLOW, affine_first=True, bound=4.0)


@pytest.mark.parametrize("config", [FLOW, AFFINE, MATCHING], ids=["flow", "affine", "matching"])
def test_density_integrates_to_one_in_environment_units(config):
    torch.manual_seed(0)
    model = config.build(SPACES).eval()
    model.observation_normalizer.scale.copy_(torch.tensor([2.0, 0.5]))
    with torch.no_grad():
        for parameter in model.network.parameters():  # away from the near-identity it starts as
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, y = torch.linspace(-16, 16, 161), torch.linspace(-4, 4, 161)
    grid = torch.cartesian_prod(x, y)
    here, action = torch.zeros(len(grid), 2), torch.zeros(len(grid), 1)
    density = model.log_prob(grid, here, action).detach().exp()
    total = float(density.sum() * (x[1] - x[0]) * (y[1] - y[0]))
    assert total == pytest.approx(1, abs=0.02)


def test_likelihood_keeps_the_spread_of_noisy_steps_and_regression_widens_it():
    """Next states N(0, 1) blurred by sigma 0.5: the spread to find is sqrt(1.25)."""
    spaces = Spaces(observation_dim=1, action_dim=1)
    settings = {"discount": 0.0, "transforms": 1, "width": 8, "bins": 8, "sigma": 0.5}
    found = {}
    for objective in ("likelihood", "regression"):
        torch.manual_seed(0)
        config = GammaFlowConfig(objective=objective, affine_first=True, **settings)
        model = config.build(spaces)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
        fixed = torch.zeros(256, 1)
        for _ in range(100):
            batch = Transitions(
                observation=fixed,
                action=fixed,
                reward=fixed[:, 0],
                next_observation=torch.randn(256, 1),
                next_action=fixed,
                terminated=torch.zeros(256, dtype=torch.bool),
            )
            optimizer.zero_grad()
            model.loss(batch)[0].backward()
            optimizer.step()
            model.after_step()
        found[objective] = float(model.sample(fixed[:1], fixed[:1], 20_000).std())
    assert found["likelihood"] == pytest.approx(1.25**0.5, rel=0.08)
    assert found["regression"] > 1.15 * 1.25**0.5


def test_burn_in_grows_horizons_evenly_in_their_logarithm_and_is_saved():
    for config in (FLOW, MATCHING):
        model = replace(config, discount=0.96, burn_in=4).build(SPACES)
        most = []
        for step in range(6):
            most.append(float(model.draw_discounts(4000, torch.zeros(1), None).max()))
            assert int(model.state_dict()["steps_taken"]) == step
            model.after_step()
        horizons = 1 / (1 - np.array(most))
        longest = 1 / (1 - (config.most_discount or 0.96))
        np.testing.assert_allclose(horizons[:5], longest ** (np.arange(5) / 4), rtol=0.01)
        assert horizons[5] == pytest.approx(horizons[4], rel=0.01)
    with pytest.raises(ValueError, match="must not be negative"):
        replace(FLOW, burn_in=-1)


def test_followed_leaves_out_steps_without_a_next_action():
    dataset = ends(False, True)
    view = TransitionView(dataset, followed=True)
    batch = view[np.arange(len(view))]
    assert batch.action[:, 0].tolist() == [0, 1, 10, 11, 12]  # 2 was cut off, 12 needs none
    assert batch.terminated.tolist() == [False, False, False, False, True]
    other = np.arange(len(dataset.observations), dtype=np.float32)[:, None]
    batch = TransitionView(dataset, next_actions=other)[np.arange(6)]
    assert batch.next_action[:, 0].tolist() == [1, 2, 3, 5, 6, 7]  # of the rows arrived in


def test_discounts_it_was_not_trained_for_are_refused():
    at, action = torch.zeros(1, 2), torch.zeros(1, 1)
    for bad in (1.0, -0.1):
        with pytest.raises(ValueError, match="must lie in"):
            replace(FLOW, discount=bad)
    with pytest.raises(ValueError, match="beyond what this model was trained for"):
        MATCHING.build(SPACES).sample(at, action, 1, discount=0.995)
    with pytest.raises(ValueError, match=r"model\.most_discount"):
        FLOW.build(SPACES).sample(at, action, 1, discount=0.5)
    assert MATCHING.build(SPACES).sample(at, action, 3, discount=0.5).shape == (1, 3, 2)


def test_a_gan_has_no_density():
    with pytest.raises(ValueError, match="DensityModel; GammaGAN offers OccupancyModel"):
        require(GammaGANConfig().build(SPACES), DensityModel, needed_by="log_prob")


def test_a_batch_without_next_actions_is_refused():
    batch = TransitionView(ends(True))[np.arange(3)]
    with pytest.raises(ValueError, match="next_action"):
        FLOW.build(SPACES).loss(replace(batch, next_action=None))
