"""Gamma-models as generative adversarial networks (thesis Algorithm 2, Table A.1).

A discriminator D tells states of the bootstrapped target from the generator's (Eq. 3.2)::

    s+ ~ (1 - gamma) delta_s' + gamma mu'(. | s', a'),   s- ~ mu(. | s, a)
    original       D maximizes log D(s+) + log(1 - D(s-)), the generator log D(s-)
    least squares  D minimizes (D(s+) - 1)^2 + D(s-)^2, the generator (D(s-) - 1)^2

The generator's "log D" replaces the saddle point's -log(1 - D), whose gradient vanishes early
(Goodfellow et al. 2014, Section 3). Both learn in one step from one summed loss: D is given
detached states, the generator a frozen D. There is no density.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from forethought.models.gamma_base import Bootstrap, GammaConfig, GammaModel
from forethought.nn.mlp import mlp
from forethought.registry import models
from forethought.types import Spaces


@models.register("gamma-gan")
@dataclass(frozen=True, kw_only=True)
class GammaGANConfig(GammaConfig):
    """Settings of ``GammaGAN``; defaults as in the thesis but for ``samples`` (512 there)."""

    objective: Literal["original", "least-squares"] = "least-squares"
    width: int = 256
    """of the two hidden layers of both networks"""
    noise_dim: int = 0
    """of the generator's random input; 0 = twice the state's"""
    samples: int = 16
    """states s+ and s- for every step of the batch"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.noise_dim < 0:
            raise ValueError(
                f"model.samples is {self.samples} and must be at least 1; model.noise_dim is "
                f"{self.noise_dim} and must not be negative"
            )

    def build(self, spaces: Spaces) -> GammaGAN:
        return GammaGAN(self, spaces)


class GammaGAN(GammaModel):
    """A gamma-model that only samples."""

    def __init__(self, config: GammaGANConfig, spaces: Spaces) -> None:
        self.config = config
        super().__init__(config, spaces)
        width = config.width
        sizes = [self.state_dim + self.given_dim, width, width, 1]
        self.discriminator = mlp(sizes, nn.LeakyReLU)

    @property
    def _noise_dim(self) -> int:
        return self.config.noise_dim or 2 * self.state_dim

    def make_network(self) -> nn.Module:
        width = self.config.width
        return mlp([self._noise_dim + self.given_dim, width, width, self.state_dim], nn.LeakyReLU)

    def draw(self, network: nn.Module, given: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(len(given), self._noise_dim, generator=generator, device=given.device)
        return network(torch.cat([noise, given], dim=-1))

    def bootstrapped_loss(
        self, batch: Bootstrap, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        given, given_next, z_next, keep = (
            each.repeat_interleave(self.config.samples, dim=0)
            for each in (batch.given, batch.given_next, batch.z_next, batch.keep)
        )
        with torch.no_grad():
            bootstrapped = torch.rand(len(keep), generator=generator, device=keep.device) < keep
            later = self.draw(self.target, given_next, generator)
            real = torch.where(bootstrapped[:, None], later, z_next)  # line 5
        fake = self.draw(self.network, given, generator)  # line 6
        shown = torch.cat([torch.cat([real, given], -1), torch.cat([fake.detach(), given], -1)])
        on_real, on_fake = self.discriminator(shown)[:, 0].chunk(2)
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, weights, torch.cat([fake, given], -1))[:, 0]
        if self.config.objective == "original":  # line 7
            judged = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
            generated = F.softplus(-fooled).mean()
        else:
            judged = (on_real - 1).square().mean() + on_fake.square().mean()
            generated = (fooled - 1).square().mean()
        metrics = {"discriminator": judged.detach(), "generator": generated.detach()}
        return judged + generated, metrics
