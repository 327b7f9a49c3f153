"""The reverse chain of a trajectory diffusion model: denoise, guide, project, pin.

One step from level i to a lower level j uses the Gaussian posterior q(tau^j | tau^i, tau^0) with
the model's estimate of tau^0 in place of tau^0 (DDPM), or its deterministic counterpart (DDIM).
Consecutive levels give exactly the chain the model was trained for; skipping levels makes it
shorter. DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2) is DDIM with the estimate
extrapolated from the last two; with x_i = log(alpha_bar_i / (1 - alpha_bar_i)) / 2 it uses

    D = tau0_i + (tau0_i - tau0_h) / (2 r),   r = (x_i - x_h) / (x_j - x_i),   h the level before i.

A warm start noises an earlier plan to a middle level and runs the chain from there (thesis Section
5.5, "Warm-Starting Diffusion for Faster Planning").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forethought.models.base import Generator, GuidanceConfig, OnStep, SamplerConfig, WarmStart
from forethought.models.schedules import spaced_levels
from forethought.types import Guide, Pin, Projection, Trajectory

if TYPE_CHECKING:
    from forethought.models.diffuser import Diffuser


@dataclass(frozen=True)
class Known:
    """Given entries: ``mask`` and ``z_values``, both (batch, horizon, D), in model units.

    z_start, share: of a warm start, see ``WarmStart``
    """

    mask: Tensor
    z_values: Tensor
    z_start: Tensor | None = None
    share: float = 1.0

    @property
    def batch(self) -> int:
        return len(self.mask)

    @classmethod
    def from_pins(
        cls, pins: Sequence[Pin], times: Tensor, model: Diffuser, start: WarmStart | None = None
    ) -> Known:
        """Translate pins in environment units; raises ValueError for one that does not fit."""
        if not pins:
            raise ValueError("a plan needs at least one pin (its start)")
        batch, device = len(pins[0].value), model.alpha_bar.device
        shape = (batch, len(times))
        arrays = {
            "observations": torch.zeros(*shape, model.observation_dim, device=device),
            "actions": torch.zeros(*shape, model.block_dim, device=device),
        }
        masks = {name: torch.zeros_like(a, dtype=torch.bool) for name, a in arrays.items()}
        for pin in pins:
            array, mask = arrays[pin.field], masks[pin.field]
            width = array.shape[-1]
            dims = torch.arange(width) if pin.dims is None else torch.tensor(pin.dims)
            if pin.value.shape != (batch, len(dims)):
                raise ValueError(
                    f"a pin on {pin.field} has value shape {tuple(pin.value.shape)}; expected "
                    f"({batch}, {len(dims)}) for dimensions {dims.tolist()}"
                )
            value = torch.zeros(batch, width, device=device)
            value[:, dims] = pin.value.to(value)
            here = _rows_of(pin, times, batch).to(device)[..., None]
            here = here & torch.zeros(width, dtype=torch.bool).index_fill(0, dims, True).to(device)
            arrays[pin.field] = torch.where(here, value[:, None], array)
            masks[pin.field] = mask | here
        filled = Trajectory(times=times, **arrays)
        mask = torch.cat([masks["observations"], masks["actions"]], dim=-1)
        z_values = torch.where(mask, model.encode(filled), 0.0)
        if start is None:
            return cls(mask, z_values)
        return cls(mask, z_values, model.encode(start.trajectory.to(device)), start.share)

    def repeat(self, count: int) -> Known:
        """Each environment ``count`` times, side by side."""
        tensors = (self.mask, self.z_values, self.z_start)
        mask, z_values, z_start = (
            None if each is None else each.repeat_interleave(count, dim=0) for each in tensors
        )
        assert mask is not None and z_values is not None, "only z_start may be None"
        return Known(mask, z_values, z_start, self.share)

    def apply(self, z: Tensor) -> Tensor:
        """Overwrite the given entries (Algorithm 5 line 10)."""
        return torch.where(self.mask, self.z_values, z)


def _rows_of(pin: Pin, times: Tensor, batch: int) -> Tensor:
    """(batch, horizon) bool: the first row at or after the pin's time; later ones if it holds."""
    horizon = len(times)
    if isinstance(pin.time, str):
        row = torch.full((batch,), horizon - 1)
    else:
        time = torch.as_tensor(pin.time).cpu().expand(batch).contiguous()
        row = torch.searchsorted(times, time)
        if int(row.max()) >= horizon or int(time.min()) < 0:
            raise ValueError(
                f"a pin at step {int(time.max() if int(time.min()) >= 0 else time.min())} lies "
                "outside "
                f"the plan, which covers steps 0 to {int(times[-1])}"
            )
    rows = torch.arange(horizon)
    return rows >= row[:, None] if pin.hold else rows == row[:, None]


