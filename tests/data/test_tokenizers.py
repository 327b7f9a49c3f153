"""Laws of the tokenizers."""

import numpy as np
import pytest
import torch

from forethought.data.tokenizers import Tokenizer

V = 20
RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.normal(size=5_000),
    "heavy-tailed": RNG.standard_cauchy(2_000),
    "awkward-count": RNG.normal(size=1_050),
    "few-rows": RNG.normal(size=7),
    "one-row": np.array([3.25]),
    "constant": np.full(500, -7.5),
    "zero": np.zeros(50),
    "constant-large": np.full(10, 1e7),
    "two-values": RNG.integers(0, 2, size=300).astype(float),
    "integers": RNG.integers(-4, 5, size=1_000).astype(float),
    "mostly-zero": np.where(RNG.random(2_000) < 0.9, 0.0, RNG.normal(size=2_000)),
    "penalty": np.where(RNG.random(2_000) < 0.01, -100.0, RNG.normal(3.0, 0.1, size=2_000)),
    "nearly-constant": 5.0 + 1e-7 * RNG.normal(size=400),
}
each_column = pytest.mark.parametrize("name", COLUMNS)
each_kind = pytest.mark.parametrize("kind", ["uniform", "quantile"])
each_way = pytest.mark.parametrize("reconstruct", ["center", "mean"])


def fitted(values: np.ndarray, kind="quantile", reconstruct="center", bins=V) -> Tokenizer:
    data = values.reshape(len(values), -1).astype(np.float32)
    tokenizer = Tokenizer(data.shape[1], bins, kind, reconstruct)
    tokenizer.fit(data)
    return tokenizer


def column_of(name: str) -> torch.Tensor:
    return torch.from_numpy(COLUMNS[name].astype(np.float32))[:, None]


@each_column
@each_kind
@each_way
def test_every_token_decodes_into_its_own_bin(name, kind, reconstruct):
    tokenizer = fitted(COLUMNS[name], kind, reconstruct)
    tokens = torch.arange(V)[:, None]
    assert bool((tokenizer.edges.diff(dim=-1) > 0).all()), "no bin is empty of width"
    torch.testing.assert_close(tokenizer.encode(tokenizer.decode(tokens)), tokens)


@each_column
@each_kind
@each_way
def test_reconstruction_errs_by_less_than_the_bin(name, kind, reconstruct):
    tokenizer, data = fitted(COLUMNS[name], kind, reconstruct), column_of(name)
    tokens = tokenizer.encode(data)
    assert int(tokens.min()) >= 0 and int(tokens.max()) < V
    width = tokenizer.edges.diff(dim=-1)[0][tokens]
    assert bool(((tokenizer.decode(tokens) - data).abs() <= width * (1 + 1e-5)).all())


@each_kind
def test_values_out_of_range_fall_into_the_end_bins(kind):
    tokenizer = fitted(COLUMNS["normal"], kind)
    tokens = tokenizer.encode(torch.tensor([[-1e9], [1e9], [-torch.inf], [torch.inf]]))
    assert tokens.flatten().tolist() == [0, V - 1, 0, V - 1]


def test_uniform_bins_are_equally_wide():
    tokenizer = fitted(COLUMNS["heavy-tailed"], "uniform")
    data = COLUMNS["heavy-tailed"]
    expected = np.full(V, (data.max() - data.min()) / V)
    np.testing.assert_allclose(tokenizer.edges.diff(dim=-1)[0], expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["normal", "heavy-tailed", "awkward-count"])
def test_quantile_bins_hold_equal_shares_of_distinct_values(name):
    tokenizer, data = fitted(COLUMNS[name]), column_of(name)
    counts = torch.bincount(tokenizer.encode(data).flatten(), minlength=V)
    assert int(counts.max() - counts.min()) <= 2, counts


@pytest.mark.parametrize("name", ["two-values", "integers", "few-rows"])
def test_few_distinct_values_get_a_bin_each(name):
    tokenizer = fitted(COLUMNS[name])
    distinct = np.unique(COLUMNS[name].astype(np.float32))
    tokens = tokenizer.encode(torch.from_numpy(distinct)[:, None])
    assert len(tokens.unique()) == len(distinct)


