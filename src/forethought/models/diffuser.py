"""Diffuser: a diffusion model over whole trajectories, and planning as sampling from it.

A trajectory is an array tau (thesis Eq. 5.2) with a row per time step. Training corrupts it to
tau^i = sqrt(alpha_bar_i) tau^0 + sqrt(1 - alpha_bar_i) eps and regresses tau^0 or eps. Sampling
runs the chain backwards; known entries (start, goal, waypoints) are overwritten after every step
(inpainting) and the gradient of a guide moves each step toward higher reward (Algorithm 5):

    tau^{i-1} ~ N(mu_theta(tau^i) + scale * Sigma^i * grad J(mu), Sigma^i).

Thesis Sections 5.2, 5.3 and C.3; Janner et al. 2022 (arXiv 2205.09991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer, NormalizerKind
from forethought.data.views import Windows, row_times
from forethought.models.base import (
    DEFAULT_SAMPLER,
    ArrivalEstimator,
    Generator,
    Model,
    OnStep,
    SamplerConfig,
    TrajectorySampler,
    WarmStart,
)
from forethought.models.conditioning import Conditioning, condition, cut_windows
from forethought.models.reachability import Reachability
from forethought.models.reverse import Known, NoiseSource, reverse_chain
from forethought.models.schedules import cosine_alpha_bar
from forethought.nn.dit import TemporalDiT
from forethought.nn.embeddings import fourier_features
from forethought.nn.unet1d import Activation, TemporalUnet
from forethought.registry import models
from forethought.types import Guide, Pin, Projection, Spaces, Trajectory


@models.register("diffuser")
@dataclass(frozen=True, kw_only=True)
class DiffuserConfig(ModelConfig):
    """Settings of ``Diffuser``; the defaults are the released Maze2D-Large model's."""

    horizon: int = 384
    """rows of a training window"""
    stride: int = 1
    """environment steps between rows, or from the first to the second if they grow"""
    growth: float = 0.0
    """share of the stride by which each gap between rows exceeds the one before it: dense near the
    present, sparse later; the network is then told every row's time. Needs actions none"""
    actions: Literal["block", "none"] = "block"
    """model the actions between rows, or observations only"""
    cut: Literal["none", "target_exits"] = "none"
    """target_exits: cut episodes where the reward falls back to zero, as the released Maze2D code
    does"""
    pad: Literal["repeat", "none"] = "none"
    normalizer: NormalizerKind = "limits"
    denoising_steps: int = 256
    """noise levels N"""
    prediction: Literal["clean", "noise"] = "clean"
    """what the network outputs: tau^0 (released code) or eps (thesis text)"""
    first_action_weight: float = 1.0
    """loss weight of the window's first action (released locomotion: 10)"""
    condition_in_training: Conditioning = "start_and_end"
    """which rows are given clean in training; start_and_goal_time: the goal at a random row and
    held after, which is what makes plans of any length arrive"""
    mark_pins: bool = False
    """tell the network which entries are given, as extra input channels"""
    mixed_horizons: tuple[int, ...] = ()
    """also train on shorter windows: divisors of ``horizon``, one drawn per batch"""
    clip_clean: bool = True
    """clip estimates of tau^0 to [-1, 1] in model units (meant for the limits normalizer)"""
    backbone: Literal["unet", "dit"] = "unet"
    """temporal U-Net (thesis), or a diffusion transformer, which uses ``dim`` and ``depth`` only"""
    depth: int = 6
    """blocks of the transformer"""
    dim: int = 32
    """channels of the U-Net's first level, or width of the transformer (a multiple of 32)"""
    dim_mults: tuple[int, ...] = (1, 4, 8)
    kernel_size: int = 5
    blocks_per_level: int = 2
    middle_blocks: int = 2
    """residual blocks at the coarsest level (released: 2); fewer narrow the receptive field"""
    activation: Activation = "mish"
    reach_pairs: int = 0
    """pairs per batch for the arrival-time classifier; 0 = none, plans then have a fixed length"""
    reach_width: int = 192
    octaves: int = 0
    """Fourier features of the inputs, so that small networks can learn sharp borders; 0 = none"""

    def __post_init__(self) -> None:
        for horizon in self.mixed_horizons:
            if self.horizon % horizon:
                raise ValueError(f"mixed horizon {horizon} does not divide horizon {self.horizon}")
        if self.growth and (self.actions != "none" or self.mixed_horizons):
            raise ValueError(
                f"model.growth {self.growth} needs model.actions none and no mixed_horizons: at "
                "growing distances neither blocks of actions nor parts of a window are alike"
            )

    def row_times(self, rows: int) -> Tensor:
        """(rows,) int64: environment steps of the rows of a window or plan."""
        return torch.from_numpy(row_times(rows, self.stride, self.growth))

    def view(self, dataset: EpisodeDataset) -> Windows:
        if self.cut == "target_exits":
            inside = dataset.rewards > 0
            dataset = dataset.cut(1 + (inside[:-1] & ~inside[1:]).nonzero()[0])
        return Windows(
            dataset,
            self.horizon,
            stride=self.stride,
            growth=self.growth,
            actions=self.actions,
            pad=self.pad,
        )

    def build(self, spaces: Spaces) -> Diffuser:
        return Diffuser(self, spaces)


