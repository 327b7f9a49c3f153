"""Marginals of predictions: closed forms on processes whose marginals are known."""

import math

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.tokenizers import Tokenizer
from forethought.models.dynamics import Dynamics, DynamicsConfig
from forethought.models.transformer import TransformerConfig
from forethought.studies import marginals
from forethought.studies.marginals import (
    Prefix,
    bin_densities,
    ensemble_marginals,
    histogram,
    log_likelihood,
    oracle_densities,
    token_marginals,
)
from forethought.types import Spaces, Trajectory

NOISE, DECAY = 0.3, 0.8
SMALL = {"n_bins": 6, "width": 16, "depth": 2, "heads": 2, "reward_token": False}
MARKOV = TransformerConfig(context=1, horizon=1, return_token="none", dropout=0.0, **SMALL)
FULL = TransformerConfig(context=3, horizon=3, return_token="none", dropout=0.0, **SMALL)


def bins_of(low: float, high: float, dim: int = 2, n_bins: int = 10) -> Tokenizer:
    bins = Tokenizer(dim, n_bins, "uniform")
    bins.fit(np.linspace([low] * dim, [high] * dim, 50))
    return bins


@pytest.fixture(scope="module")
def dataset() -> EpisodeDataset:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(rng.normal(size=(12, 2)), rng.uniform(-1, 1, (11, 1)), np.zeros(11))
        for _ in range(5)
    ]
    return EpisodeDataset.from_episodes(episodes)


def built(config: TransformerConfig, dataset: EpisodeDataset):
    """A model with weights far from zero, so that what it attends to shows."""
    torch.manual_seed(0)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def linear_ensemble() -> Dynamics:
    """s' = DECAY s + N(0, NOISE^2), whatever the action, in every member."""
    model = DynamicsConfig(members=2, width=4, layers=1).build(
        Spaces(observation_dim=1, action_dim=1)
    )
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.zero_()
        # s = relu(s) - relu(-s); changes (2,), then log variances (2,)
        first, last = model.networks.weights
        first[:, 0, 0], first[:, 0, 1] = 1.0, -1.0
        last[:, 0, 0], last[:, 1, 0] = DECAY - 1, 1 - DECAY
        # wide bounds leave the raw value as it is
        model.low.fill_(-40.0)
        model.high.fill_(40.0)
        model.networks.biases[-1][:, :, 2] = 2 * math.log(NOISE)
    return model.eval().requires_grad_(False)


def test_an_ensemble_s_marginals_are_those_of_the_linear_gaussian_process():
    model, start = linear_ensemble(), torch.tensor([1.5])
    truths = torch.tensor([0.905, 0.005, -0.395]).view(3, 1, 1).expand(3, 6, 1)  # mid-bin
    generator = torch.Generator().manual_seed(0)
    found = ensemble_marginals(
        model,
        lambda seen, _=None: torch.zeros(len(seen), 1),
        start,
        truths,
        bins=bins_of(-40.0, 40.0, dim=1, n_bins=8_000),
        n_samples=4_000,
        generator=generator,
    )
    for step in range(6):
        mean = start * DECAY ** (step + 1)
        variance = NOISE**2 * sum(DECAY ** (2 * k) for k in range(step + 1))
        density = torch.distributions.Normal(mean, variance**0.5).log_prob(truths[:, step]).exp()
        # the largest density of one Gaussian bounds what is averaged: 4 standard errors
        bound = 4 / (NOISE * math.sqrt(2 * math.pi)) / math.sqrt(4_000) if step else 1e-4
        np.testing.assert_allclose(found.densities[:, step], density, atol=bound)
        np.testing.assert_allclose(found.binned[:, step], found.densities[:, step], atol=2e-3)
    assert found.samples.shape == (4_000, 6, 1)


def test_the_oracle_s_value_is_minus_the_log_of_the_bins_widths():
    bins = bins_of(-2.0, 3.0)
    states = torch.tensor([[[0.1, -1.9], [2.9, 3.0]]])
    found = log_likelihood(oracle_densities(states, bins), bins)
    np.testing.assert_allclose(found, 2 * math.log(10 / 5.0), rtol=1e-6)


def test_no_masses_exceed_the_oracle_and_even_ones_are_the_uniform_density():
    bins, rng = bins_of(0.0, 1.0), torch.Generator().manual_seed(0)
    states = torch.rand(7, 4, 2, generator=rng)
    masses = torch.rand(4, 2, 10, generator=rng).softmax(dim=-1)
    assert bool((bin_densities(masses, states, bins) <= oracle_densities(states, bins)).all())
    even = torch.full((2, 10), 0.1)
    np.testing.assert_allclose(bin_densities(even, states, bins), 1.0, rtol=1e-6)


