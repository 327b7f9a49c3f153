"""What gamma-models bootstrap from: losses against closed forms, with networks put in by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from forethought.models.gamma import rollout
from forethought.models.gamma_base import Bootstrap
from forethought.models.gamma_flow import GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig, flow
from forethought.types import Spaces, Transitions

SPACES = Spaces(observation_dim=1, action_dim=1)
N, GAMMA, ENDED, NEXT = 200_000, 0.7, 0.25, 1.3  # rows, discount, share of ended ones, z of s'


def batch(ended: float = ENDED) -> Bootstrap:
    """All rows alike but for those that ended, spread evenly."""
    keep = torch.full((N,), GAMMA)
    if ended:
        keep[:: round(1 / ended)] = 0.0
    given = torch.zeros(N, 2)
    return Bootstrap(
        z_next=torch.full((N, 1), NEXT),
        given=given,
        given_next=given + 1,
        discount=torch.full((N,), GAMMA),
        keep=keep,
    )


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Field(nn.Module):
    """v(x, t) = slope x: carries x to x exp(slope t)."""

    def __init__(self, slope: float, given: float) -> None:
        super().__init__()
        self.slope, self.given = slope, given

    def forward(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        assert bool((given == self.given).all()), "asked at the wrong observation"
        return self.slope * x


K = 0.8
BOOTSTRAPPED = {  # mean squared field to match, from x_0 ~ N(0, 1) to x_1 = x_0 exp(K)
    "td": math.exp(2 * K) + 1,
    "coupled": (math.exp(K) - 1) ** 2,
    "td2": K * (math.exp(2 * K) - 1) / 2,
}


@pytest.mark.parametrize("share", [0.25, 0.6])
@pytest.mark.parametrize("objective", list(BOOTSTRAPPED))
def test_flow_matching_losses_of_a_linear_target_field(objective, share):
    """A network that says 0 has the mean square of the field it should match as its loss."""
    config = GammaMatchingConfig(
        objective=objective, width=8, blocks=1, one_step_share=share, target_ode_steps=20
    )
    model = config.build(SPACES)
    model.target = Field(K, given=1.0)
    model.network = Field(0.0, given=0.0)
    loss, metrics = model.bootstrapped_loss(batch(), seeded())
    kept = GAMMA * (1 - ENDED)
    one_step, bootstrapped = (1 - kept) * (NEXT**2 + 1), kept * BOOTSTRAPPED[objective]
    assert float(metrics["one_step"]) == pytest.approx(one_step, rel=0.02)
    assert float(metrics["bootstrapped"]) == pytest.approx(bootstrapped, rel=0.02)
    assert float(loss) == pytest.approx(one_step + bootstrapped, rel=0.02)


def test_flow_of_a_linear_field_is_exponential_up_to_each_row_s_time():
    x, t = torch.ones(5, 1), torch.linspace(0, 1, 5)
    there = flow(Field(K, given=0.0), x, torch.zeros(5, 2), steps=20, until=t)
    torch.testing.assert_close(there[:, 0], torch.exp(K * t), rtol=1e-3, atol=0)


class Density(nn.Module):
    """Stands for a conditional flow: a distribution that is the same for every row."""

    def __init__(self, log_prob, draw=None) -> None:
        super().__init__()
        self.log_prob, self.draw = log_prob, draw

    def forward(self, given: Tensor) -> SimpleNamespace:
        return SimpleNamespace(log_prob=self.log_prob, transform=SimpleNamespace(inv=self.draw))


def test_log_densities_regress_to_the_mixture_at_states_drawn_from_it():
    """Algorithm 3: no error is left for the mixture itself, and a shift of it is the error."""
    later, step = Normal(-2.0, 0.5), Normal(NEXT, 0.1)
    seen: list[Tensor] = []

    def mixture(z: Tensor) -> Tensor:
        seen.append(z)
        parts = (math.log(1 - GAMMA) + step.log_prob(z), math.log(GAMMA) + later.log_prob(z))
        return torch.logaddexp(*parts)[:, 0]

    model = GammaFlowConfig(transforms=2, width=8, sigma=0.1, discount=GAMMA).build(SPACES)
    model.target = Density(
        lambda z: later.log_prob(z)[:, 0], lambda noise: later.mean + later.stddev * noise
    )
    for shift in (0.0, 0.3):
        model.network = Density(lambda z, shift=shift: mixture(z) + shift)
        loss, _ = model.bootstrapped_loss(batch(ended=0.0), seeded())
        assert float(loss) == pytest.approx(shift**2, abs=1e-6)
    share = float((seen[0] < 0).float().mean())
    assert share == pytest.approx(GAMMA, abs=0.01)
    model.network = Density(lambda z: step.log_prob(z)[:, 0])  # after an end the step alone
    over = batch()
    over.keep.zero_()
    loss, _ = model.bootstrapped_loss(over, seeded())
    assert float(loss) == pytest.approx(0, abs=1e-6)


class Says(nn.Module):
    """The same state for every row, or for a discriminator: z times a weight of 1."""

    def __init__(self, state: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0 if state is None else state))
        self.judges = state is None

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x[:, :1] if self.judges else torch.ones_like(x[:, :1]))


def slope_of(network: nn.Module) -> Tensor:
    (parameter,) = network.parameters()
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("objective", ["least-squares", "original"])
def test_gan_is_shown_the_mixture_as_real_and_its_own_states_as_fake(objective):
    """Algorithm 2 with D(z) = z: the losses are those of the shares of each state."""
    later, fake = -0.4, 0.6
    model = GammaGANConfig(width=8, samples=2, objective=objective).build(SPACES)
    model.network, model.target, model.discriminator = Says(fake), Says(later), Says(None)
    loss, metrics = model.bootstrapped_loss(batch(), seeded())
    kept = GAMMA * (1 - ENDED)

    def real(cost) -> float:
        return (1 - kept) * cost(NEXT) + kept * cost(later)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    if objective == "original":
        judged, generated = real(lambda z: softplus(-z)) + softplus(fake), softplus(-fake)
    else:
        judged, generated = real(lambda z: (z - 1) ** 2) + fake**2, (fake - 1) ** 2
    assert float(metrics["discriminator"]) == pytest.approx(judged, rel=0.01)
    assert float(metrics["generator"]) == pytest.approx(generated, rel=1e-4)
    loss.backward()
    # the generator climbs D, and D does not learn from the generator's loss
    assert float(slope_of(model.network)) < 0
    slope = {
        "least-squares": real(lambda z: 2 * (z - 1) * z) + 2 * fake**2,
        "original": real(lambda z: -z / (1 + math.exp(z))) + fake / (1 + math.exp(-fake)),
    }[objective]
    assert float(slope_of(model.discriminator)) == pytest.approx(slope, rel=0.02)


def test_a_batch_too_small_to_split_is_refused():
    whole = batch()
    one = Bootstrap(**{name: value[:1] for name, value in vars(whole).items()})
    with pytest.raises(ValueError, match=r"batch_size must be at least 2"):
        GammaMatchingConfig(width=8, blocks=1).build(SPACES).bootstrapped_loss(one, None)


def test_trained_horizons_are_spread_evenly_in_their_logarithm():
    model = GammaMatchingConfig(width=8, blocks=1, most_discount=0.99).build(SPACES)
    discount = model.draw_discounts(N, torch.zeros(()), seeded())
    share = -torch.log1p(-discount) / math.log(100)
    assert 0 <= float(share.min()) and float(discount.max()) <= 0.99
    for level in (0.25, 0.5, 0.75):
        assert float((share < level).float().mean()) == pytest.approx(level, abs=0.005)
    told = model.given(torch.zeros(N, 1), torch.zeros(N, 1), discount)
    torch.testing.assert_close(told[:, 2], 2 * share - 1)
    torch.testing.assert_close(told[:, 3], discount)


def test_a_raw_sigma_is_in_environment_units():
    model = GammaFlowConfig(
        transforms=2, width=8, sigma=0.1, sigma_unit="raw", terminal_flag=True
    ).build(SPACES)
    model.observation_normalizer.scale.fill_(4.0)
    torch.testing.assert_close(model.sigma(), torch.tensor([0.025, 0.1]))


@pytest.mark.parametrize("flag", [False, True])
def test_a_batch_says_what_is_kept_and_flags_what_ended(flag):
    model = GammaMatchingConfig(width=8, blocks=1, discount=GAMMA, terminal_flag=flag).build(SPACES)
    seen: list[Bootstrap] = []
    model.bootstrapped_loss = lambda posed, _: seen.append(posed)  # pyright: ignore
    model.loss(
        Transitions(
            observation=torch.tensor([[1.0], [2.0]]),
            action=torch.tensor([[3.0], [4.0]]),
            reward=torch.zeros(2),
            next_observation=torch.tensor([[5.0], [6.0]]),
            next_action=torch.tensor([[7.0], [8.0]]),
            terminated=torch.tensor([False, True]),
        )
    )
    posed = seen[0]
    torch.testing.assert_close(posed.keep, torch.tensor([GAMMA, 0.0]))
    assert posed.given.tolist() == [[1, 3], [2, 4]]
    assert posed.given_next.tolist() == [[5, 7], [6, 8]]
    assert posed.z_next.tolist() == ([[5, 0], [6, 1]] if flag else [[5], [6]])


def test_a_rollout_stays_where_the_episode_has_ended():
    """With a terminal flag: the policy and the model are asked about observations alone."""
    model = GammaMatchingConfig(width=8, blocks=1, terminal_flag=True).build(SPACES)

    def one_further(network: nn.Module, given: Tensor, generator: object) -> Tensor:
        there = given[:, :1] + 1
        return torch.cat([there, (there >= 2).float()], dim=-1)  # the episode ends at 2

    model.draw = one_further  # pyright: ignore
    asked: list[torch.Size] = []

    def policy(observation: Tensor, generator: torch.Generator | None = None, /) -> Tensor:
        asked.append(observation.shape)
        return torch.zeros(len(observation), 1)

    start = torch.tensor([[-2.0], [1.0]])
    states = rollout(model, policy, start, torch.zeros(2, 1), n_steps=3, n_samples=2)
    assert states.shape == (3, 2, 2, 2) and asked == [torch.Size([4, 1])] * 2
    assert states[:, 0, 0].tolist() == [[-1, 0], [0, 0], [1, 0]]
    assert states[:, 1, 1].tolist() == [[2, 1]] * 3