def reverse_chain(
    model: Diffuser,
    known: Known,
    times: Tensor,
    *,
    guide: Guide | None,
    projection: Projection | None,
    sampler: SamplerConfig,
    noise: Callable[[Tensor], Tensor],
    on_step: OnStep | None,
) -> Tensor:
    """z (batch, horizon, D) sampled from the model given ``known`` (Algorithm 5, lines 3 to 11)."""
    z, levels = _begin(model.alpha_bar, known, sampler, noise)  # line 3
    guidance, multistep = sampler.guidance, _Extrapolation(model.alpha_bar)
    for level, lower in pairwise([*levels, -1]):  # line 4
        gradient = None
        if guide is not None and level >= guidance.stop_level:
            shown = {"noisy": level, "mean": lower, "clean": -1}[guidance.at]
            gradient = _Gradient(model, guide, times, (shown + 1) / len(model.alpha_bar))
        step = _Step(model.alpha_bar, level, lower)
        if gradient and guidance.at == "noisy":
            z = _ascend(z, gradient, guidance, step.variance, known)
        z_clean = model.clean_estimate(z, level, known.mask)
        if gradient and guidance.at == "clean":
            z_clean = _ascend(z_clean, gradient, guidance, step.variance, known)
        z_clean = _project(model, known.apply(z_clean), times, projection)
        if on_step is not None:
            estimate = model.decode(z_clean, times)
            if on_step(level, estimate, model.decode(z, times)):
                return z_clean  # told to stop: an estimate of tau^0 is a plan
        if sampler.kind == "dpm":
            z_clean = multistep(z_clean, level, lower)
        mean = step.mean(z, z_clean, deterministic=sampler.kind != "ddpm")  # line 6
        if gradient and guidance.at == "mean":  # line 8
            mean = _ascend(mean, gradient, guidance, step.variance, known)
        if sampler.kind == "ddpm" and lower >= 0:
            mean = mean + sampler.temperature * step.variance**0.5 * noise(mean)
        z = known.apply(mean)  # line 10
    return known.apply(_project(model, z, times, projection))


def _begin(
    alpha_bar: Tensor,
    known: Known,
    sampler: SamplerConfig,
    noise: Callable[[Tensor], Tensor],
) -> tuple[Tensor, list[int]]:
    """The first z and the levels to denoise: all of them from pure noise, or the lower share."""
    total = len(alpha_bar)
    count = round(known.share * total)
    drawn = sampler.temperature * noise(known.z_values)
    if known.z_start is None or count == total:
        return known.apply(drawn), spaced_levels(total, sampler.steps)
    if count == 0:
        return known.apply(known.z_start), []
    steps = max(1, round(known.share * (sampler.steps or total)))
    levels = spaced_levels(count, min(steps, count))
    signal = alpha_bar[count - 1]
    return known.apply(signal.sqrt() * known.z_start + (1 - signal).sqrt() * drawn), levels


