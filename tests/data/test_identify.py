"""What a controller must know is in the log."""

import numpy as np
import pytest

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.data.identify import identify_pursuit
from forethought.datasets.maze import build_maze
from forethought.registry import recipes


def double_integrator(n_episodes: int = 3, steps: int = 200) -> EpisodeDataset:
    """v' = v + 0.3 a, x' = x + 0.02 v', and an action in the other order of columns."""
    generator, episodes = np.random.default_rng(0), []
    for _ in range(n_episodes):
        actions = generator.uniform(-1, 1, (steps, 2)).astype(np.float32)
        velocity = np.concatenate([np.zeros((1, 2)), np.cumsum(0.3 * actions, axis=0)])
        position = np.cumsum(0.02 * velocity, axis=0) + generator.normal(size=2)
        observations = np.concatenate([velocity, position], axis=1).astype(np.float32)
        rewards = np.zeros(steps, np.float32)
        episodes.append(
            Episode(observations=observations, actions=actions, rewards=rewards, terminated=False)
        )
    return EpisodeDataset.from_episodes(episodes)


def test_a_double_integrator_is_identified():
    found = identify_pursuit(double_integrator(), (2, 3), (0, 1), distance=1.5)
    np.testing.assert_allclose(
        (found.acceleration, found.step_seconds, found.distance), (0.3, 0.02, 1.5), rtol=1e-3
    )
    with pytest.raises(ValueError, match="one observation dimension for each of the 2 actions"):
        identify_pursuit(double_integrator(), (2,), (0, 1), distance=1.0)


@pytest.mark.parametrize("layout", ["umaze", "large"])
def test_the_maze_recipes_hold_what_the_log_shows(layout):
    dataset = build_maze(layout, seed=0, n_steps=20_000)
    known = recipes[f"diffuser/maze-{layout}"]().control.pursuit
    found = identify_pursuit(dataset, known.position, known.velocity, distance=known.distance)
    np.testing.assert_allclose(found.acceleration, known.acceleration, rtol=0.02)
    np.testing.assert_allclose(found.step_seconds, known.step_seconds, rtol=0.02)
    assert 5.0 < found.speed <= known.speed
