"""Gamma-models as conditional spline flows (thesis Algorithm 3, Table A.2).

Regresses log-densities to the bootstrapped target, at states drawn from it (Eq. 3.3)::

    s_e ~ (1 - gamma) N(s', sigma^2) + gamma mu'(. | s', a')
    L = (log mu(s_e | s, a) - log((1 - gamma) p(s_e | s, a) + gamma mu'(s_e | s', a')))^2

p is N(s', sigma^2), or with ``single_step: learned`` a Gaussian model of the next state trained in
the same loss. One next state stands for the expectation over next states: exact where it and its
action are deterministic, biased else, for E log p_targ is not log E p_targ. ``objective:
likelihood`` has no such gap: it minimizes KL(p_targ | mu), i.e. -log mu(s_e | s, a) at the same
draws, and needs no density of the target. A gamma-model of this kind predicts the occupancy blurred
by sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zuko.flows import MAF, MaskedAutoregressiveTransform
from zuko.transforms import MonotonicRQSTransform

from forethought.models.base import DensityModel
from forethought.models.gamma_base import Bootstrap, GammaConfig, GammaModel
from forethought.nn.mlp import mlp
from forethought.registry import models
from forethought.types import Spaces

LOG_STD_RANGE = (-7.0, 2.0)  # of the learned single-step model, model units


@models.register("gamma-flow")
@dataclass(frozen=True, kw_only=True)
class GammaFlowConfig(GammaConfig):
    """Settings of ``GammaFlow``; defaults as in the thesis, but for width and sigma's unit."""

    objective: Literal["regression", "likelihood"] = "regression"
    """of log-densities to the target's (Algorithm 3), or the likelihood of its draws"""
    transforms: int = 6
    affine_first: bool = False
    """before the splines shift and scale by what the network is told, so that they shape a
    residual: with it ``bound`` and ``bins`` can be smaller"""
    bins: int = 16
    bound: float = 10.0
    """splines act within [-bound, bound], model units; the identity beyond"""
    width: int = 256
    """of the three hidden layers that set each spline's knots"""
    sigma: float = 0.1
    """standard deviation of the single step (the thesis's variance is 0.01)"""
    sigma_unit: Literal["raw", "normalized"] = "normalized"
    """whether sigma is in environment units (released code) or in those of the normalizer"""
    single_step: Literal["fixed", "learned"] = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma <= 0:
            raise ValueError(f"model.sigma is {self.sigma}; it must be positive")

    def build(self, spaces: Spaces) -> GammaFlow:
        return GammaFlow(self, spaces)


class GammaFlow(GammaModel, DensityModel):
    """A gamma-model with densities in one pass."""

    def __init__(self, config: GammaFlowConfig, spaces: Spaces) -> None:
        self.config = config
        super().__init__(config, spaces)
        self.single_step: nn.Module | None = None
        if config.single_step == "learned":
            sizes = [self.given_dim, config.width, config.width, 2 * self.state_dim]
            self.single_step = mlp(sizes)

    def make_network(self) -> nn.Module:
        config = self.config
        coupling: dict[str, Any] = {
            "features": self.state_dim,
            "context": self.given_dim,
            "passes": min(2, self.state_dim),
            "hidden_features": [config.width] * 3,
        }
        splines: Any = MAF(
            **coupling,
            transforms=config.transforms,
            univariate=partial(MonotonicRQSTransform, bound=config.bound),
            shapes=[(config.bins,), (config.bins,), (config.bins - 1,)],
        )
        if config.affine_first:
            splines.transform.transforms.insert(0, MaskedAutoregressiveTransform(**coupling))
        return splines

    def draw(self, network: nn.Module, given: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(len(given), self.state_dim, generator=generator, device=given.device)
        return network(given).transform.inv(noise)

    def bootstrapped_loss(
        self, batch: Bootstrap, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        size, device = len(batch.z_next), batch.z_next.device
        sigma = self.sigma()
        with torch.no_grad():
            mean, log_std, own_loss = batch.z_next, sigma.log().expand_as(batch.z_next), None
        if self.single_step is not None:
            mean, log_std, own_loss = self._learned_step(batch)
        with torch.no_grad():
            bootstrapped = torch.rand(size, generator=generator, device=device) < batch.keep
            noise = torch.randn(batch.z_next.shape, generator=generator, device=device)
            z = mean + log_std.exp() * noise
            z = torch.where(
                bootstrapped[:, None], self.draw(self.target, batch.given_next, generator), z
            )
        found = self.network(batch.given).log_prob(z)
        if self.config.objective == "likelihood":
            error = -found.mean()
            metrics = {"negative_log_likelihood": error.detach()}
        else:
            error = (found - self._target_log_prob(z, mean, log_std, batch)).square().mean()
            metrics = {"log_density_error": error.detach()}
        if own_loss is None:
            return error, metrics
        return error + own_loss, {**metrics, "single_step": own_loss.detach()}

    @torch.no_grad()
    def _target_log_prob(
        self, z: Tensor, mean: Tensor, log_std: Tensor, batch: Bootstrap
    ) -> Tensor:
        """(B,) log of the bootstrapped target's density at z."""
        one_step = _normal_log_prob(z, mean, log_std)
        later = self.target(batch.given_next).log_prob(z)
        return torch.logaddexp(torch.log1p(-batch.keep) + one_step, batch.keep.log() + later)

    def sigma(self) -> Tensor:
        """(D,) in model units; a terminal flag has sigma itself."""
        sigma = torch.full((self.state_dim,), self.config.sigma)
        sigma = sigma.to(self.observation_normalizer.scale)
        if self.config.sigma_unit == "raw":
            width = self.spaces.observation_dim
            sigma[:width] = sigma[:width] / self.observation_normalizer.scale
        return sigma

    def _learned_step(self, batch: Bootstrap) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log standard deviation (detached), and the model's own negative likelihood."""
        net: Any = self.single_step
        mean, log_std = net(batch.given).chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD_RANGE)
        loss = -_normal_log_prob(batch.z_next, mean, log_std).mean()
        return mean.detach(), log_std.detach(), loss

    def log_prob(
        self, state: Tensor, observation: Tensor, action: Tensor, *, discount: float | None = None
    ) -> Tensor:
        """(B,) log density in environment units."""
        given = self._given_for(observation, action, discount)
        z = self.to_z(state.to(given.device))
        return (self.network(given).log_prob(z) + self.log_volume()).to(state.device)


def _normal_log_prob(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,) of a diagonal Gaussian."""
    scaled = (z - mean) / log_std.exp()
    return -(0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)
