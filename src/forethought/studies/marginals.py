r"""What models say about single future steps, and how likely true trajectories are under it.

From one starting point, n prefixes x_1 .. x_{t-1} are sampled from the model; the marginal of
dimension d at step t is the mean density that the model predicts after them (thesis Section 4.4)::

    p_t(x^d)          = 1/n sum_k p(x^d | x_{<t}^k, x_t^{<d, k})
    log-likelihood(t) = sum_d log max(p_t(x_t^d), floor^d)

A token's density is uniform over its bin and zero outside of the bins. Means of densities after
sampled prefixes have the expectation of histograms of samples, with less noise. The floor is the
same for all models: ``FLOOR`` times the uniform density over the bins of a dimension.

The discrete oracle puts all mass on the right bin, sum_d log(1 / width^d) (Appendix B.2): no model
over these bins can exceed it. Models with continuous densities can; ``Predicted.binned`` has their
mean mass in the true bin, divided by its width, which cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forethought.data.tokenizers import Tokenizer
from forethought.models.base import TokenModel
from forethought.models.dynamics import Dynamics
from forethought.models.gamma import StochasticPolicy
from forethought.types import Trajectory

FLOOR = 1e-3  # of the uniform density
FARTHEST = 10.0  # ranges of the data that a predicted observation may leave it by
CHUNK = 250  # sequences sampled side by side


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Where predictions start; NaN marks hidden dimensions.

    history: (1, c, dim) the transitions before, or None;  observation: (O,)
    """

    history: Trajectory | None
    observation: Tensor


@dataclass(frozen=True, kw_only=True)
class TokenMarginals:
    """Of T steps: masses (T, O, V) float64;  samples (n, T, O) in environment units."""

    masses: Tensor
    samples: Tensor


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Densities (N, T, O) of true states, exact and by bins;  samples (n, T, O)."""

    densities: Tensor
    binned: Tensor
    samples: Tensor


@torch.no_grad()
def token_marginals(  # noqa: PLR0913  what is asked, how much of it, how it is sampled
    model: TokenModel,
    prefix: Prefix,
    *,
    n_samples: int,
    n_steps: int,
    crop: int,
    hidden_share: float = 0.0,
    generator: torch.Generator,
) -> TokenMarginals:
    """Sample from a Trajectory Transformer, its own actions included, and average its predictions.

    crop: as in ``TokenModel.begin``
    hidden_share: with this probability each sampled dimension of an observation is hidden from what
        follows, as in the data of partially observed models
    """
    masses = torch.zeros(n_steps, model.tokens.action_start, model.tokens.n_bins).double()
    samples = []
    for first in range(0, n_samples, CHUNK):
        n = min(CHUNK, n_samples - first)
        part = _sample_chunk(model, prefix, n, n_steps, crop, hidden_share, generator)
        masses += part.masses * (n / n_samples)
        samples.append(part.samples)
    return TokenMarginals(masses=masses, samples=torch.cat(samples))


def _sample_chunk(  # noqa: PLR0913  as above
    model: TokenModel,
    prefix: Prefix,
    n: int,
    n_steps: int,
    crop: int,
    hidden_share: float,
    generator: torch.Generator,
) -> TokenMarginals:
    layout = model.tokens
    expected = crop * layout.columns
    state = model.begin(
        prefix.history, prefix.observation[None], crop=crop, expected=expected, cache=True
    )
    state.select(torch.zeros(1, n, dtype=torch.int64))
    masses = torch.empty(n_steps, layout.action_start, layout.n_bins, dtype=torch.float64)
    drawn = torch.empty(n, n_steps, layout.action_start, dtype=torch.int64)
    for step in range(n_steps):
        for column in (*range(layout.action_start, layout.columns), *range(layout.action_start)):
            # given that the episode goes on: the stop token, if there is one, gets no mass
            chances = state.next_logits()[0, :, : layout.n_bins].softmax(dim=-1)
            tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
            if column < layout.action_start:
                masses[step, column] = chances.double().mean(dim=0)
                drawn[:, step, column] = tokens
                if hidden_share:
                    is_hidden = torch.rand(n, generator=generator) < hidden_share
                    tokens = tokens.masked_fill(is_hidden, layout.hidden)
            state.append(tokens[None])
    return TokenMarginals(masses=masses, samples=layout.decode(drawn))


@torch.no_grad()
def ensemble_marginals(  # noqa: PLR0913  who predicts, what, how much of it
    model: Dynamics,
    policy: StochasticPolicy,
    observation: Tensor,
    truths: Tensor,
    *,
    bins: Tokenizer,
    n_samples: int,
    generator: torch.Generator,
) -> Predicted:
    """Roll the ensemble out n times under the policy; densities of ``truths`` (N, T, O).

    observation: (O,) where all rollouts start. Every rollout keeps its member. What a rollout
    predicts is kept within ``FARTHEST`` ranges of the data (``bins``), so that it stays finite.
    """
    low, high = bins.edges[:, 0], bins.edges[:, -1]
    reach = FARTHEST * (high - low)
    here = observation.expand(n_samples, -1)
    densities, binned, samples = [], [], []
    for step in range(truths.shape[1]):
        action = policy(here, generator)
        mean, deviation = model.next_gaussian(here, action)
        true = truths[:, step]
        densities.append(_gaussian_density(true, mean, deviation))
        binned.append(_gaussian_bin_density(true, mean, deviation, bins))
        noise = torch.randn(mean.shape, generator=generator)
        here = torch.clamp(mean + deviation * noise, low - reach, high + reach)
        samples.append(here)
    return Predicted(
        densities=torch.stack(densities, dim=1),
        binned=torch.stack(binned, dim=1),
        samples=torch.stack(samples, dim=1),
    )


def _gaussian_density(true: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(N, O): densities of true values (N, O) averaged over Gaussians (n, O)."""
    z = (true[:, None].double() - mean) / deviation.double()
    return ((-0.5 * z.square()).exp() / (deviation * (2 * torch.pi) ** 0.5)).mean(dim=1)


