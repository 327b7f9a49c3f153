"""Settings as the thesis prints them and as the code was released, beside what is known of both."""

import numpy as np
import pytest

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.registry import recipes

SIZES = {"hopper": (11, 3), "walker2d": (17, 6), "halfcheetah": (17, 6)}
PUBLISHED = [
    name for name in recipes if name.startswith("transformer/") and "-flat" not in name
    and name.endswith(("-thesis", "-released"))
]  # fmt: skip


def data_of(name: str) -> EpisodeDataset:
    observation_dim, action_dim = SIZES[name.split("/")[1].split("-")[0]]
    noise = np.random.default_rng(0)
    episode = Episode(
        noise.normal(size=(31, observation_dim)),
        noise.normal(size=(30, action_dim)),
        noise.normal(size=30),
    )
    return EpisodeDataset.from_episodes([episode])


def test_every_data_set_has_both_but_for_imitation_which_was_not_released():
    assert len(PUBLISHED) == 3 * (4 + 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_planners_fit_the_models(name):
    experiment, data = recipes[name](), data_of(name)
    model = experiment.model.build(data.spaces)
    model.fit_statistics(data)
    experiment.require_planner().build(model.eval())
    assert experiment.name == name and f"transformer/{experiment.dataset}-" in name


@pytest.mark.parametrize(("task", "millions"), [("hopper", 1.23), ("walker2d", 1.47)])
def test_the_released_network_is_as_large_as_published(task, millions):
    name = f"transformer/{task}-medium-released"
    model = recipes[name]().model.build(data_of(name).spaces)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_thesis_trains_for_80_epochs():
    train = recipes["transformer/hopper-medium-thesis"]().train
    assert train.steps == 80 * 200_000 // 256 and train.learning_rate == 2.5e-4
    assert train.warmup_steps == 2_000 and train.batch_size == 256
