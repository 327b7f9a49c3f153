"""Settings as frozen dataclasses, and their JSON form.

Each model's and each planner's settings class sits beside the class it configures. This file holds
what they share: training and control settings, the ``Experiment`` that a recipe returns, and a JSON
round trip in which a settings class is named by its registry entry ("kind"). Unknown keys are
refused.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from forethought.registry import did_you_mean, models, planners

if TYPE_CHECKING:  # for annotations only: layer 0 imports nothing above it
    from forethought.data.episodes import EpisodeDataset
    from forethought.data.views import View
    from forethought.models.base import Actor, Model
    from forethought.planners.base import Planner
    from forethought.types import Spaces


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """Settings of one model class: how to see the data, how to build it empty."""

    @abstractmethod
    def view(self, dataset: EpisodeDataset) -> View:
        """The batches this model trains on."""

    @abstractmethod
    def build(self, spaces: Spaces) -> Model:
        """An untrained model with the right shapes, so that a checkpoint can be loaded into it."""


@dataclass(frozen=True, kw_only=True)
class PlannerConfig(ABC):
    """Settings of one planner class."""

    @abstractmethod
    def build(self, model: Model) -> Planner | Actor:
        """The planner over a trained model (or the model, if it acts by itself); raises if the
        model lacks what it needs."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop; defaults suit small models on a CPU."""

    steps: int = 20_000
    """optimizer steps"""
    batch_size: int = 64
    """windows or transitions per step"""
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    """on matrices only"""
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 200
    """linear warm-up from zero"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """after the warm-up; cosine decays to zero at the last step"""
    max_gradient_norm: float = 1.0
    """global clipping; 0 turns it off"""
    ema_decay: float = 0.999
    """of the weights that plan; 0 turns averaging off"""
    ema_every: int = 1
    """optimizer steps between averages"""
    ema_start: int = 0
    """before this step the average is a copy"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the hardware multiplies it natively, else fp32"""
    compile: bool = False
    """torch.compile the loss (needs a C++ compiler on a CPU)"""
    save_every: int = 1_000
    """steps between training states; also saved at the end and on Ctrl-C"""
    log_every: int = 100
    seed: int = 0
    """data order, initial weights and training noise"""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "log_every", "ema_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"train.learning_rate is {self.learning_rate}; it must be positive")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay is {self.ema_decay}; it must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """How an agent gathers its own data; all steps counted here are environment steps."""

    n_envs: int = 1
    """environments side by side: one call of the policy serves them all"""
    steps_per_update: float = 1.0
    """environment steps for each optimizer step; below 1: several updates a step"""
    random_steps: int = 10_000
    """taken uniformly at random before the first update"""
    buffer_size: int = 1_000_000
    """latest steps that are learned from"""
    normalize_observations: bool = False
    """to mean 0 and deviation 1 over the random steps, once"""
    evaluate_every: int = 10_000
    evaluation_episodes: int = 10
    """with the policy's mode, on the same starts each time"""
    evaluation_seed: int = 1_000
    snapshots: int = 20
    """of the actor, evenly over the run, each at an evaluation"""

    def __post_init__(self) -> None:
        for name in ("n_envs", "buffer_size", "evaluate_every", "evaluation_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"online.{name} is {getattr(self, name)}; it must be at least 1")
        if self.steps_per_update <= 0:
            raise ValueError(
                f"online.steps_per_update is {self.steps_per_update}; it must be positive"
            )
        if self.random_steps < 1 or self.snapshots < 0:
            raise ValueError(
                f"online.random_steps is {self.random_steps} and online.snapshots "
                f"{self.snapshots}; the first must be at least 1, the second not negative"
            )


@dataclass(frozen=True, kw_only=True)
class PursuitConfig:
    """What ``pursue_path`` must know of the system; measure it from the log (units as there)."""

    position: tuple[int, ...] = ()
    """observation dimensions of the position, one per action"""
    velocity: tuple[int, ...] = ()
    """observation dimensions of the velocity, one per action"""
    distance: float = 1.0
    """how far ahead along the path to aim"""
    speed: float = 1.0
    """largest speed of a coordinate"""
    acceleration: float = 1.0
    """change of a coordinate's velocity in one environment step, per unit of action"""
    step_seconds: float = 1.0
    """change of a coordinate's position in one environment step, per unit of velocity"""


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """How a plan becomes actions (see ``forethought.policy``)."""

    controller: Literal["follow_actions", "track_observations", "pursue_path"] = (
        "track_observations"
    )
    """follow the plan's actions, its observations by the clock, or its path as fast as possible"""
    gains: tuple[tuple[float, ...], ...] = ()
    """track_observations: action = gains @ (planned - observed), one row per action dimension"""
    look_ahead: float = 1.0
    """track_observations: environment steps ahead of now at which the plan is read"""
    replan_every: int = 0
    """environment steps between plans; 0 = plan once"""
    goal_time: Literal["fixed", "receding"] = "fixed"
    """when replanning: keep the first plan's arrival time, or choose a new one"""
    settled_within: tuple[float, ...] = ()
    """keep the plan while the observation's first dimensions are this close to its last row
    (environment units, one number each; empty = always plan when due)"""
    together: bool = False
    """plan for all environments that are due in one batch, which is faster for small networks; not
    with goal_time fixed"""
    pursuit: PursuitConfig = PursuitConfig()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that makes a result: data, model, training, planning. A recipe returns one."""

    name: str
    dataset: str
    """name of a registered data set, or path of a data-set folder; empty for online agents"""
    env: str
    """Gymnasium id of the environment to evaluate in"""
    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    planner: PlannerConfig | None = None
    """None for a model that predicts and does not act"""
    control: ControlConfig = field(default_factory=ControlConfig)
    online: OnlineConfig | None = None
    """for agents that gather their own data"""

    def require_planner(self) -> PlannerConfig:
        """Its planner; ValueError if it has none."""
        if self.planner is None:
            raise ValueError(
                f"{self.name} predicts and does not act: it has no planner. `forethought evaluate` "
                "scores its predictions; what else can be asked of it is in docs/gamma.md"
            )
        return self.planner


_REGISTRIES = {ModelConfig: models, PlannerConfig: planners}


def to_json(value: Any) -> Any:
    """A JSON-able form of a settings dataclass (or of a plain value inside one)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        for base, registry in _REGISTRIES.items():
            if isinstance(value, base):
                data = {"kind": registry.name_of(type(value)), **data}
        return data
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: Any, data: Any, *, where: str = "config") -> Any:
    """The inverse of ``to_json``: build an instance of the type ``kind``.

    Raises ValueError naming the place for an unknown key, a missing key or a value of the wrong
    type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if data is None else from_json(options[0], data, where=where)
    if origin is Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{where} is {data!r}; expected one of {typing.get_args(kind)}")
        return data
    if origin is tuple:
        return _tuple_from_json(kind, data, where)
    if dataclasses.is_dataclass(kind) or kind in _REGISTRIES:
        return _dataclass_from_json(kind, data, where)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    is_wrong = isinstance(kind, type) and not isinstance(data, kind)
    if is_wrong or (kind is int and isinstance(data, bool)):  # a bool is an int to Python
        raise ValueError(f"{where} is {data!r}; expected a value of type {kind.__name__}")
    return data


def _tuple_from_json(kind: Any, data: Any, where: str) -> tuple:
    if not isinstance(data, list):
        raise ValueError(f"{where} is {data!r}; expected a list")
    args = typing.get_args(kind)
    item_types = [args[0]] * len(data) if args[-1] is Ellipsis else list(args)
    if len(item_types) != len(data):
        raise ValueError(f"{where} has {len(data)} items; expected {len(item_types)}")
    pairs = enumerate(zip(item_types, data, strict=True))
    return tuple(from_json(item, value, where=f"{where}[{i}]") for i, (item, value) in pairs)


def _dataclass_from_json(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {data!r}; expected an object")
    data = dict(data)
    registry = next((_REGISTRIES[base] for base in _REGISTRIES if issubclass(kind, base)), None)
    if registry is not None:
        if "kind" not in data:
            raise ValueError(f"{where} names no 'kind'; is the file from another program?")
        name, wanted = data.pop("kind"), kind
        kind = registry[name]
        if not issubclass(kind, wanted):
            raise ValueError(f"{where} is of kind {name!r}; expected a {wanted.__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in data:
        if key not in known:
            message = did_you_mean(key, sorted(known), kind="setting")
            raise ValueError(f"{where}: {message} Was it written by a newer forethought?")
    values = {
        key: from_json(hints[key], item, where=f"{where}.{key}") for key, item in data.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
