"""What all gamma-models share: inputs, discounts, ends of episodes, target networks.

Every gamma-model is fitted to its own bootstrapped target (thesis Eq. 3.1)::

    p_targ(s_e | s, a) = (1 - gamma) p(s_e | s, a) + gamma mu'(s_e | s', a'),   a' ~ policy(s'),

with mu' a slow average of the model. After a step that ends an episode nothing is bootstrapped: the
process is taken to stay where it is. ``terminal_flag`` appends a state dimension that is 1 there,
so that rewards can tell staying from having ended.

With ``most_discount`` the discount is an input of the network: trained with horizons 1 / (1 -
discount) spread evenly in their logarithm, one model answers for all of them.

What the network believed at first fades only as gamma^k over k rounds of bootstrapping: at discount
0.99 hundreds of rounds, each as long as network and target take to learn. ``burn_in`` lets horizons
grow from one step over the first steps of training, so that most rounds are short ones.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from forethought.checkpoint import find_checkpoint, load_model
from forethought.config import ModelConfig
from forethought.data.episodes import EpisodeDataset
from forethought.data.normalizers import Normalizer, NormalizerKind
from forethought.data.views import TransitionView
from forethought.models.base import Actor, Explorer, Model, OccupancyModel, follow, require
from forethought.models.gamma import StochasticPolicy
from forethought.types import Spaces, Transitions


@dataclass(frozen=True, kw_only=True)
class GammaConfig(ModelConfig):
    """Settings of every gamma-model."""

    discount: float = 0.95
    """the model's discount; with ``most_discount`` the one it answers for unless told otherwise"""
    most_discount: float = 0.0
    """0 = one discount; else the discount is an input, trained from 0 to this one"""
    target_rate: float = 5e-3
    """how fast the target network follows, per step (tau of Tables A.1 and A.2)"""
    burn_in: int = 0
    """training steps over which horizons grow, evenly in their logarithm, from 1 to the full one
    (the released code: discount 0.5 for its first 2,000)"""
    normalizer: NormalizerKind = "gaussian"
    """of observations; actions are mapped to [-1, 1]"""
    terminal_flag: bool = False
    """append a dimension to the predicted state that is 1 where the episode has ended"""
    policy: str = ""
    """checkpoint folder of the policy that is asked about; its actions, drawn once for every next
    observation, take the place of those the data took. Empty = the data's own policy"""

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise ValueError(f"model.discount is {self.discount}; it must lie in [0, 1)")
        if self.burn_in < 0:
            raise ValueError(f"model.burn_in is {self.burn_in}; it must not be negative")
        if self.most_discount and not self.discount <= self.most_discount < 1:
            raise ValueError(
                f"model.most_discount is {self.most_discount}; it must be 0 (one discount) or lie "
                f"between model.discount ({self.discount}) and 1"
            )

    def view(self, dataset: EpisodeDataset) -> TransitionView:
        if not self.policy:
            return TransitionView(dataset, followed=True)
        return TransitionView(dataset, next_actions=draw_actions(self.policy, dataset))


@torch.no_grad()
def draw_actions(path: str, dataset: EpisodeDataset, chunk: int = 8192) -> np.ndarray:
    """One action (rows, A) of the policy at ``path`` for every observation of ``dataset``."""
    policy = load_model(find_checkpoint(path))
    wanted, found = dataset.spaces, policy.spaces
    if (wanted.observation_dim, wanted.action_dim) != (found.observation_dim, found.action_dim):
        raise ValueError(
            f"the policy in {path} maps {found.observation_dim} observation dimensions to "
            f"{found.action_dim} action dimensions; the data set has {wanted.observation_dim} and "
            f"{wanted.action_dim}"
        )
    generator = torch.Generator().manual_seed(0)
    rows = torch.from_numpy(np.array(dataset.observations))  # a copy: the file is read-only
    act = stochastic_policy(policy)
    return torch.cat([act(part, generator) for part in rows.split(chunk)]).numpy()


def stochastic_policy(policy: Model) -> StochasticPolicy:
    """A trained policy as rollouts and simulations ask it: with its noise, if it has any."""
    if isinstance(policy, Explorer):
        return policy.explore
    actor = require(policy, Actor, needed_by="a gamma-model's policy")
    return lambda observation, _=None: actor.act(observation)


@dataclass(frozen=True)
class Bootstrap:
    """One batch in model units: where each step led, and what to ask the target network there.

    z_next (B, D); given, given_next (B, C): what the network is told here and there; discount (B,);
    keep (B,): the discount, 0 where the episode ended
    """

    z_next: Tensor
    given: Tensor
    given_next: Tensor
    discount: Tensor
    keep: Tensor


