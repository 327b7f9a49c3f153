"""Gamma-models (thesis Chapter 3): a linear system with known answers, and the thesis's tasks.

``gamma/TASK-{flow,gan,td2}`` predict at one discount, 0.95; ``-td2-all`` takes the discount as an
input and answers for all up to 0.995. The policy asked about is ``pretrained/sac/TASK``, in the
data set ``TASK-policy``; the linear system's is the one that made its data. Sizes are for at most
about 20 minutes of one core. ``-thesis`` are Tables A.1 and A.2, with the released code's number
of steps; sigma is in environment units, but observations are normalized, which that code does not.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from forethought.config import Experiment, ModelConfig, TrainConfig
from forethought.models.gamma_base import GammaConfig
from forethought.models.gamma_flow import GammaFlowConfig
from forethought.models.gamma_gan import GammaGANConfig
from forethought.models.gamma_matching import GammaMatchingConfig
from forethought.registry import recipes

TASKS = (
    "pendulum",
    "acrobot",
    "mountain-car",
    "reacher",
    "hopper",
    "walker2d",
    "halfcheetah",
)
MOST_DISCOUNT = 0.995


def gamma_experiment(
    name: str,
    dataset: str,
    env: str,
    model: ModelConfig,
    *,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> Experiment:
    """A gamma-model of ``dataset``, judged in ``env``: it predicts and has no planner.

    Weights are averaged and the step size decays to zero, but for a GAN: its step size is constant
    and its gradients are not clipped, for two adversaries share one loss.
    """
    adversarial = isinstance(model, GammaGANConfig)
    return Experiment(
        name=name,
        dataset=dataset,
        env=env,
        model=model,
        train=TrainConfig(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule="constant" if adversarial else "cosine",
            max_gradient_norm=0.0 if adversarial else 1.0,
            ema_decay=0.999,
            precision="fp32",
            save_every=2_000,
            log_every=500,
        ),
    )


def flow(policy: str = "") -> GammaFlowConfig:
    """The spline flow, smaller than the thesis's."""
    return GammaFlowConfig(transforms=4, width=128, policy=policy)


def gan(policy: str = "") -> GammaGANConfig:
    """The GAN with 4 states for every step of the batch."""
    return GammaGANConfig(samples=4, policy=policy)


def matching(
    policy: str = "",
    *,
    objective: Literal["td", "coupled", "td2"] = "td2",
    most_discount: float = 0.0,
) -> GammaMatchingConfig:
    """Flow matching with a network of two blocks."""
    return GammaMatchingConfig(
        objective=objective, width=128, blocks=2, most_discount=most_discount, policy=policy
    )


def linear(kind: str) -> Experiment:
    """A gamma-model of the linear-Gaussian system, whose occupancy has a closed form."""
    models = {
        "flow": (flow(), 15_000, 1e-3),
        "gan": (gan(), 15_000, 1e-4),
        "td": (matching(objective="td"), 40_000, 1e-3),
        "td2": (matching(), 40_000, 1e-3),
    }
    model, steps, rate = models[kind]
    name, env = f"gamma/linear-{kind}", "forethought/linear-2-v0"
    return gamma_experiment(name, "linear-2", env, model, steps=steps, learning_rate=rate)


def task(name: str, kind: str) -> Experiment:
    """A gamma-model of a trained policy in one of the thesis's tasks, or in locomotion."""
    policy = f"pretrained/sac/{name}"
    models = {
        "flow": (flow(policy), 20_000, 1e-3),
        "gan": (gan(policy), 30_000, 1e-4),
        "td2": (matching(policy), 60_000, 1e-3),
        "td2-all": (matching(policy, most_discount=MOST_DISCOUNT), 60_000, 1e-3),
    }
    model, steps, rate = models[kind]
    title, env = f"gamma/{name}-{kind}", f"forethought/{name}-v0"
    return gamma_experiment(title, f"{name}-policy", env, model, steps=steps, learning_rate=rate)


for _kind in ("flow", "gan", "td", "td2"):
    recipes.register(f"gamma/linear-{_kind}")(partial(linear, _kind))
for _task in TASKS:
    for _kind in ("flow", "gan", "td2", "td2-all"):
        recipes.register(f"gamma/{_task}-{_kind}")(partial(task, _task, _kind))


@recipes.register("gamma/pendulum-flow-thesis")
def pendulum_flow_thesis() -> Experiment:
    """Algorithm 3 at the size of Table A.2, with the released code's number of steps."""
    model = GammaFlowConfig(
        transforms=6,
        width=256,
        bins=16,
        bound=10.0,
        sigma=0.1,
        sigma_unit="raw",
        target_rate=5e-3,
        policy="pretrained/sac/pendulum",
    )
    return _thesis("gamma/pendulum-flow-thesis", model, batch_size=1024)


@recipes.register("gamma/pendulum-gan-thesis")
def pendulum_gan_thesis() -> Experiment:
    """Algorithm 2 at the size of Table A.1."""
    model = GammaGANConfig(
        width=256,
        samples=512,
        objective="original",
        target_rate=5e-3,
        policy="pretrained/sac/pendulum",
    )
    return _thesis("gamma/pendulum-gan-thesis", model, batch_size=128)


def _thesis(name: str, model: GammaConfig, *, batch_size: int) -> Experiment:
    train = TrainConfig(
        steps=50_000,
        batch_size=batch_size,
        learning_rate=1e-4,
        warmup_steps=0,
        schedule="constant",
        max_gradient_norm=0.0,
        ema_decay=0.0,
        precision="fp32",
        save_every=500,
    )
    return Experiment(
        name=name,
        dataset="pendulum-policy",
        env="forethought/pendulum-v0",
        model=model,
        train=train,
    )
