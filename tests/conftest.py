"""Small data and one small model that many tests share."""

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.diffuser import Diffuser, DiffuserConfig

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

# 16 channels, not 8: GroupNorm has 8 groups, and a group of one channel cancels its bias exactly
TINY = {
    "horizon": 8,
    "pad": "repeat",
    "denoising_steps": 8,
    "dim": 16,
    "dim_mults": (1, 2),
    "blocks_per_level": 1,
    "reach_width": 16,
}


def smooth_episode(steps: int, generator: np.random.Generator) -> Episode:
    """Sums of two random sinusoids per dimension: 3 observation and 2 action dimensions."""
    time = np.arange(steps + 1)[:, None, None]
    frequency = generator.uniform(0.05, 0.4, (1, 5, 2))
    phase = generator.uniform(0, 2 * np.pi, (1, 5, 2))
    waves = np.sin(frequency * time + phase).sum(axis=-1).astype(np.float32)
    rewards = waves[1:, 0].copy()
    return Episode(waves[:, :3], waves[:-1, 3:], rewards, terminated=bool(steps % 2))


@pytest.fixture(scope="session")
def dataset() -> EpisodeDataset:
    """Twelve ragged episodes of 5 to 30 steps; some are shorter than a tiny model's window."""
    generator = np.random.default_rng(0)
    lengths = [5, 30, *generator.integers(6, 30, size=10)]
    dataset = EpisodeDataset.from_episodes([smooth_episode(int(n), generator) for n in lengths])
    dataset.contexts = generator.integers(3, size=(len(dataset), 5, 4)).astype(np.uint8)
    return dataset


@pytest.fixture
def tiny_config() -> DiffuserConfig:
    """The smallest Diffuser that has every part, observations and actions, stride 1."""
    return DiffuserConfig(
        **TINY, condition_in_training="start_and_goal_time", mark_pins=True, reach_pairs=16
    )


@pytest.fixture
def tiny_model(tiny_config: DiffuserConfig, dataset: EpisodeDataset) -> Diffuser:
    """Untrained, with statistics: enough for every law that does not ask for good plans."""
    torch.manual_seed(0)
    model = tiny_config.build(dataset.spaces)
    model.fit_statistics(dataset)
    return model.eval().requires_grad_(False)