class _Extrapolation:
    """DPM-Solver++(2M): the clean estimate a second-order step uses, from this one and the last."""

    def __init__(self, alpha_bar: Tensor) -> None:
        self._alpha_bar = alpha_bar
        self._before: tuple[int, Tensor] | None = None

    def __call__(self, z_clean: Tensor, level: int, lower: int) -> Tensor:
        before, self._before = self._before, (level, z_clean)
        if before is None or lower < 0:  # first order: no history, or an infinite last step
            return z_clean
        here = self._half_log_ratio(level)
        ratio = (here - self._half_log_ratio(before[0])) / (self._half_log_ratio(lower) - here)
        return z_clean + (z_clean - before[1]) / (2 * ratio)

    def _half_log_ratio(self, level: int) -> float:
        signal = float(self._alpha_bar[level])
        return 0.5 * math.log(signal / (1 - signal))


class _Step:
    """Coefficients of one reverse step from ``level`` to ``lower`` (-1 = the clean sample)."""

    def __init__(self, alpha_bar: Tensor, level: int, lower: int) -> None:
        self._now = float(alpha_bar[level])
        self._then = float(alpha_bar[lower]) if lower >= 0 else 1.0
        self._ratio = self._now / self._then
        self.variance = (1 - self._ratio) * (1 - self._then) / (1 - self._now)

    def mean(self, z: Tensor, z_clean: Tensor, *, deterministic: bool) -> Tensor:
        """Posterior mean (DDPM), or the whole deterministic step (DDIM, Eq. 12 with eta = 0)."""
        now, then, ratio = self._now, self._then, self._ratio
        if deterministic:
            noise = (z - now**0.5 * z_clean) / (1 - now) ** 0.5
            return then**0.5 * z_clean + (1 - then) ** 0.5 * noise
        weight_clean = then**0.5 * (1 - ratio) / (1 - now)
        weight_noisy = ratio**0.5 * (1 - then) / (1 - now)
        return weight_clean * z_clean + weight_noisy * z


class _Gradient:
    """Gradient of a guide with respect to an array in model units."""

    def __init__(self, model: Diffuser, guide: Guide, times: Tensor, noise_level: float) -> None:
        self._model, self._guide, self._times = model, guide, times
        self._noise_level = noise_level

    def __call__(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            level = torch.full((len(z),), self._noise_level, device=z.device)
            values = self._guide(self._model.decode(z, self._times), level)
            if values.shape != (len(z),):
                raise ValueError(
                    f"a guide must return one value per trajectory, shape ({len(z)},); "
                    f"got {tuple(values.shape)}"
                )
            (gradient,) = torch.autograd.grad(values.sum(), z)
        return gradient


def _ascend(
    z: Tensor, gradient: _Gradient, config: GuidanceConfig, variance: float, known: Known
) -> Tensor:
    """Climb the guide: ``inner_steps`` steps of size scale (times the variance if configured)."""
    size = config.scale * (variance if config.scale_by_variance else 1.0)
    for _ in range(config.inner_steps):
        z = known.apply(z + size * gradient(z))
    return z


def _project(model: Diffuser, z: Tensor, times: Tensor, projection: Projection | None) -> Tensor:
    if projection is None:
        return z
    return model.encode(projection(model.decode(z, times)))


class NoiseSource:
    """Draws noise for (batch * candidates) rows, one generator for all or one per environment."""

    def __init__(self, generator: Generator, batch: int, n_candidates: int) -> None:
        self._generators = generator if isinstance(generator, Sequence) else None
        self._generator = None if isinstance(generator, Sequence) else generator
        self._batch, self._candidates = batch, n_candidates

    def __call__(self, like: Tensor) -> Tensor:
        if self._generators is None:
            return self._draw(like.shape, self._generator, like)
        shape = (self._candidates, *like.shape[1:])
        return torch.cat([self._draw(shape, each, like) for each in self._generators])

    @staticmethod
    def _draw(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
        # on the generator's device, so that a seed means the same noise wherever the model is
        device = like.device if generator is None else generator.device
        return torch.randn(*shape, generator=generator, device=device).to(like.device)
