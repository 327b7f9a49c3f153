"""The reverse chain against mathematics: with an exact denoiser it must sample known Gaussians.

For data x ~ N(m, C) the expected clean sample given a noisy one, sqrt(a) x + sqrt(1 - a) eps, is a
matrix product. ``ExactGaussian`` puts it in the network's place, so nothing is learned here and
what is left to fail is the chain itself: its coefficients, its guidance, its inpainting.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from forethought.models.base import GuidanceConfig, SamplerConfig
from forethought.models.reverse import Known, _Step, reverse_chain
from forethought.models.schedules import cosine_alpha_bar, spaced_levels
from forethought.nn.unet1d import TemporalUnet
from forethought.types import Trajectory

HORIZON = 4
SAMPLES = 4_000
MEAN = torch.tensor([0.5, -0.3, 0.2, 0.8], dtype=torch.float64)
_rows = torch.arange(HORIZON, dtype=torch.float64)
COVARIANCE = 0.6 * torch.exp(-((_rows[:, None] - _rows) ** 2) / 4) + 0.1 * torch.eye(HORIZON)
EYE = torch.eye(HORIZON, dtype=torch.float64)


class ExactGaussian:
    """What ``reverse_chain`` asks of a Diffuser, for x ~ N(m, C) with one observation dimension.

    Given entries count as clean, as in training with conditioning: the estimate is
    E[x | noisy free entries, clean given entries].
    """

    observation_dim, block_dim = 1, 0

    def __init__(
        self, denoising_steps: int, mean: Tensor = MEAN, covariance: Tensor = COVARIANCE
    ) -> None:
        self.alpha_bar = cosine_alpha_bar(denoising_steps)
        self.mean, self.covariance = mean, covariance

    def encode(self, trajectory: Trajectory) -> Tensor:
        return trajectory.observations

    def decode(self, z: Tensor, times: Tensor) -> Trajectory:
        return Trajectory(observations=z, actions=z[..., :0], times=times)

    def clean_estimate(self, z_noisy: Tensor, level: int, given: Tensor) -> Tensor:
        pinned, noisy = given[0, :, 0], z_noisy[..., 0]
        mean, covariance = conditional(self.mean, self.covariance, pinned, noisy[:, pinned])
        clean, _ = posterior(mean, covariance, noisy[:, ~pinned], self.alpha_bar[level])
        estimate = noisy.clone()
        estimate[:, ~pinned] = clean
        return estimate[..., None]


def conditional(mean: Tensor, covariance: Tensor, pinned: Tensor, values: Tensor):
    """Mean (B, free) and covariance of the free entries given values (B, pinned) of the others."""
    across = covariance[~pinned][:, pinned]
    gain = across @ torch.linalg.inv(covariance[pinned][:, pinned])
    shifted = mean[~pinned] + (values - mean[pinned]) @ gain.T
    return shifted, covariance[~pinned][:, ~pinned] - gain @ across.T


def posterior(mean: Tensor, covariance: Tensor, noisy: Tensor, signal: Tensor):
    """Mean and covariance of x ~ N(mean, covariance) given the noisy x at level ``signal``."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    marginal = signal * covariance + (1 - signal) * identity
    gain = signal.sqrt() * covariance @ torch.linalg.inv(marginal)
    return mean + (
        noisy - signal.sqrt() * mean
    ) @ gain.T, covariance - signal.sqrt() * gain @ covariance


def nothing_known(n: int) -> Known:
    empty = torch.zeros(n, HORIZON, 1, dtype=torch.float64)
    return Known(empty.bool(), empty)


def sample(
    model: ExactGaussian,
    *,
    kind: str = "ddpm",
    steps: int = 0,
    guide=None,
    guidance: GuidanceConfig | None = None,
    known: Known | None = None,
    seed: int = 0,
    n: int = SAMPLES,
) -> Tensor:
    """(n, HORIZON) from the chain."""
    generator = torch.Generator().manual_seed(seed)
    z = reverse_chain(
        model,
        known or nothing_known(n),
        torch.arange(HORIZON),
        guide=guide,
        projection=None,
        sampler=SamplerConfig(kind=kind, steps=steps, guidance=guidance or GuidanceConfig()),
        noise=lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype),
        on_step=None,
    )
    return z[..., 0]