class GammaModel(Model, OccupancyModel):
    """Base of the gamma-models; a subclass draws z and says what its loss is.

    network, target: the trained network and its slow average; built by ``make_network``
    """

    steps_taken: Tensor

    def __init__(self, config: GammaConfig, spaces: Spaces) -> None:
        super().__init__(spaces)
        if spaces.n_actions is not None:
            raise ValueError(
                f"gamma-models take continuous actions; this data has {spaces.n_actions} discrete "
                "ones"
            )
        self.gamma_config, self.discount = config, config.discount
        self.state_dim = spaces.observation_dim + config.terminal_flag
        self.given_dim = spaces.observation_dim + spaces.action_dim + 2 * bool(config.most_discount)
        if config.burn_in:
            self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.observation_normalizer = Normalizer(spaces.observation_dim, config.normalizer)
        self.action_normalizer = Normalizer(spaces.action_dim, "limits")
        self.network = self.make_network()
        self.target = deepcopy(self.network).requires_grad_(False)

    @abstractmethod
    def make_network(self) -> nn.Module:
        """The trained network, for ``state_dim`` and ``given_dim``."""

    @abstractmethod
    def draw(self, network: nn.Module, given: Tensor, generator: torch.Generator | None) -> Tensor:
        """z (B, state_dim), one for each row of ``given`` (B, C)."""

    @abstractmethod
    def bootstrapped_loss(
        self, batch: Bootstrap, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar and metrics for a batch in model units."""

    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        self.observation_normalizer.fit(dataset.observations)
        if self.spaces.action_dim:
            self.action_normalizer.fit(dataset.actions_taken)

    def given(self, observation: Tensor, action: Tensor, discount: Tensor) -> Tensor:
        """(B, given_dim): what the network is told of where it starts."""
        parts = [
            self.observation_normalizer.normalize(observation),
            self.action_normalizer.normalize(action),
        ]
        if most := self.gamma_config.most_discount:
            horizon = -torch.log1p(-discount) / -math.log1p(-most)  # 0 .. 1
            parts += [2 * horizon[:, None] - 1, discount[:, None]]
        return torch.cat(parts, dim=-1)

    def loss(
        self, batch: Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The subclass's objective; bootstraps with ``batch.next_action``."""
        if batch.next_action is None:
            raise ValueError("a gamma-model bootstraps: its batches need next_action")
        z_next = self.observation_normalizer.normalize(batch.next_observation)
        ended = batch.terminated.to(z_next)
        if self.gamma_config.terminal_flag:
            z_next = torch.cat([z_next, ended[:, None]], dim=-1)
        discount = self.draw_discounts(len(z_next), z_next, generator)
        posed = Bootstrap(
            z_next=z_next,
            given=self.given(batch.observation, batch.action, discount),
            given_next=self.given(batch.next_observation, batch.next_action, discount),
            discount=discount,
            keep=discount * (1 - ended),
        )
        return self.bootstrapped_loss(posed, generator)

    def draw_discounts(self, batch: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """(batch,) discounts to train at now, on the device of ``like``."""
        most, burn_in = self.gamma_config.most_discount, self.gamma_config.burn_in
        grown = (self.steps_taken / burn_in).clamp(max=1) if burn_in else 1.0
        share = torch.ones(batch, device=like.device)
        if most:
            share = torch.rand(batch, generator=generator, device=like.device)
        elif not burn_in:
            return self.discount * share
        return -torch.expm1(grown * share * math.log1p(-(most or self.discount)))

    def after_step(self) -> None:
        """Move the target network toward the trained one (Algorithms 2 and 3, line 9)."""
        if self.gamma_config.burn_in:
            self.steps_taken += 1
        follow(self.target, self.network, self.gamma_config.target_rate)

    @torch.no_grad()
    def sample(
        self,
        observation: Tensor,
        action: Tensor,
        n_samples: int,
        generator: torch.Generator | None = None,
        *,
        discount: float | None = None,
    ) -> Tensor:
        """States (B, n_samples, O), with ``terminal_flag`` (B, n_samples, O + 1).

        discount: another than the model's own, if it was trained with ``most_discount``
        """
        given = self._given_for(observation, action, discount).repeat_interleave(n_samples, dim=0)
        return self.to_states(self.draw(self.network, given, generator)).unflatten(
            0, (len(observation), n_samples)
        )

    def _given_for(self, observation: Tensor, action: Tensor, discount: float | None) -> Tensor:
        asked = self.discount if discount is None else discount
        most = self.gamma_config.most_discount or self.discount
        if not 0 <= asked <= most:
            raise ValueError(f"discount {asked} is beyond what this model was trained for ({most})")
        if asked != self.discount and not self.gamma_config.most_discount:
            raise ValueError(
                f"this model knows discount {self.discount} only; train with model.most_discount "
                "to ask for others, or weight a rollout to a larger one (sample_at)"
            )
        device = self.observation_normalizer.shift.device
        levels = torch.full((len(observation),), asked, device=device)
        return self.given(observation.to(device), action.to(device), levels)

    def to_states(self, z: Tensor) -> Tensor:
        """Model units to environment units; the terminal flag is limited to [0, 1]."""
        width = self.spaces.observation_dim
        states = self.observation_normalizer.denormalize(z[..., :width])
        if not self.gamma_config.terminal_flag:
            return states
        return torch.cat([states, z[..., width:].clamp(0, 1)], dim=-1)

    def to_z(self, states: Tensor) -> Tensor:
        """The inverse of ``to_states``."""
        width = self.spaces.observation_dim
        z = self.observation_normalizer.normalize(states[..., :width])
        return torch.cat([z, states[..., width:]], dim=-1)

    def log_volume(self) -> Tensor:
        """log |dz / dstate|: what turns a density in model units into one in environment units."""
        return -self.observation_normalizer.scale.log().sum()
