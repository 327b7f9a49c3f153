"""Gamma-models by flow matching: TD-CFM, coupled TD-CFM and TD2-CFM.

A vector field v carries noise x_0 ~ N(0, I) at t = 0 to a state x_1 at t = 1 (flow matching along
straight paths, x_t = (1 - t) x_0 + t x_1). Temporal differences enter in one of three ways
(Farebrother et al. 2025, "Temporal Difference Flows", arXiv 2503.09817)::

    td       x_1 from the target distribution, which bootstraps by solving the target field's ODE
    coupled  the same, the bootstrapped x_1 being matched with the noise it was made from
    td2      (1 - gamma) |v(x_t; s, a) - (s' - x_0)|^2 + gamma |v(y_t; s, a) - v'(y_t; s', a')|^2,
             y_t the target's own path at t: no noise is added to what is bootstrapped

The last has the least variance, which is what lets it reach discounts that Algorithms 2 and 3 do
not. One pass is ``ode_steps`` midpoint steps; a density follows from the field's divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from forethought.models.base import DensityModel
from forethought.models.gamma_base import Bootstrap, GammaConfig, GammaModel
from forethought.nn.embeddings import fourier_features
from forethought.nn.mlp import ResidualMLP
from forethought.registry import models
from forethought.types import Spaces

TIME_OCTAVES = 4


@models.register("gamma-matching")
@dataclass(frozen=True, kw_only=True)
class GammaMatchingConfig(GammaConfig):
    """Settings of ``GammaMatching``."""

    objective: Literal["td", "coupled", "td2"] = "td2"
    width: int = 256
    blocks: int = 3
    """residual blocks of two layers"""
    ode_steps: int = 10
    """midpoint steps from noise to state, two network calls each"""
    target_ode_steps: int = 5
    """the same for bootstrapping in training"""
    one_step_share: float = 0.25
    """of the batch that goes to the single step s'; weights make up for it, so that it changes the
    gradient's variance and not its mean"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.one_step_share < 1:
            raise ValueError(
                f"model.one_step_share is {self.one_step_share}; it must lie in (0, 1)"
            )

    def build(self, spaces: Spaces) -> GammaMatching:
        return GammaMatching(self, spaces)


class VectorField(nn.Module):
    """x (B, D), t (B,), given (B, C) -> dx/dt (B, D)."""

    def __init__(self, state_dim: int, given_dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.net = ResidualMLP(
            state_dim + given_dim + 1 + 2 * TIME_OCTAVES, state_dim, width=width, blocks=blocks
        )

    def forward(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        return self.net(torch.cat([x, fourier_features(t[:, None], TIME_OCTAVES), given], dim=-1))


class GammaMatching(GammaModel, DensityModel):
    """A gamma-model whose samples are solutions of an ODE."""

    def __init__(self, config: GammaMatchingConfig, spaces: Spaces) -> None:
        self.config = config
        super().__init__(config, spaces)

    def make_network(self) -> nn.Module:
        return VectorField(self.state_dim, self.given_dim, self.config.width, self.config.blocks)

    def draw(self, network: nn.Module, given: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(len(given), self.state_dim, generator=generator, device=given.device)
        return flow(network, noise, given, steps=self.config.ode_steps)

    def bootstrapped_loss(
        self, batch: Bootstrap, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows are split: the first share learns the single step, the rest bootstraps."""
        size, device = len(batch.z_next), batch.z_next.device
        if size < 2:
            raise ValueError(
                "gamma-matching splits its batches; train.batch_size must be at least 2"
            )
        count = min(max(1, round(self.config.one_step_share * size)), size - 1)
        noise = torch.randn(size, self.state_dim, generator=generator, device=device)
        t = torch.rand(size, generator=generator, device=device)
        x, field = _straight(noise[:count], batch.z_next[:count], t[:count])
        with torch.no_grad():
            y, aim = self._bootstrap(noise[count:], t[count:], batch.given_next[count:], generator)
        found = self.network(torch.cat([x, y]), t, batch.given)
        error = (found - torch.cat([field, aim])).square().mean(dim=-1)
        one_step = ((1 - batch.keep)[:count] * error[:count]).sum() / count
        bootstrapped = (batch.keep[count:] * error[count:]).sum() / (size - count)
        metrics = {"one_step": one_step.detach(), "bootstrapped": bootstrapped.detach()}
        return one_step + bootstrapped, metrics

    def _bootstrap(
        self, noise: Tensor, t: Tensor, given: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Points and the field to match there, from the target network at (s', a')."""
        steps, objective = self.config.target_ode_steps, self.config.objective
        if objective == "td2":
            y = flow(self.target, noise, given, steps=steps, until=t)
            return y, self.target(y, t, given)
        x_1 = flow(self.target, noise, given, steps=steps)
        if objective == "td":  # other noise than the state was made from
            noise = torch.randn(noise.shape, generator=generator, device=noise.device)
        return _straight(noise, x_1, t)

    def log_prob(
        self, state: Tensor, observation: Tensor, action: Tensor, *, discount: float | None = None
    ) -> Tensor:
        """By the instantaneous change of variables: the ODE backwards, its divergence added up.

        Costs one backward pass a state dimension and step. Gradients do not pass through it.
        """
        given = self._given_for(observation, action, discount)
        z = self.to_z(state.to(given.device))
        steps, log_volume = self.config.ode_steps, torch.zeros(len(z), device=z.device)
        t = torch.ones(len(z), device=z.device)
        for _ in range(steps):
            with torch.no_grad():
                middle = z - self.network(z, t, given) / (2 * steps)
            field, divergence = _with_divergence(self.network, middle, t - 0.5 / steps, given)
            z, t = z - field / steps, t - 1 / steps
            log_volume = log_volume - divergence / steps
        normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=-1)
        return (normal + log_volume + self.log_volume()).to(state.device)


def flow(
    network: nn.Module,
    x: Tensor,
    given: Tensor,
    *,
    steps: int,
    until: Tensor | None = None,
) -> Tensor:
    """x (B, D) carried from t = 0 to ``until`` (B,), default 1, by midpoint steps."""
    until = torch.ones(len(x), device=x.device) if until is None else until
    size, t = until / steps, torch.zeros_like(until)
    for _ in range(steps):
        middle = x + 0.5 * size[:, None] * network(x, t, given)
        x = x + size[:, None] * network(middle, t + 0.5 * size, given)
        t = t + size
    return x


def _straight(noise: Tensor, x_1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Points on the straight paths from noise to x_1, and the field there."""
    t = t[:, None]
    return (1 - t) * noise + t * x_1, x_1 - noise


def _with_divergence(
    network: nn.Module, x: Tensor, t: Tensor, given: Tensor
) -> tuple[Tensor, Tensor]:
    """The field (B, D) and its divergence (B,) at x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        field = network(x, t, given)
        divergence = torch.zeros(len(x), device=x.device)
        for index in range(x.shape[1]):
            (row,) = torch.autograd.grad(field[:, index].sum(), x, retain_graph=True)
            divergence = divergence + row[:, index]
    return field.detach(), divergence.detach()