def moments(model: ExactGaussian, kind: str, known: Known | None = None) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what the chain samples, no sampling: it is affine in its noises.

    The mean is its output without noise, the covariance sums J J^T over the noises' Jacobians J.
    """
    noises = []

    def zero(like: Tensor) -> Tensor:
        noises.append(torch.zeros_like(like, requires_grad=True))
        return noises[-1]

    known = known or nothing_known(1)
    z = reverse_chain(
        model,
        known,
        torch.arange(HORIZON),
        guide=None,
        projection=None,
        sampler=SamplerConfig(kind=kind, steps=0),
        noise=zero,
        on_step=None,
    )[0, :, 0]
    rows = [
        torch.cat(torch.autograd.grad(z[i], noises, retain_graph=True), dim=1).flatten()
        if z[i].requires_grad
        else torch.zeros(len(noises) * HORIZON, dtype=z.dtype)
        for i in range(HORIZON)
    ]
    jacobian = torch.stack(rows)
    return z.detach(), jacobian @ jacobian.T


def assert_gaussian(samples: Tensor, mean: Tensor, covariance: Tensor, bias: float = 0.0) -> None:
    """Mean and covariance within 4 standard errors, plus ``bias`` (in the covariance's units)."""
    variance, n = covariance.diagonal(), len(samples)
    mean_error = (variance / n).sqrt()
    covariance_error = ((variance[:, None] * variance + covariance**2) / n).sqrt()
    excess = (samples.mean(dim=0) - mean).abs() - 4 * mean_error
    assert bool((excess < bias).all()), f"mean {samples.mean(dim=0)}, expected {mean}"
    excess = (samples.T.cov() - covariance).abs() - 4 * covariance_error
    assert bool((excess < bias).all()), f"covariance {samples.T.cov()}, expected {covariance}"


# --------------------------------------------------------------------------------------- unguided


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpm"])
def test_samples_have_the_data_mean_and_covariance(kind):
    assert_gaussian(sample(ExactGaussian(1000), kind=kind, n=2000), MEAN, COVARIANCE)


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_chain_moments_converge_to_the_data_moments(kind):
    """At first order in the number of levels; without sampling, so the tolerance can be small."""
    errors = []
    for denoising_steps in (100, 200, 400):
        mean, covariance = moments(ExactGaussian(denoising_steps), kind)
        torch.testing.assert_close(mean, MEAN, rtol=0, atol=2 / denoising_steps)
        errors.append(float((covariance - COVARIANCE).abs().max()))
    assert errors[-1] < 0.015, "the data variance is 0.7"
    assert 1.7 < errors[0] / errors[1] < 2.3 and 1.7 < errors[1] / errors[2] < 2.3


def probability_flow_error(model: ExactGaussian, kind: str, steps: int = 0) -> float:
    """From the exact flow z -> m + (C / V)^(1/2) (z - sqrt(a) m), V = a C + (1 - a) I."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(64, HORIZON, 1, generator=generator, dtype=torch.float64)[..., 0]
    signal = model.alpha_bar[-1]
    values, vectors = torch.linalg.eigh(COVARIANCE)
    stretch = (values / (signal * values + 1 - signal)).sqrt()
    flow = MEAN + (first - signal.sqrt() * MEAN) @ (vectors * stretch @ vectors.T)
    return float((sample(model, kind=kind, steps=steps, n=64) - flow).abs().max())


def test_ddim_is_the_probability_flow_of_the_gaussian():
    errors = [probability_flow_error(ExactGaussian(n), "ddim") for n in (200, 400, 800)]
    assert errors[-1] < 0.02, "standard deviations of the data are about 0.8"
    torch.testing.assert_close(errors[0] / errors[1], 2.0, rtol=0.15, atol=0)  # first order
    torch.testing.assert_close(errors[1] / errors[2], 2.0, rtol=0.15, atol=0)


def test_dpm_solver_is_of_second_order():
    """Twice the steps, a quarter of the error (until the schedule's clipped top level is felt)."""
    model = ExactGaussian(1000)
    errors = [probability_flow_error(model, "dpm", steps) for steps in (8, 16, 32)]
    assert errors[0] / errors[1] > 3.3 and errors[1] / errors[2] > 3.3
    assert errors[2] < 0.15 * probability_flow_error(model, "ddim", 32)
    mean, covariance = moments(model, "dpm")
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-3)
    torch.testing.assert_close(covariance, COVARIANCE, rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2])
