r"""An ensemble of probabilistic one-step models (PETS): where a step leads, and what it pays.

Each member k predicts a Gaussian over what the step changes and what it pays (Chua et al. 2018,
arXiv 1805.12114; with the reward as in MBPO, arXiv 1906.08253)::

    (s' - s, r) ~ N(mu_k(s, a), diag sigma_k(s, a)^2),   log sigma^2 in (low, high), both learned
    L = E[ sum (x - mu_k)^2 / sigma_k^2 + log sigma_k^2 ] / 2 + 0.01 sum(high - low)

The spread within a member is the noise of the world, the spread between members what the data
leaves open. Steps of a batch are dealt to the members in turn: every member learns from its own
part of each batch, and predicts for its own rows. So a step costs what one network costs, and a row
that keeps its place in a rollout keeps its member (trajectory sampling "TS-infinity" of PETS).

With ``learn_termination`` a logistic output says whether the step ends the episode; without it no
step does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer, NormalizerKind
from forethought.data.views import TransitionView
from forethought.models.base import Model
from forethought.nn.ensemble import EnsembleMLP
from forethought.registry import models
from forethought.types import Spaces, Transitions

FIRST_BOUNDS = (-10.0, 0.5)  # of log sigma^2 in model units, as in the authors' code
BOUND_WEIGHT = 0.01


@models.register("dynamics")
@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(ModelConfig):
    """Settings of ``Dynamics``."""

    members: int = 5
    width: int = 200
    layers: int = 3
    """hidden layers of each member"""
    normalizer: NormalizerKind = "gaussian"
    """of observations; actions are mapped to [-1, 1], changes and rewards to deviation 1"""
    learn_termination: bool = False
    """whether steps can end episodes, which is then learned from the data's flags"""

    def __post_init__(self) -> None:
        for name in ("members", "width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        return TransitionView(dataset)

    def build(self, spaces: Spaces) -> Dynamics:
        return Dynamics(self, spaces)


class Dynamics(Model):
    """The ensemble; a ``DynamicsModel`` for planners.

    Differs from PETS: members see different steps in every batch instead of resampled data sets,
    and none is chosen by held-out data (MBPO keeps 5 of 7).
    """

    def __init__(self, config: DynamicsConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        if spaces.n_actions is not None:
            raise ValueError(
                f"this model takes continuous actions; the data has {spaces.n_actions} discrete"
            )
        self.config = config
        width, changes = spaces.observation_dim, spaces.observation_dim + 1
        self.observation_normalizer = Normalizer(width, config.normalizer)
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        self.change_normalizer = Normalizer(changes, "gaussian")  # (s' - s, r)
        sizes = [width + spaces.action_dim, *[config.width] * config.layers]
        self.networks = EnsembleMLP(
            config.members, [*sizes, 2 * changes + config.learn_termination]
        )
        self.low = nn.Parameter(torch.full((1, changes), FIRST_BOUNDS[0]))
        self.high = nn.Parameter(torch.full((1, changes), FIRST_BOUNDS[1]))

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        view = TransitionView(dataset)
        steps = view[np.arange(len(view))]
        self.action_normalizer.fit(steps.action.numpy())
        self.fit_steps(steps)

    def fit_steps(self, steps: Transitions) -> None:
        """Statistics of everything but the actions, whose range an environment states itself."""
        self.observation_normalizer.fit(steps.observation.cpu().numpy())
        self.change_normalizer.fit(_changes(steps).cpu().numpy())

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean negative log likelihood, up to its constant; rows beyond a multiple of the members
        are left out."""
        members = self.config.members
        if len(batch.reward) < members:
            raise ValueError(
                f"a batch of {len(batch.reward)} steps leaves some of the {members} members "
                "without one; use a larger train.batch_size or fewer members"
            )
        batch = batch[: len(batch.reward) // members * members]
        mean, log_variance, logit = self._predict(batch.observation, batch.action)
        error = self.change_normalizer.normalize(_changes(batch)) - mean
        likelihood = 0.5 * (error.square() * (-log_variance).exp() + log_variance).mean()
        bounds = BOUND_WEIGHT * (self.high - self.low).sum()
        metrics = {"dynamics": likelihood.detach(), "error": error.detach().square().mean()}
        if logit is None:
            return likelihood + bounds, metrics
        ends = functional.binary_cross_entropy_with_logits(logit, batch.terminated.to(logit))
        return likelihood + bounds + ends, {**metrics, "termination": ends.detach()}

    def _predict(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and log variance (n, O + 1) in model units and the logit of an end (n,); row i is
        member i modulo ``members``'s, and n a multiple of those."""
        z = [
            self.observation_normalizer.normalize(observation),
            self.action_normalizer.normalize(action),
        ]
        dealt = torch.cat(z, dim=-1).unflatten(0, (-1, self.config.members)).transpose(0, 1)
        output = self.networks(dealt).transpose(0, 1).flatten(0, 1)
        width = self.spaces.observation_dim + 1
        raw = output[:, width : 2 * width]
        log_variance = self.high - functional.softplus(self.high - raw)
        log_variance = self.low + functional.softplus(log_variance - self.low)
        logit = output[:, -1] if self.config.learn_termination else None
        return output[:, :width], log_variance, logit

    @torch.no_grad()
    def advance(
        self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Observations (n, O) drawn, rewards (n,) and whether the step ends the episode (n,)."""
        n, rows = len(observation), self._dealt_rows(observation)
        mean, log_variance, logit = self._predict(observation[rows], action[rows])
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = (mean + (0.5 * log_variance).exp() * noise)[:n]
        change = self.change_normalizer.denormalize(z)
        ended = torch.zeros(n, dtype=torch.bool, device=z.device)
        if logit is not None:
            ended = logit[:n] > 0
        return observation + change[:, :-1], change[:, -1], ended

    @torch.no_grad()
    def next_gaussian(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (n, O) of what ``step`` draws, row by row."""
        n, width, rows = (
            len(observation),
            self.spaces.observation_dim,
            self._dealt_rows(observation),
        )
        mean, log_variance, _ = self._predict(observation[rows], action[rows])
        changes = self.change_normalizer
        deviation = (0.5 * log_variance).exp() * changes.scale
        change = changes.denormalize(mean)
        return observation + change[:n, :width], deviation[:n, :width]

    def _dealt_rows(self, observation: Tensor) -> Tensor:
        """All rows, then some again, so that every member has as many."""
        n, device = len(observation), observation.device
        extra = torch.arange(-n % self.config.members, device=device) % max(n, 1)
        return torch.cat([torch.arange(n, device=device), extra])

    def step(
        self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Observations (n, O) that follow, drawn."""
        return self.advance(observation, action, generator)[0]


def _changes(steps: Transitions) -> Tensor:
    """(n, O + 1): what a step adds to the observation, and its reward."""
    change = steps.next_observation - steps.observation
    return torch.cat([change, steps.reward[:, None]], dim=-1)