class Diffuser(Model, TrajectorySampler, ArrivalEstimator):
    """Diffusion model of trajectories, (batch, horizon, observation_dim + actions).

    Differs from the thesis: whatever the settings say; the ``-thesis`` recipes follow its text.
    """

    alpha_bar: Tensor

    def __init__(self, config: DiffuserConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        self.config = config
        block = config.stride * spaces.action_dim if config.actions == "block" else 0
        self.observation_dim, self.block_dim = spaces.observation_dim, block
        width = spaces.observation_dim + block
        self.observation_normalizer = Normalizer(spaces.observation_dim, config.normalizer)
        self.action_normalizer = Normalizer(spaces.action_dim, config.normalizer)
        inputs = width * (1 + 2 * config.octaves + config.mark_pins) + bool(config.growth)
        self.network = _make_network(config, inputs, width)
        for horizon in (config.horizon, *config.mixed_horizons):
            self.network.check_horizon(horizon)
        times, self.reachability = config.row_times(config.horizon), None
        self._last_time = int(times[-1])
        if config.reach_pairs:
            self.reachability = Reachability(
                spaces.observation_dim, times, config.reach_width, config.octaves
            )
        alpha_bar = cosine_alpha_bar(config.denoising_steps)
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        taken = torch.ones(len(dataset.actions), dtype=torch.bool)
        taken[torch.from_numpy(dataset.starts[1:] - 1)] = False  # padding rows hold no action
        self.action_normalizer.fit(dataset.actions[taken.numpy()])

    def encode(self, trajectory: Trajectory) -> Tensor:
        """z (..., horizon, D), laid out [observation, actions]."""
        z = self.observation_normalizer.normalize(trajectory.observations)
        if not self.block_dim:
            return z
        steps = trajectory.actions.unflatten(-1, (self.config.stride, self.spaces.action_dim))
        return torch.cat([z, self.action_normalizer.normalize(steps).flatten(-2)], dim=-1)

    def decode(self, z: Tensor, times: Tensor) -> Trajectory:
        """The inverse of ``encode``; differentiable, never clips."""
        z_observations, z_actions = z.split([self.observation_dim, self.block_dim], dim=-1)
        actions = z_actions
        if self.block_dim:
            steps = z_actions.unflatten(-1, (self.config.stride, self.spaces.action_dim))
            actions = self.action_normalizer.denormalize(steps).flatten(-2)
        observations = self.observation_normalizer.denormalize(z_observations)
        return Trajectory(observations=observations, actions=actions, times=times)

    def loss(
        self, batch: Trajectory, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Simplified objective (Section 5.3) on windows, plus the arrival classifier's."""
        z_clean, weight = self.encode(batch), self._weights(batch)
        pieces = cut_windows(z_clean, weight, self.config.mixed_horizons, generator)
        denoising = self._denoising_loss(*pieces, generator)
        metrics = {"denoising": denoising.detach()}
        if self.reachability is None:
            return denoising, metrics
        mask = batch.observation_mask
        if mask is None:
            mask = torch.ones(z_clean.shape[:2], dtype=torch.bool, device=z_clean.device)
        z_windows = z_clean[..., : self.observation_dim]
        reach = self.reachability.loss(z_windows, mask, self.config.reach_pairs, generator)
        return denoising + reach, {**metrics, "reachability": reach.detach()}

    def _weights(self, batch: Trajectory) -> Tensor:
        """(B, H, D) loss weights: padding 0, first action as configured, else 1."""
        weight = batch.observations.new_ones(
            *batch.observations.shape[:-1], self.observation_dim + self.block_dim
        )
        weight[:, 0, self.observation_dim : self.observation_dim + self.spaces.action_dim] = (
            self.config.first_action_weight
        )
        if batch.observation_mask is not None:
            weight[..., : self.observation_dim] *= batch.observation_mask[..., None]
        if batch.action_mask is not None:
            weight[..., self.observation_dim :] *= batch.action_mask[..., None]
        return weight

    def _denoising_loss(
        self, z_clean: Tensor, weight: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        kind = self.config.condition_in_training
        z_clean, weight, given = condition(z_clean, weight, kind, self.observation_dim, generator)
        batch, device = len(z_clean), z_clean.device
        level = torch.randint(len(self.alpha_bar), (batch,), generator=generator, device=device)
        noise = torch.randn(z_clean.shape, generator=generator, device=device)
        signal = self.alpha_bar[level][:, None, None]
        z_noisy = signal.sqrt() * z_clean + (1 - signal).sqrt() * noise
        z_noisy = torch.where(given, z_clean, z_noisy)
        output = self.predict(z_noisy, level, given)
        target = z_clean if self.config.prediction == "clean" else noise
        weight = weight * ~given
        return (weight * (output.float() - target).square()).sum() / weight.sum().clamp(min=1)

    def predict(self, z_noisy: Tensor, level: Tensor, given: Tensor) -> Tensor:
        """Network output for arrays (B, H, D) at levels (B,), given entries marked."""
        features = fourier_features(z_noisy, self.config.octaves)
        if self.config.mark_pins:
            features = torch.cat([features, given.to(z_noisy.dtype)], dim=-1)
        if self.config.growth:
            times = self.config.row_times(z_noisy.shape[1]).to(z_noisy) / self._last_time
            features = torch.cat([features, times[:, None].expand(len(z_noisy), -1, 1)], dim=-1)
        return self.network(features, level)

    def clean_estimate(self, z_noisy: Tensor, level: int, given: Tensor) -> Tensor:
        """Estimate of tau^0 from tau^i, clipped if the settings say so."""
        levels = torch.full((len(z_noisy),), level, device=z_noisy.device)
        output = self.predict(z_noisy, levels, given)
        if self.config.prediction == "noise":
            signal = self.alpha_bar[level]
            output = (z_noisy - (1 - signal).sqrt() * output) / signal.sqrt()
        return output.clamp(-1, 1) if self.config.clip_clean else output

    def plan_times(self, last_time: int) -> Tensor:
        # a trained horizon if one is long enough: the rows held after the arrival tell the network
        # where the goal is, so a plan that just fits would be unlike most of what it has seen
        multiple = self.network.multiple
        enough = self.config.row_times(-(-last_time // self.config.stride) + 1)
        rows = int(torch.searchsorted(enough, last_time)) + 1
        trained = [h for h in (*self.config.mixed_horizons, self.config.horizon) if h >= rows]
        rows = min(trained, default=-(-rows // multiple) * multiple)
        return self.config.row_times(rows)

    @torch.no_grad()
    def sample(  # noqa: PLR0913  as TrajectorySampler asks
        self,
        pins: Sequence[Pin],
        *,
        times: Tensor,
        n_candidates: int = 1,
        guide: Guide | None = None,
        projection: Projection | None = None,
        sampler: SamplerConfig = DEFAULT_SAMPLER,
        generator: Generator = None,
        on_step: OnStep | None = None,
        start: WarmStart | None = None,
    ) -> Trajectory:
        """Algorithm 5, lines 3 to 11: trajectories (batch, n_candidates, horizon, dim).

        pins: at least the start;  times: as from ``plan_times``
        guide, projection: see ``forethought.types``;  on_step, start: see ``models.base``
        Raises ValueError for a horizon the network cannot take or a pin outside the plan.
        """
        self.network.check_horizon(len(times))
        known = Known.from_pins(pins, times, self, start)
        z = reverse_chain(
            self,
            known.repeat(n_candidates),
            times,
            guide=guide,
            projection=projection,
            sampler=sampler,
            noise=NoiseSource(generator, known.batch, n_candidates),
            on_step=on_step,
        )
        plans = self.decode(z.unflatten(0, (known.batch, n_candidates)), times.to(z.device))
        return plans.to(pins[0].value.device)

    @torch.no_grad()
    def arrival_time(self, observation: Tensor, goal: Tensor, *, threshold: float) -> Tensor:
        """(batch,) int64: the earliest environment step at which arriving at ``goal`` is likely.

        threshold: log density ratio that counts as likely. Where no time passes it, the likeliest
            one.
        """
        if self.reachability is None:
            raise ValueError(
                "this Diffuser was trained without an arrival-time classifier (model.reach_pairs "
                "0); plan with a fixed length (planner.length) instead"
            )
        device = self.alpha_bar.device
        z, z_goal = (
            self.observation_normalizer.normalize(x.to(device)) for x in (observation, goal)
        )
        return self.reachability.first_likely(z, z_goal, threshold).to(observation.device)

    @torch.no_grad()
    def plausibility(self, plans: Trajectory, arrival: Tensor) -> Tensor | None:
        """(batch, candidates): log-probability, by the arrival classifier, that every row up to
        the arrival follows from the one before; a step through a wall costs much."""
        if self.reachability is None:
            return None
        z = self.observation_normalizer.normalize(plans.observations.to(self.alpha_bar.device))
        times, arrival = plans.times.to(z.device), arrival.to(z.device)
        return self.reachability.log_probability(z, times, arrival).to(plans.observations.device)


def _make_network(config: DiffuserConfig, inputs: int, outputs: int) -> TemporalUnet | TemporalDiT:
    if config.backbone == "dit":
        return TemporalDiT(inputs, outputs, dim=config.dim, depth=config.depth)
    return TemporalUnet(
        inputs,
        outputs,
        dim=config.dim,
        dim_mults=config.dim_mults,
        kernel_size=config.kernel_size,
        blocks_per_level=config.blocks_per_level,
        middle_blocks=config.middle_blocks,
        activation=config.activation,
    )