def test_dpm_solver_of_up_to_two_steps_is_ddim(steps):
    model = ExactGaussian(50)
    ours, theirs = (sample(model, kind=kind, steps=steps, n=5) for kind in ("dpm", "ddim"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_warm_started_chain_of_exact_samples_keeps_their_law():
    """Data noised to any level and denoised again is data: mean and covariance stay."""
    generator = torch.Generator().manual_seed(3)
    root = torch.linalg.cholesky(COVARIANCE.double())
    draws = torch.randn(SAMPLES, HORIZON, generator=generator, dtype=torch.float64) @ root.T
    data = (MEAN + draws)[..., None]
    for share in (0.1, 0.5):
        known = replace(nothing_known(SAMPLES), z_start=data, share=share)
        assert_gaussian(sample(ExactGaussian(400), known=known), MEAN, COVARIANCE, bias=0.01)


def test_zero_temperature_ddpm_of_a_gaussian_ends_at_its_mean():
    model = ExactGaussian(50)
    mean, _ = moments(model, "ddpm")
    # the chain starts at 0 instead of sqrt(alpha_bar_N) m, which is all but the same
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-3)


def test_ddpm_over_all_levels_is_the_standard_posterior():
    """DDPM (Ho et al. 2020) Eqs. 6 and 7, written with betas as there."""
    model, generator = ExactGaussian(12), torch.Generator().manual_seed(4)
    alpha_bar = model.alpha_bar
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta = 1 - alpha_bar / before
    z = torch.randn(5, HORIZON, 1, generator=generator, dtype=torch.float64)
    nothing = torch.zeros_like(z, dtype=torch.bool)
    for i in reversed(range(12)):
        clean = model.clean_estimate(z, i, nothing)
        z = (
            before[i].sqrt() * beta[i] / (1 - alpha_bar[i]) * clean
            + (1 - beta[i]).sqrt() * (1 - before[i]) / (1 - alpha_bar[i]) * z
        )
        if i:
            variance = beta[i] * (1 - before[i]) / (1 - alpha_bar[i])
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
            z = z + variance.sqrt() * noise
    torch.testing.assert_close(sample(model, n=5, seed=4), z[..., 0], rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------------- guided


def exact_value(model: ExactGaussian, slope: Tensor, curvature: float):
    """log E[exp(J(x)) | noisy x], up to a constant, for J(x) = slope . x - curvature |x|^2 / 2.

    What a value function that knows the noise level would return; guiding with it is exact.
    """

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        i = round(float(level[0]) * len(model.alpha_bar)) - 1
        signal = model.alpha_bar[i] if i >= 0 else torch.ones((), dtype=torch.float64)
        mean, covariance = posterior(
            model.mean, model.covariance, trajectory.observations[..., 0], signal
        )
        # over N(u, S), with P = (I + k S)^-1: s . P u - k u . P u / 2 + s . P S s / 2
        shrink = torch.linalg.inv(EYE + curvature * covariance)
        return (
            mean @ shrink.T @ slope
            - 0.5 * curvature * ((mean @ shrink.T) * mean).sum(dim=-1)
            + 0.5 * slope @ shrink @ covariance @ slope
        )

    return guide


MEAN_GUIDANCE = GuidanceConfig(at="mean", scale=1.0, scale_by_variance=True)


def test_linearly_guided_gaussian_matches_analytic_tilt():
    """N(m, C) exp(g . x) = N(m + C g, C); discretization adds less than 0.01."""
    model, slope = ExactGaussian(500), torch.tensor([0.0, 1.0, -0.5, 0.5], dtype=torch.float64)
    samples = sample(model, guide=exact_value(model, slope, 0.0), guidance=MEAN_GUIDANCE)
    assert_gaussian(samples, MEAN + COVARIANCE @ slope, COVARIANCE, bias=0.01)


def test_quadratically_guided_gaussian_matches_analytic_tilt():
    """N(m, C) exp(-k |x - b|^2 / 2) has precision P = C^-1 + k I and mean P^-1 (C^-1 m + k b)."""
    curvature, point = 2.0, torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    model = ExactGaussian(500)
    guide = exact_value(model, curvature * point, curvature)
    inverse = torch.linalg.inv(COVARIANCE)
    tilted = torch.linalg.inv(inverse + curvature * EYE)
    center = tilted @ (inverse @ MEAN + curvature * point)
    samples = sample(model, guide=guide, guidance=MEAN_GUIDANCE)
    assert_gaussian(samples, center, tilted, bias=0.01)


@pytest.mark.parametrize("at", ["mean", "noisy"])
def test_noise_blind_linear_guide_overshoots_by_the_known_factor(at):
    """A guide that ignores the noise level is not the tilt: it shifts N(0, c) by more than c g.

    The chain's limit d e / d log a = (1/2 - 1/v) e + g, v = 1 + (c - 1) a, from a = 0 to 1, gives
    e = 2 c g atanh(sqrt(1 - c)) / sqrt(1 - c); for unit variance exactly twice the tilt.
    """
    slope = torch.tensor([0.3, 0.3, 0.3, 0.3], dtype=torch.float64)
    variances = torch.tensor([1.0 - 1e-9, 0.5, 0.25, 0.04], dtype=torch.float64)
    root = (1 - variances).sqrt()
    expected = 2 * variances * slope * root.atanh() / root
    guidance = GuidanceConfig(at=at, scale=0.5, scale_by_variance=True)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        return 2 * trajectory.observations[..., 0] @ slope  # scale 0.5 halves it again

    model = ExactGaussian(1000, 0 * MEAN, torch.diag(variances))
    plain = sample(model, kind="ddpm", n=8)
    shift = sample(model, kind="ddpm", n=8, guide=guide, guidance=guidance) - plain  # same noise
    torch.testing.assert_close(shift, expected.expand(8, -1), rtol=0.02, atol=0)


def test_guide_sees_the_noise_level_of_what_it_is_shown():
    levels = {}
    for at in ("noisy", "mean", "clean"):
        seen = levels[at] = []

        def guide(trajectory: Trajectory, level: Tensor, seen: list = seen) -> Tensor:
            seen.append(float(level[0]))
            return trajectory.observations.sum(dim=(-1, -2))

        sample(ExactGaussian(4), guide=guide, guidance=GuidanceConfig(at=at), n=2)
    assert levels == {
        "noisy": [1.0, 0.75, 0.5, 0.25],
        "mean": [0.75, 0.5, 0.25, 0.0],
        "clean": [0.0, 0.0, 0.0, 0.0],
    }


def test_guidance_settings_act_as_documented():
    """inner_steps repeats the step, scale and variance multiply it, stop_level ends it."""
    model = ExactGaussian(6)

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        return trajectory.observations.sum(dim=(-1, -2))

    def shift(**settings) -> Tensor:
        plain = sample(model, n=3)
        return sample(model, n=3, guide=guide, guidance=GuidanceConfig(**settings)) - plain

    one = shift(scale=0.1)
    torch.testing.assert_close(shift(scale=0.2), 2 * one)
    torch.testing.assert_close(shift(scale=0.1, inner_steps=2), 2 * one)
    torch.testing.assert_close(shift(scale=0.1, stop_level=6), torch.zeros_like(one))
    # only the last level guides, after which nothing moves: the bare shift of the sample by scale
    last = shift(scale=0.1, scale_by_variance=False) - shift(
        scale=0.1, scale_by_variance=False, stop_level=1
    )
    torch.testing.assert_close(last, torch.full_like(last, 0.1))


def test_a_guide_that_returns_no_batch_of_values_is_refused():
    with pytest.raises(ValueError, match=r"one value per trajectory, shape \(3,\)"):
        sample(ExactGaussian(4), guide=lambda trajectory, level: trajectory.observations, n=3)


# -------------------------------------------------------------------------------------- inpainted


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpm"])
@pytest.mark.parametrize("rows", [[0], [0, 3]])
def test_inpainted_gaussian_matches_conditional(kind, rows):
    """With a denoiser that is given the pinned entries clean, as in training with conditioning."""
    pinned = torch.zeros(HORIZON, dtype=torch.bool)
    pinned[rows] = True
    value = torch.tensor([1.5, 0.0, 0.0, -0.7], dtype=torch.float64)
    known = Known(pinned[None, :, None], torch.where(pinned, value, 0.0)[None, :, None])
    mean, covariance = moments(ExactGaussian(400), kind, known)
    torch.testing.assert_close(mean[pinned], value[pinned], rtol=0, atol=0)
    torch.testing.assert_close(covariance[pinned], torch.zeros_like(covariance[pinned]))
    expected, spread = conditional(MEAN, COVARIANCE, pinned, value[None, pinned])
    torch.testing.assert_close(mean[~pinned], expected[0], rtol=0, atol=0.01)
    torch.testing.assert_close(covariance[~pinned][:, ~pinned], spread, rtol=0, atol=0.01)


# --------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("n", [1, 2, 20, 256, 1000])
def test_cosine_schedule_matches_its_closed_form(n):
    alpha_bar = cosine_alpha_bar(n)

    def f(u: Tensor) -> Tensor:
        return torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    u = torch.arange(n + 1, dtype=torch.float64) / n
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    betas = 1 - alpha_bar / before
    assert alpha_bar.shape == (n,) and bool((betas > 0).all())
    # every beta but the last is below the clip, so the product telescopes
    torch.testing.assert_close(alpha_bar[:-1], (f(u) / f(u[:1]))[1:-1], rtol=1e-9, atol=0)
    torch.testing.assert_close(betas[-1].item(), 0.999, rtol=1e-9, atol=0)


def test_cosine_schedule_needs_a_level():
    with pytest.raises(ValueError, match="at least 1"):
        cosine_alpha_bar(0)


def test_twenty_levels_have_the_released_posterior_variances():
    alpha_bar = cosine_alpha_bar(20)
    variances = [_Step(alpha_bar, i, i - 1).variance for i in range(20)]
    assert variances[0] == 0
    found = [*variances[1:3], *variances[-2:], float(alpha_bar[0])]
    printed = ["0.0057", "0.015", "0.73", "0.993", "0.992"]
    for value, text in zip(found, printed, strict=True):
        assert f"{value:.{len(text) - 2}f}" == text


@pytest.mark.parametrize("n", [1, 2, 7, 20, 64])
def test_spaced_levels_start_at_the_top_and_never_repeat(n):
    full = list(range(n - 1, -1, -1))
    assert spaced_levels(n, 0) == full
    assert spaced_levels(n, n) == full
    for steps in range(1, n + 1):
        levels = spaced_levels(n, steps)
        assert len(levels) == steps and levels[0] == n - 1 and levels[-1] >= 0
        gaps = {a - b for a, b in zip(levels, levels[1:], strict=False)}
        assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1), "evenly spaced"


@pytest.mark.parametrize("steps", [21, -1])
def test_spaced_levels_refuses_more_steps_than_levels(steps):
    with pytest.raises(ValueError, match="use 1 to 20, or 0 for all"):
        spaced_levels(20, steps)


# ---------------------------------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("width", "dim_mults", "count"),
    [
        (14, (1, 2, 4, 8), 3_956_302),  # hopper, released
        (23, (1, 2, 4, 8), 3_958_327),  # walker2d and halfcheetah
        (6, (1, 4, 8), 3_682_118),  # maze2d
    ],
)
def test_unet_has_the_released_parameter_count(width, dim_mults, count):
    network = TemporalUnet(width, width, dim=32, dim_mults=dim_mults)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("horizon", "lower", "upper"), [(30, 24, 32), (33, 32, 40), (5, 8, 16)])