def _gaussian_bin_density(true: Tensor, mean: Tensor, deviation: Tensor, bins: Tokenizer) -> Tensor:
    """The same with each Gaussian spread evenly within each bin; 0 outside of the bins."""
    columns = torch.arange(bins.dim)
    token = bins.encode(true.nan_to_num())
    ends = [bins.edges[columns, token + side].double() for side in (0, 1)]
    low, high = (torch.special.ndtr((end[:, None] - mean) / deviation.double()) for end in ends)
    density = (high - low).mean(dim=1) / (ends[1] - ends[0])
    return _inside(density, true, bins)


def bin_densities(masses: Tensor, states: Tensor, bins: Tokenizer) -> Tensor:
    """Densities (N, T, O) float64 of states (N, T, O) under bin masses (T, O, V) or (O, V)."""
    masses = masses.double().expand(states.shape[1], -1, -1)
    token = bins.encode(states.nan_to_num())
    times, columns = torch.arange(states.shape[1])[:, None], torch.arange(bins.dim)
    density = masses[times, columns, token] / bins.log_widths().exp().double()[columns, token]
    return _inside(density, states, bins)


def oracle_densities(states: Tensor, bins: Tokenizer) -> Tensor:
    """Densities (N, T, O) of the states if all mass is on their bins."""
    width = bins.log_widths().exp().double()
    density = 1 / width[torch.arange(bins.dim), bins.encode(states.nan_to_num())]
    return _inside(density, states, bins)


def histogram(states: Tensor, bins: Tokenizer) -> Tensor:
    """Masses (T, O, V) of the bins among states (n, T, O); NaN counts nowhere."""
    found = torch.zeros(*states.shape[1:], bins.n_bins, dtype=torch.float64)
    known = (~states.isnan()).double()
    tokens = bins.encode(states.nan_to_num())
    found.scatter_add_(2, tokens.permute(1, 2, 0), known.permute(1, 2, 0))
    return found / found.sum(dim=-1, keepdim=True).clamp(min=1)


def log_likelihood(densities: Tensor, bins: Tokenizer, *, floor: float = FLOOR) -> np.ndarray:
    """(N, T) nats: sums over dimensions of log densities (N, T, O); NaN where there is no state.

    floor: least density, as a share of the uniform one over the bins
    """
    least = floor / (bins.edges[:, -1] - bins.edges[:, 0]).double()
    return torch.maximum(densities.double(), least).log().sum(dim=-1).numpy()


def _inside(density: Tensor, states: Tensor, bins: Tokenizer) -> Tensor:
    """Zero outside of the bins, NaN where there is no state."""
    low, high = bins.edges[:, 0], bins.edges[:, -1]
    density = torch.where((states >= low) & (states <= high), density, 0.0)
    return torch.where(states.isnan(), torch.nan, density)
