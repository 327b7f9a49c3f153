"""Losses of the recipes after 20 steps on a small data set; change them on purpose only.

Print new values with ``python tests/test_golden.py``.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from forethought.config import ModelConfig, TrainConfig
from forethought.data.episodes import EpisodeDataset
from forethought.models.diffuser import DiffuserConfig
from forethought.models.gamma_base import GammaConfig
from forethought.registry import recipes
from forethought.training import TrainingRun

LOSSES = {
    "transformer/four-rooms": 4.574030,
    "transformer/multiroom": 3.090982,
    "bc/maze-large-stitch": 0.281218,
    "bc/maze-medium-stitch": 0.281218,
    "diffuser/maze-large": 1.689249,
    "diffuser/maze-medium": 1.748157,
    "diffuser/maze-umaze": 1.816224,
    "diffuser/maze-umaze-released": 0.483620,
    "diffuser/maze-umaze-thesis": 1.088776,
    "gamma-mve/acrobot": 44.499063,
    "gamma-mve/mountain-car": 54.210016,
    "gamma-mve/pendulum": 44.499063,
    "gamma-mve/reacher": 54.210016,
    "gamma/acrobot-flow": 1.424861,
    "gamma/acrobot-gan": 1.419119,
    "gamma/acrobot-td2": 0.098347,
    "gamma/acrobot-td2-all": 0.339041,
    "gamma/halfcheetah-flow": 1.424861,
    "gamma/halfcheetah-gan": 1.419119,
    "gamma/halfcheetah-td2": 0.098347,
    "gamma/halfcheetah-td2-all": 0.339041,
    "gamma/hopper-flow": 1.424861,
    "gamma/hopper-gan": 1.419119,
    "gamma/hopper-td2": 0.098347,
    "gamma/hopper-td2-all": 0.339041,
    "gamma/linear-flow": 1.424863,
    "gamma/linear-gan": 1.419119,
    "gamma/linear-td": 2.306688,
    "gamma/linear-td2": 0.098347,
    "gamma/mountain-car-flow": 1.424861,
    "gamma/mountain-car-gan": 1.419119,
    "gamma/mountain-car-td2": 0.098347,
    "gamma/mountain-car-td2-all": 0.339041,
    "gamma/pendulum-flow": 1.424861,
    "gamma/pendulum-gan": 1.419119,
    "gamma/pendulum-td2": 0.098347,
    "gamma/pendulum-td2-all": 0.339041,
    "gamma/reacher-flow": 1.424861,
    "gamma/reacher-gan": 1.419119,
    "gamma/reacher-td2": 0.098347,
    "gamma/reacher-td2-all": 0.339041,
    "gamma/walker2d-flow": 1.424861,
    "gamma/walker2d-gan": 1.419119,
    "gamma/walker2d-td2": 0.098347,
    "gamma/walker2d-td2-all": 0.339041,
    "iql/maze-large": 0.510811,
    "iql/maze-medium": 0.510811,
    "iql/maze-large-stitch": 18.319278,
    "iql/maze-medium-stitch": 18.319278,
    "iql/maze-umaze": 0.510811,
    "iql/multi-large": 0.817187,
    "iql/multi-medium": 0.817187,
    "iql/multi-umaze": 0.817187,
    "mbpo/acrobot": 0.067018,
    "mbpo/mountain-car": 0.084003,
    "mbpo/pendulum": 0.067018,
    "mbpo/reacher": 0.084003,
    "mve/acrobot": 42.198846,
    "mve/mountain-car": 53.371039,
    "mve/pendulum": 42.198846,
    "mve/reacher": 53.371039,
    "sac-often/acrobot": -0.826123,
    "sac-often/pendulum": -1.080501,
    "sac-small/acrobot": -0.826123,
    "sac-small/mountain-car": -0.826123,
    "sac-small/pendulum": -1.080501,
    "sac-small/reacher": -0.826123,
    "sac/acrobot": -1.107196,
    "sac/halfcheetah": -0.331631,
    "sac/hopper": -0.331631,
    "sac/mountain-car": -1.107196,
    "sac/pendulum": -1.107196,
    "sac/reacher": -1.107196,
    "sac/walker2d": -0.331631,
    "transformer/maze-large-stitch": 4.297824,
    "transformer/maze-medium-stitch": 4.297824,
}
LOCOMOTION = [
    (f"{task}-{quality}", quality == "expert")
    for task in ("hopper", "walker2d", "halfcheetah")
    for quality in ("medium", "medium-replay", "medium-expert", "expert")
]
for data, is_expert in LOCOMOTION:
    LOSSES |= {f"bc/{data}": 0.281218, f"iql/{data}": 0.603830}
    LOSSES[f"transformer/{data}"] = 4.478102 if is_expert else 4.23864
    LOSSES[f"transformer/{data}-uniform"] = 4.398706 if is_expert else 4.154108
    LOSSES[f"transformer/{data}-flat"] = 4.541216 if is_expert else 4.272466
    LOSSES[f"transformer/{data}-flat-uniform"] = 4.559481 if is_expert else 4.22918


@cache
def corridor() -> EpisodeDataset:
    """A smooth wander in four dimensions; no simulator, so that only our arithmetic is tested."""
    steps = np.arange(2_001)
    phases = np.array([[0.011, 0.3], [0.017, 1.1], [0.023, 2.0], [0.031, 0.7]])
    observations = np.sin(steps[:, None] * phases[:, 0] + phases[:, 1]).astype(np.float32)
    actions = observations[:, :2] * 0.5
    rewards = (observations[:, 0] > 0.9).astype(np.float32)
    starts, ended = np.array([0, 2_001]), np.array([False])
    maps = (np.arange(63).reshape(1, 7, 9) % 4).astype(np.uint8)
    return EpisodeDataset(observations, actions, rewards, starts, ended, contexts=maps)


def loss_after_20_steps(name: str) -> float:
    experiment = recipes[name]()
    return loss_of(experiment.model, experiment.train)


@cache  # recipes that differ in their data alone are run once
def loss_of(model_config: ModelConfig, train: TrainConfig) -> float:
    train = replace(train, batch_size=4, warmup_steps=5, precision="fp32")
    torch.manual_seed(0)
    model = model_config.build(corridor().spaces)
    model.fit_statistics(corridor())
    run = TrainingRun(model, train)
    if isinstance(model_config, DiffuserConfig):
        model_config = replace(model_config, cut="none")
    if isinstance(model_config, GammaConfig):  # the data's own actions: its policy has other sizes
        model_config = replace(model_config, policy="")
    view = model_config.view(corridor())
    for _ in range(20):
        run.advance(model, view)
    return run.take_metrics()["loss"]


@pytest.mark.parametrize("name", LOSSES)
def test_recipe_reaches_its_golden_loss(name):
    assert loss_after_20_steps(name) == pytest.approx(
        LOSSES[name], rel=1e-3
    )  # rounding differs by processor


def test_every_recipe_has_a_golden_loss():
    small = {name for name in recipes if "thesis" not in name and "released" not in name}
    assert small | {"diffuser/maze-umaze-thesis", "diffuser/maze-umaze-released"} <= set(LOSSES)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for recipe in sorted(recipes):
        if "umaze" in recipe or not recipe.endswith(("-thesis", "-released")):
            print(f'    "{recipe}": {loss_after_20_steps(recipe):.6f},')