def test_states_outside_of_the_bins_get_the_floor_and_missing_ones_nothing():
    bins = bins_of(0.0, 2.0, dim=1)
    states = torch.tensor([1.0, 5.0, torch.nan]).view(1, 3, 1)
    found = log_likelihood(oracle_densities(states, bins), bins)[0]
    np.testing.assert_allclose(found[:2], [math.log(5), math.log(marginals.FLOOR / 2)], rtol=1e-6)
    assert np.isnan(found[2])


def test_a_histogram_counts_shares_and_skips_what_is_missing():
    bins = bins_of(0.0, 1.0, dim=1)
    states = torch.tensor([0.05, 0.05, 0.95, torch.nan]).view(4, 1, 1)
    found = histogram(states, bins)[0, 0]
    np.testing.assert_allclose(found[[0, 9]], [2 / 3, 1 / 3])
    np.testing.assert_allclose(found.sum(), 1.0)


def test_first_step_masses_are_the_model_s_own_probabilities(dataset: EpisodeDataset):
    """Before the first sampled dimension only the action is random: exact by enumeration."""
    model = built(MARKOV, dataset)
    observation = torch.tensor([0.3, -0.5])
    found = token_marginals(
        model,
        Prefix(history=None, observation=observation),
        n_samples=2_000,
        n_steps=1,
        crop=2,
        generator=torch.Generator().manual_seed(0),
    )
    state = model.begin(None, observation[None])
    chances = state.next_logits()[0, 0].softmax(dim=-1)
    state.select(torch.zeros(1, 6, dtype=torch.int64))
    state.append(torch.arange(6)[None])
    exact = chances @ state.next_logits()[0].softmax(dim=-1)
    np.testing.assert_allclose(found.masses[0, 0], exact, atol=4 * 0.5 / math.sqrt(2_000))
    np.testing.assert_allclose(found.masses.sum(dim=-1), 1.0, rtol=1e-6)


def history_of(observations: torch.Tensor) -> Trajectory:
    steps = len(observations)
    actions = torch.linspace(-0.5, 0.5, steps)[:, None]
    return Trajectory(
        observations=observations[None], actions=actions[None], times=torch.arange(steps)
    )


@pytest.mark.parametrize(("config", "is_markov"), [(MARKOV, True), (FULL, False)])
def test_a_markov_context_does_not_see_older_transitions(
    config: TransformerConfig, is_markov: bool, dataset: EpisodeDataset
):
    model, observation = built(config, dataset), torch.tensor([0.3, -0.5])
    recent = torch.tensor([[0.1, 0.2]])
    masses = []
    for older in (torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 0.5]])):
        found = token_marginals(
            model,
            Prefix(history=history_of(torch.cat([older, recent])), observation=observation),
            n_samples=20,
            n_steps=4,
            crop=config.context + 1,
            generator=torch.Generator().manual_seed(0),
        )
        masses.append(found.masses)
    assert torch.equal(*masses) == is_markov


def test_a_markov_sequence_forgets_all_but_the_last_transition(dataset: EpisodeDataset):
    """After a slide, cached predictions are those of a fresh start at the last transition."""
    model = built(MARKOV, dataset)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 6, (3, 9), generator=generator)
    state = model.begin(None, torch.tensor([[0.3, -0.5]]), crop=2)
    state.select(torch.zeros(1, 3, dtype=torch.int64))
    for place in range(7):  # an action, then two transitions
        state.next_logits()
        state.append(tokens[None, :, place])
    table = tokens[:, 4:7].view(3, 1, 3)
    padded = torch.cat([table, torch.zeros_like(table)], dim=1)
    exact = model.predict_table(padded)[:, 1, 0]
    torch.testing.assert_close(state.next_logits()[0], exact, rtol=1e-4, atol=1e-5)


def test_hidden_prefixes_leave_the_masses_normalized(dataset: EpisodeDataset):
    config = TransformerConfig(**{**vars(FULL), "hidden_share": 0.5})
    found = token_marginals(
        built(config, dataset),
        Prefix(history=None, observation=torch.tensor([0.3, torch.nan])),
        n_samples=30,
        n_steps=8,
        crop=4,
        hidden_share=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    np.testing.assert_allclose(found.masses.sum(dim=-1), 1.0, rtol=1e-6)
    assert not bool(found.samples.isnan().any())
