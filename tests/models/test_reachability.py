"""The arrival-time classifier against a data set whose arrival times are known."""

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.diffuser import Diffuser, DiffuserConfig

HORIZON = 12


def moving_right(stride: int) -> EpisodeDataset:
    """A point on a line at speed 1 per row of a window, from random places."""
    generator = np.random.default_rng(0)
    steps = np.arange(30 * stride + 1)[:, None] / stride
    episodes = []
    for _ in range(40):
        observations = (generator.uniform(-20, 20) + steps).astype(np.float32)
        taken = len(steps) - 1
        episodes.append(
            Episode(observations, np.ones((taken, 1), np.float32), np.zeros(taken, np.float32))
        )
    return EpisodeDataset.from_episodes(episodes)


def untrained(stride: int, reach_pairs: int, dataset: EpisodeDataset) -> Diffuser:
    torch.manual_seed(0)
    config = DiffuserConfig(
        horizon=HORIZON,
        stride=stride,
        actions="none",
        pad="repeat",
        denoising_steps=4,
        dim=8,
        dim_mults=(1,),
        blocks_per_level=1,
        reach_pairs=reach_pairs,
        reach_width=64,
    )
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    return model


@pytest.mark.parametrize("stride", [1, 3])
def test_arrival_time_is_within_a_row_of_the_true_one(stride):
    dataset = moving_right(stride)
    model = untrained(stride, 512, dataset)
    view, order = model.config.view(dataset), np.random.default_rng(0)
    noise, steps = torch.Generator().manual_seed(0), 300
    optimizer = torch.optim.Adam(model.reachability.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for _ in range(steps):
        batch = view[order.integers(len(view), size=64)]
        z = model.observation_normalizer.normalize(batch.observations)
        optimizer.zero_grad()
        model.reachability.loss(z, batch.observation_mask, 512, noise).backward()
        optimizer.step()
        decay.step()
    rows = torch.arange(1, HORIZON).repeat_interleave(30)
    start = torch.linspace(-10, 10, 30).repeat(HORIZON - 1)[:, None]
    arrival = model.arrival_time(start, start + rows[:, None], threshold=1.0)
    assert arrival.shape == (len(start),) and not arrival.is_floating_point()
    assert int((arrival - rows * stride).abs().max()) <= stride


def test_arrival_time_is_the_first_likely_one_else_the_likeliest():
    dataset = moving_right(2)
    model = untrained(2, 1, dataset)
    logits = torch.full((3, HORIZON - 1), -5.0)
    logits[0, 4], logits[0, 7] = 2.0, 9.0  # both likely: the earlier, k = 5
    logits[1, 7], logits[1, 4] = 2.0, 0.5  # one likely: k = 8
    logits[2, 2] = -1.0  # none likely: the likeliest, k = 3
    model.reachability.forward = lambda z_observation, z_goal: logits
    zeros = torch.zeros(3, 1)
    arrival = model.arrival_time(zeros, zeros, threshold=1.0)
    assert arrival.tolist() == [10, 16, 6]


def test_padded_rows_do_not_enter_the_loss():
    model = untrained(1, 64, moving_right(1))
    z = torch.randn(8, HORIZON, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(HORIZON) < torch.tensor([12, 3, 7, 2, 12, 9, 5, 4])[:, None]
    losses = [
        model.reachability.loss(
            torch.where(mask[..., None], z, padding), mask, 64, torch.Generator().manual_seed(1)
        )
        for padding in (0.0, 50.0)
    ]
    assert losses[0].item() == losses[1].item()


def test_diffuser_without_a_classifier_refuses_arrival_times():
    model = untrained(1, 0, moving_right(1))
    with pytest.raises(ValueError, match="without an arrival-time classifier.*planner.length"):
        model.arrival_time(torch.zeros(1, 1), torch.ones(1, 1), threshold=1.0)
