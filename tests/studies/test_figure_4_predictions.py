"""Figures 4.2 to 4.4 from parts alone; differences paired by trajectory; true futures."""

import math

import numpy as np
import pytest
import torch

from forethought.data.tokenizers import Tokenizer
from forethought.envs.skeleton import Skeleton
from forethought.occupancy import simulator_of
from forethought.studies import figure_4_2, figure_4_3, figure_4_4
from forethought.studies.figure_4_3 import summarize
from forethought.studies.figure_4_3_show import JUDGED, REFERENCES, difference
from forethought.studies.marginals import FLOOR, oracle_densities
from forethought.studies.prediction_setup import HISTORY, MODELS, STEPS, Start, run_policy
from forethought.types import Trajectory


def curve(level: float, spread: float = 1.0) -> dict:
    rows = [[[level + spread * t] * len(JUDGED) for t in range(2)] for _ in range(3)]
    return {
        "mean": [level] * STEPS,
        "interval": [[level - 1, level + 1]] * STEPS,
        "by_trajectory": rows,
        "floored": [0.0, 0.01],
        "lower_floor": {"floor": 1e-6, "mean": [level] * len(JUDGED)},
    }


def likelihood_parts() -> dict:
    facts = {
        "truths": "a",
        "starts": 3,
        "trajectories": 6,
        "alive_at_100": 1.0,
        "sequences": 10,
        "floor": "stated",
    }
    parts = {"hopper-references": {"curves": {key: curve(5.0) for key in REFERENCES}, **facts}}
    for index, key in enumerate(MODELS):
        curves = {key: curve(-1.0 * index)}
        if key == "ensemble":
            curves["ensemble-binned"] = curve(-1.5 * index)
        parts[f"hopper-{key}"] = {"training": {}, "curves": curves, **facts}
    return parts


def test_likelihoods_are_drawn_and_listed_from_any_parts():
    parts = likelihood_parts()
    figure = figure_4_3.plot(parts)["hopper"]
    assert len(figure.axes) == 2
    gap = f"{list(MODELS).index('ensemble'):.2f}"
    text = figure_4_3.markdown(parts)
    assert f"| transformer - ensemble | +{gap} [+{gap}, +{gap}], above in 100 %" in text
    for name in list(parts):
        some = {key: part for key, part in parts.items() if key != name}
        assert "transformer" in figure_4_3.markdown(some)
    alone = figure_4_3.plot({"hopper-markov": parts["hopper-markov"]})["hopper"]
    assert len(alone.axes) == 1
    assert figure_4_3.plot({}) == {}
    assert figure_4_3.markdown({}) == ""


def test_parts_that_saw_other_trajectories_are_not_compared():
    parts = likelihood_parts()
    parts["hopper-markov"]["truths"] = "b"
    with pytest.raises(ValueError, match="different true trajectories"):
        figure_4_3.markdown(parts)


def test_differences_pair_trajectories_and_skip_those_that_have_ended():
    first, second = curve(0.0), curve(-2.0)
    for start in range(3):
        first["by_trajectory"][start][1] = [None] * len(JUDGED)
        second["by_trajectory"][start][1] = [None] * len(JUDGED)
        second["by_trajectory"][start][0] = [-1.0 - start] * len(JUDGED)
    mean, low, high, share = difference(first, second, 50)
    assert (mean, share) == (2.0, 1.0)
    half = 4.30265 * 1.0 / math.sqrt(3)  # Student's t with 2 degrees, deviation 1
    np.testing.assert_allclose([low, high], [2 - half, 2 + half], rtol=1e-4)


def test_summaries_average_trajectories_then_starts():
    bins = Tokenizer(1, 10, "uniform")
    bins.fit(np.array([[0.0], [1.0]]))
    inside, outside = torch.full((2, STEPS, 1), 0.5), torch.full((2, STEPS, 1), 2.0)
    found = summarize([oracle_densities(each, bins) for each in (inside, outside)], bins)
    expected = (math.log(10) + math.log(FLOOR)) / 2
    np.testing.assert_allclose(found["mean"], [expected] * STEPS, atol=1e-3)
    assert found["floored"] == [0.5, 0.5]


def push(observation: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Full speed with some noise."""
    noise = torch.randn(len(observation), 3, generator=generator)
    return (1 + 0.1 * noise).clamp(-1, 1)


def test_true_futures_repeat_by_seed_and_end_where_episodes_do():
    simulator = simulator_of("forethought/hopper-v0")
    state = simulator.draw_starts(1, 0)[0]
    first, again = (
        run_policy(simulator, push, state, 2, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    gone = first[:, :, 0].isnan()
    assert bool(gone[:, -1].all())  # it falls
    assert not bool(gone[:, 0].any())
    # once ended, for ever
    assert bool((gone[:, 1:] >= gone[:, :-1]).all())


def start_of(truths: torch.Tensor) -> Start:
    dim = truths.shape[-1]
    seen = torch.arange(HISTORY * dim).float().view(1, HISTORY, dim)
    history = Trajectory(
        observations=seen, actions=torch.zeros(1, HISTORY, 3), times=torch.arange(HISTORY)
    )
    return Start(state=np.zeros(12), observation=truths[0, 0], history=history, truths=truths)


def test_a_partial_start_hides_half_of_what_is_given():
    start = start_of(torch.zeros(1, 2, 11))
    generator = torch.Generator().manual_seed(0)
    assert start.prefix(0.0, generator).history is None
    shares = []
    for _ in range(50):
        prefix = start.prefix(0.5, generator)
        assert prefix.history is not None
        shares.append(float(prefix.history.observations.isnan().float().mean()))
        shares.append(float(prefix.observation.isnan().float().mean()))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_bodies_and_maps_are_drawn_from_parts():
    seen = torch.zeros(2, STEPS, 11)
    seen[:, :, 0], seen[:, :, 5] = 1.25, 1.0
    seen[1, 60:] = torch.nan
    part = figure_4_2._content("hopper", [start_of(seen)], seen)
    assert part["lasting"] == [STEPS, 60]
    way = STEPS * Skeleton("forethought/hopper-v0").step_seconds
    assert part["ways"][0] == pytest.approx(way, abs=1e-3)
    parts = {"hopper-truth": part, "hopper-ensemble": part}
    assert set(figure_4_2.plot(parts)) == {"hopper-bodies", "hopper-angles"}
    assert "ensemble" in figure_4_2.markdown(parts)
    shares = {"markov": 0.5, "striped": 0.1, "action_to_actions": 0.2}
    head = {"layer": 1, "head": 2, **shares, "action_to_observations": 0.2}
    table = {"layer": 1, "head": 2, "thousandths": [[10] * 69] * 70}
    maps = {"windows": 4, "columns": 14, "action_start": 11, "heads": [head]}
    parts = {"hopper-heads": {**maps, "maps": {"markov": table, "striped": table}}}
    assert len(figure_4_4.plot(parts)["hopper"].axes) == 4, "two maps, each with its scale"
    assert "| 1 | 2 | 50.0 % | 10.0 % | 20.0 % | 20.0 % |" in figure_4_4.markdown(parts)
