"""Attention weights computed anew are those that the network uses."""

import numpy as np
import pytest
import torch

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.transformer import TransformerConfig
from forethought.nn.gpt import GPT
from forethought.studies.figure_4_4 import shares_of

OPTIONS = {
    "plain": {},
    "rotary": {"position_kind": "rotary"},
    "band": {"position_kind": "rotary", "band": 3},
    "hidden": {},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_weights_reproduce_the_output_and_sum_to_one(option: str):
    torch.manual_seed(0)
    gpt = GPT(width=8, depth=2, heads=2, positions=7, **OPTIONS[option]).double().eval()
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    hidden = torch.arange(7) == 4 if option == "hidden" else None
    tables = gpt.attention(x, hidden)
    torch.testing.assert_close(tables.sum(dim=-1), torch.ones(2, 3, 2, 7, dtype=torch.float64))
    assert bool((tables.triu(1) == 0).all())
    # pass on what the tables mix, block by block
    out, rotation = gpt._place(x, 0), gpt._rotation(0, 7, x)
    for block, table in zip(gpt._blocks(), tables, strict=True):
        value = block.project(out, rotation)[2]
        out = block.finish(out, table @ value)
    torch.testing.assert_close(gpt.norm(out), gpt(x, hidden))


def small_model():
    rng = np.random.default_rng(0)
    episodes = [
        Episode(rng.normal(size=(20, 2)), rng.uniform(-1, 1, (19, 1)), np.zeros(19))
        for _ in range(3)
    ]
    dataset = EpisodeDataset.from_episodes(episodes)
    config = TransformerConfig(
        context=3,
        horizon=4,
        n_bins=6,
        width=16,
        depth=2,
        heads=2,
        reward_token=False,
        return_token="none",
    )
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    return model.eval(), config.view(dataset)[np.arange(4)]


def test_a_prediction_attends_to_earlier_tokens_only():
    model, windows = small_model()
    tables = model.attention(windows)
    assert tables.shape == (2, 4, 2, 21, 20)
    # row k may see tokens 0 .. k - 1, which are columns 0 .. k - 1
    future = torch.ones(21, 20).triu() > 0
    assert bool((tables[..., future] == 0).all())
    # without the begin vector's share
    assert float(tables.sum(dim=-1).max()) < 1
    torch.testing.assert_close(tables[..., 0, :].sum(), torch.tensor(0.0))


def test_shares_tell_a_markov_head_from_a_striped_one():
    layout = small_model()[0].tokens
    n, columns = 21, layout.columns
    markov, striped = np.zeros((n, n - 1)), np.zeros((n, n - 1))
    for k in range(2 * columns, n):
        markov[k, k - columns : k] = 1 / columns
        striped[k, k - 2 * columns] = 1.0
    assert shares_of(markov, layout)["markov"] == pytest.approx(1.0)
    assert shares_of(markov, layout)["striped"] == 0
    found = shares_of(striped, layout)
    assert (found["striped"], found["markov"]) == (1.0, 0.0)
    assert (found["action_to_actions"], found["action_to_observations"]) == (1.0, 0.0)
