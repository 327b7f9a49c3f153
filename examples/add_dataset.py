"""Add a data set: one registered, seeded function that returns an EpisodeDataset.

Episodes may come from anywhere: your logs, an importer, or a scripted controller as here. From then
on the name works everywhere: ``forethought train --data`` takes the folder that ``save`` writes.
"""

import tempfile
from pathlib import Path

import numpy as np

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.views import Windows
from forethought.registry import datasets


@datasets.register("example-circles")
def build_circles(seed=0, n_steps=2_000, on_progress=None):
    """Points driven around circles of random radius; observation (x, y), action (dx, dy)."""
    generator = np.random.default_rng(seed)
    episodes = []
    for _ in range(max(1, n_steps // 100)):
        angle = generator.uniform(0, 2 * np.pi) + 0.1 * np.arange(101)
        points = generator.uniform(0.5, 1.0) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        actions = np.diff(points, axis=0)
        episodes.append(Episode(points, actions.astype(np.float32), np.zeros(100)))
    return EpisodeDataset.from_episodes(episodes, builder="example-circles", seed=seed)


if __name__ == "__main__":
    dataset = datasets["example-circles"](seed=1)
    with tempfile.TemporaryDirectory() as folder:
        dataset.save(Path(folder) / "circles")
        reopened = EpisodeDataset.open(Path(folder) / "circles")
        window = Windows(reopened, horizon=16, stride=4)[np.arange(8)]
        print(f"{len(reopened)} episodes; a batch of windows {tuple(window.observations.shape)}")