def test_horizon_error_names_the_two_nearest_that_fit(horizon, lower, upper):
    network = TemporalUnet(2, 2, dim=8, dim_mults=(1, 1, 1, 1), blocks_per_level=1)
    message = rf"horizon {horizon} is not a multiple of 8 .*use {lower} or {upper}"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, horizon, 2), torch.zeros(1))
    for fits in (lower, upper):
        network.check_horizon(fits)


def test_unet_commutes_with_shifts_by_its_multiple():
    """Away from the borders; group statistics are sums over time, which a shift leaves alone."""
    torch.manual_seed(0)
    network = TemporalUnet(2, 3, dim=8, dim_mults=(1, 2, 2), blocks_per_level=1).double().eval()
    assert network.multiple == 4
    x = torch.zeros(1, 512, 2, dtype=torch.float64)
    x[:, 200:216] = torch.randn(1, 16, 2, dtype=torch.float64)
    level = torch.tensor([3.0], dtype=torch.float64)
    with torch.no_grad():
        out = network(x, level)
        for shift in (4, 12, -8):
            shifted = network(x.roll(shift, dims=1), level)
            torch.testing.assert_close(
                shifted[:, 120 + shift : 320 + shift], out[:, 120:320], rtol=1e-9, atol=1e-9
            )
    assert float((out[:, 200:216] - out[:, 300:316]).abs().max()) > 0.01, "the content is seen"
