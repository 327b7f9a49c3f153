"""Laws of the curves that embeddings of bins begin on."""

import pytest
import torch

from forethought.nn.embeddings import init_along_curves

COLUMNS, VOCABULARY, WIDTH = 5, 40, 64


@pytest.fixture
def curves():
    torch.manual_seed(0)
    weight = torch.empty(COLUMNS * VOCABULARY, WIDTH)
    init_along_curves(weight, VOCABULARY, std=0.1)
    return weight.view(COLUMNS, VOCABULARY, WIDTH)


def likeness(a, b):
    return torch.cosine_similarity(a, b, dim=-1).mean().item()


def test_neighboring_bins_are_alike_and_distant_ones_are_not(curves):
    by_distance = [likeness(curves[:, d:], curves[:, : VOCABULARY - d]) for d in (1, 4, 12, 30)]
    assert by_distance[0] > 0.95
    assert by_distance == sorted(by_distance, reverse=True)


def test_columns_have_curves_of_their_own(curves):
    assert abs(likeness(curves[0], curves[1])) < 0.4


def test_they_have_the_spread_asked_for_and_can_be_trained(curves):
    assert curves.std().item() == pytest.approx(0.1, rel=1e-4)
    layer = torch.nn.Embedding(COLUMNS * VOCABULARY, WIDTH)
    init_along_curves(layer.weight, VOCABULARY, std=0.1)
    layer(torch.arange(3)).sum().backward()
    assert layer.weight.grad is not None
