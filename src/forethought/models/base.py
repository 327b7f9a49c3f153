"""The training contract that every model meets, and the capabilities a planner may ask for.

There is no common ``sample``: gamma-models, transformers and diffusers differ there. A planner
names a capability (a small abstract mix-in) and ``require`` checks it once, when the planner is
built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from forethought.data.episodes import EpisodeDataset
from forethought.data.trajectory_tokens import TrajectoryTokens
from forethought.types import Guide, Pin, Projection, Spaces, Trajectory, Transitions

Generator = torch.Generator | Sequence[torch.Generator] | None
"""One generator, or one per environment so that a plan does not depend on its neighbors in the
batch."""


class Model(nn.Module, ABC):
    """A trainable model: statistics from data, a scalar loss, a hook after each optimizer step.

    Losses of several parts are summed into one scalar with gradients stopped where they must not
    flow, so one optimizer trains generator and discriminator, actor and critic. Limits: no global
    gradient clipping over adversaries; other step sizes go through ``parameter_groups``.
    """

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        self.spaces = spaces

    @abstractmethod
    def fit_statistics(self, dataset: EpisodeDataset) -> None:
        """Set the buffers of normalizers or tokenizers; no gradients."""

    @abstractmethod
    def loss(
        self, batch: Trajectory | Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar to descend and detached scalars to log, for a batch in environment units."""

    def forward(
        self, batch: Trajectory | Transitions, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, so that hooks of DistributedDataParallel and compile see it."""
        return self.loss(batch, generator)

    def after_step(self) -> None:
        """Called after every optimizer step, e.g. to move target networks; default: nothing."""
        return

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Optimizer groups; by default weight decay on matrices and convolutions only."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        # biases of an ensemble are stacks of rows
        matrices = [p for name, p in named if p.ndim >= 2 and "bias" not in name]
        others = [p for name, p in named if p.ndim < 2 or "bias" in name]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


@torch.no_grad()
def follow(target: nn.Module, trained: nn.Module, rate: float) -> None:
    """Move a target network's weights toward the trained one's, by ``rate`` of the way."""
    targets, weights = [p.data for p in target.parameters()], [p.data for p in trained.parameters()]
    torch._foreach_lerp_(targets, weights, rate)


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How a guide enters sampling: Algorithm 5 line 8, and its published variants.

    The defaults are the thesis's. For rewards in units of the maze ``at="clean"`` with a scale of
    100, times the variance, bent plans most while keeping them feasible (study figure-5-3, part
    guidance): it acts at high noise, and the later steps mend the plan.
    """

    at: Literal["mean", "noisy", "clean"] = "mean"
    """where the gradient is taken: the reverse mean (thesis), the noisy sample before the step
    (released code), or the clean estimate, which is then moved itself (as in manifold-preserving
    guidance)"""
    scale: float = 0.1
    """alpha of Algorithm 5"""
    scale_by_variance: bool = True
    """multiply the gradient by the reverse variance Sigma^i"""
    inner_steps: int = 1
    """gradient steps per denoising step (released: 2)"""
    stop_level: int = 0
    """no guidance at levels below this one (released: 2 or 4)"""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a diffusion model is sampled."""

    kind: Literal["ddpm", "ddim", "dpm"] = "ddim"
    """ddpm: ancestral, with noise; ddim: deterministic given the first noise (arXiv 2010.02502);
    dpm: its second-order successor DPM-Solver++(2M) (arXiv 2211.01095), the same up to two steps"""
    steps: int = 8
    """network calls per plan; 0 = every level the model was trained with"""
    temperature: float = 1.0
    """standard deviation of the first and of the added noise, as a multiple of the schedule's"""
    guidance: GuidanceConfig = GuidanceConfig()


DEFAULT_SAMPLER = SamplerConfig()


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Where sampling begins instead of at pure noise: a trajectory noised to a middle level.

    trajectory: (batch, horizon, dim), rows as in the new plan, environment units
    share: of the noise levels to noise it to, and of the sampler's steps to take from there; 0
        keeps the trajectory as it is (but for the pins), 1 is pure noise
    """

    trajectory: Trajectory
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"a warm start's share of noise levels is {self.share}; use 0 to 1")


class OnStep(Protocol):
    """Sees every step of a sampler, after its network call."""

    def __call__(
        self, level: int, estimate: Trajectory, sample: Trajectory | None = None, /
    ) -> bool | None:
        """At noise ``level``: the model's ``estimate`` of the plan, made from the noisy
        ``sample``; both (batch * n_candidates, horizon, dim), in environment units. Returns True
        to stop there, which makes that estimate the result."""


class TrajectorySampler(ABC):
    """Capability: draw whole trajectories that meet pins, bent by a guide."""

    @abstractmethod
    def plan_times(self, last_time: int) -> Tensor:
        """(horizon,) int64: rows of a plan that covers environment step ``last_time``."""

    @abstractmethod
    def sample(  # noqa: PLR0913  one more than usual: what a plan must, should and may be
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
        """Trajectories (batch, n_candidates, horizon, dim) in environment units."""


class ArrivalEstimator(ABC):
    """Capability: how soon the data's behavior could bring one observation to another."""

    @abstractmethod
    def arrival_time(self, observation: Tensor, goal: Tensor, *, threshold: float) -> Tensor:
        """(batch,) int64 environment steps; see the model for what ``threshold`` means."""

    @abstractmethod
    def plausibility(self, plans: Trajectory, arrival: Tensor) -> Tensor | None:
        """(batch, candidates): how well the rows up to ``arrival`` (batch,) follow one another as
        in the data, higher is better; None if this model was trained without a judge."""


class Actor(ABC):
    """Capability: act at once, without a plan."""

    @abstractmethod
    def act(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """Actions (batch, A) for observations (batch, O), and goals (batch, O) if it wants them,
        all in environment units."""


class ValueModel(ABC):
    """Capability: how much reward is to come, in the data's own units of reward."""

    discount: float
    wants_goal: bool
    """whether the values are for reaching a goal, which must be given then"""

    @abstractmethod
    def action_value(
        self, observation: Tensor, action: Tensor, goal: Tensor | None = None
    ) -> Tensor:
        """Q (batch,): discounted rewards from observations (batch, O) on, the actions (batch, A)
        taken first, all in environment units; goals (batch, O) for those who want them."""

    @abstractmethod
    def state_value(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """V (batch,): the same without a choice of the first action."""


class Explorer(ABC):
    """Capability: gather data by oneself, as agents that learn online do."""

    @abstractmethod
    def fit_ranges(self, action_box: np.ndarray, observations: np.ndarray | None) -> None:
        """Set the buffers of normalizers: from the environment's lowest and highest action (2, A),
        and from observations (n, O) if they are to be normalized."""

    def fit_steps(self, steps: Transitions) -> None:
        """Set what else depends on the data, from all random steps; default: nothing."""
        return

    @abstractmethod
    def explore(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Random actions (batch, A) for observations (batch, O), in environment units."""

    @abstractmethod
    def actor_state(self) -> dict[str, Tensor]:
        """The part of the state dict that acting needs, for small snapshots."""


class OccupancyModel(ABC):
    """Capability: draw the state at which a process that ends with probability 1 - ``discount``
    after every step would end, under one policy (thesis Eq. 2.2)."""

    discount: float

    @abstractmethod
    def sample(
        self,
        observation: Tensor,
        action: Tensor,
        n_samples: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """States (batch, n_samples, O) from observations (batch, O) and the actions (batch, A)
        taken there, in environment units."""


class DensityModel(ABC):
    """Capability: how likely a state is."""

    @abstractmethod
    def log_prob(self, state: Tensor, observation: Tensor, action: Tensor) -> Tensor:
        """(batch,) log density of states (batch, O), in environment units, given observations
        (batch, O) and actions (batch, A)."""


class TokenState(ABC):
    """Sequences of tokens that grow together: ``beams`` for each environment of a batch.

    The known prefix (goal, history, observation) is the same for all beams of an environment. The
    next token is the next dimension of a transition, laid out as the model says.
    """

    network_calls: int
    """passes through the network so far, over all beams at a time"""

    @property
    @abstractmethod
    def tokens(self) -> Tensor:
        """(batch, beams, n) int64: what has been appended since the prefix; to be read only."""

    @property
    def beams(self) -> int:
        """Sequences of each environment; one at first."""
        return self.tokens.shape[1]

    @abstractmethod
    def next_logits(self) -> Tensor:
        """(batch, beams, V) of the next token, or V + 1 with the stop token's at last where the
        model can tell an end. -inf where a column has no such token. To be read only."""

    @abstractmethod
    def append(self, tokens: Tensor) -> None:
        """Add one token (batch, beams) to every sequence. Raises ValueError for one that is not in
        the vocabulary or if the sequences would grow longer than the model's context."""

    @abstractmethod
    def select(self, indices: Tensor) -> None:
        """Keep, copy or reorder sequences: (batch, new beams) indices of old ones."""

    @abstractmethod
    def latest(self, count: int) -> Tensor:
        """(batch, beams, count): the last tokens of every sequence, its prefix included."""


class TokenModel(ABC):
    """Capability: predict trajectories token by token (thesis Chapter 4)."""

    tokens: TrajectoryTokens
    """from environment units to tokens and back, and the layout of a transition"""

    window: int
    """most transitions, past and planned, of one sequence"""

    rolls: bool = False
    """whether sequences may grow beyond the window, for ever"""

    wants_goal: bool = False
    """whether ``begin`` must be given a goal"""

    @abstractmethod
    def begin(
        self,
        history: Trajectory | None,
        observation: Tensor,
        goal: Tensor | None = None,
        *,
        cache: bool = True,
        crop: int = 0,
        expected: int = 0,
    ) -> TokenState:
        """Sequences after past transitions (batch, c, dim), the observation (batch, O) and the goal
        (batch, O), in environment units; NaN marks a hidden dimension of an observation.

        history: rewards and returns-to-go that it lacks are filled in by the model; its context,
            if the model wants one, belongs to the episode
        cache: keep what the network has computed; without it, every token is a pass over all
        crop: where a sequence would outgrow the context, go on with its latest ``crop`` transitions
            (the current one is one of them), computed anew; 0 = refuse
        expected: tokens that will be appended, to reserve memory
        """


class DynamicsModel(Protocol):
    """Capability: what one step leads to. A protocol, so that simulators can offer it too.

    Rewards are the planner's business: it is given a function of what is reached.
    """

    def step(
        self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Observations (n, O) that follow (n, O) under actions (n, A), in environment units."""
        ...


Capability = TypeVar("Capability")


def require(model: Model, capability: type[Capability], *, needed_by: str) -> Capability:
    """``model`` as ``capability``; ValueError saying what the model offers if it lacks it."""
    if isinstance(model, capability):
        return model
    bases = (TrajectorySampler, ArrivalEstimator, Actor, Explorer, OccupancyModel, DensityModel)
    bases = (*bases, ValueModel, TokenModel)
    offered = [base.__name__ for base in bases if isinstance(model, base)]
    raise ValueError(
        f"{needed_by} needs a model that is a {capability.__name__}; {type(model).__name__} offers "
        f"{', '.join(offered) or 'no planning capability'}"
    )