def test_bins_lost_to_ties_go_to_the_other_values():
    tokenizer, data = fitted(COLUMNS["mostly-zero"]), column_of("mostly-zero")
    counts = torch.bincount(tokenizer.encode(data).flatten(), minlength=V)
    assert int((counts > 0).sum()) == V, "a tenth of the data is spread over all bins but one"
    assert int(counts.sort().values[-2]) < 0.1 * len(data) / 4


def test_means_reconstruct_better_than_centers():
    data = column_of("heavy-tailed")
    errors = []
    for way in ("center", "mean"):
        tokenizer = fitted(COLUMNS["heavy-tailed"], "uniform", way)
        errors.append(float((tokenizer.decode(tokenizer.encode(data)) - data).square().mean()))
    assert errors[1] < errors[0]


def test_dimensions_do_not_influence_one_another():
    both = fitted(np.stack([COLUMNS["integers"][:300], COLUMNS["two-values"]], axis=1))
    alone = fitted(COLUMNS["two-values"])
    torch.testing.assert_close(both.edges[1:], alone.edges, rtol=0, atol=0)


def test_expectation_and_percentile_under_bin_probabilities():
    tokenizer = fitted(np.stack([COLUMNS["normal"], COLUMNS["normal"] * 3], axis=1))
    even = torch.full((3, V), 1 / V)
    for index, token in enumerate((4, 9)):
        sure = torch.nn.functional.one_hot(torch.tensor([token] * 3), V).float()
        expected = tokenizer.decode(torch.full((3, 1), token), first=index)[:, 0]
        torch.testing.assert_close(tokenizer.expectation(sure, index), expected)
        torch.testing.assert_close(tokenizer.percentile(sure, 0.5, index), expected)
        mean = tokenizer.values[index].mean().expand(3)
        torch.testing.assert_close(tokenizer.expectation(even, index), mean)
        quartile = tokenizer.percentile(even, 0.25, index)
        expected = tokenizer.decode(torch.full((3, 1), V // 4 - 1), first=index)[:, 0]
        torch.testing.assert_close(quartile, expected)
        # mass that is missing (of a stop token) leaves the percentile of the rest
        torch.testing.assert_close(tokenizer.percentile(even / 2, 0.25, index), quartile)


def test_discrete_densities_integrate_to_one():
    tokenizer = fitted(COLUMNS["normal"], "uniform")
    log_density = torch.full((1, V), 1 / V).log() - tokenizer.log_widths()
    total = (log_density.exp() * tokenizer.edges.diff(dim=-1)).sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_unknown_tokens_and_bad_data_are_refused():
    tokenizer = fitted(COLUMNS["normal"])
    for token in (-1, V):
        with pytest.raises(ValueError, match=rf"unknown token: tokens lie in 0 .. {V - 1}"):
            tokenizer.decode(torch.tensor([[token]]))
    with pytest.raises(ValueError, match="needs finite values"):
        fitted(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"rows \(n, 1\)"):
        tokenizer.fit(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least 2 bins"):
        Tokenizer(1, 1, "uniform")


def test_discrete_choices_are_their_own_tokens():
    tokenizer = Tokenizer(2, V, "quantile", "mean")
    tokenizer.fit_column(0, COLUMNS["normal"])
    tokenizer.fit_indices(1, 7)
    choice = torch.arange(7.0)
    pairs = torch.stack([torch.zeros(7), choice], dim=1)
    assert tokenizer.encode(pairs)[:, 1].tolist() == list(range(7))
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(pairs))[:, 1], choice)
    with pytest.raises(ValueError, match=f"{V + 1} discrete choices need as many bins"):
        tokenizer.fit_indices(1, V + 1)


def test_digest_tells_bins_apart():
    one, other = fitted(COLUMNS["normal"]), fitted(COLUMNS["heavy-tailed"])
    assert one.digest() == fitted(COLUMNS["normal"]).digest() != other.digest()
