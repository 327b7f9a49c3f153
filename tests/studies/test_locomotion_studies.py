"""Table 4.1 and imitation: rows are trained once, on the data at hand, and told as they are."""

from dataclasses import replace

import numpy as np
import pytest
from fake_policies import fake_run

from forethought.config import TrainConfig
from forethought.datasets.locomotion import build_locomotion
from forethought.models.factored import FactoredTransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.registry import recipes, studies
from forethought.scores import mean_and_interval
from forethought.snapshots import ship_policies
from forethought.studies import locomotion_rows
from forethought.studies.base import StudySettings
from forethought.studies.locomotion_rows import behavior_row, data_row, learned_row, sweep
from forethought.studies.published_locomotion import SETS

NAME = "transformer/hopper-medium"


@pytest.fixture
def settings(tmp_path):
    shipped = tmp_path / "pretrained" / "sac" / "hopper"
    ship_policies(fake_run(tmp_path / "run"), shipped, episodes=2)
    dataset = build_locomotion("hopper", "medium", 0, 300, folder=str(shipped))
    dataset.save(tmp_path / "data" / "hopper-medium")
    folders = {"pretrained": tmp_path / "pretrained", "data": tmp_path / "data"}
    return StudySettings(episodes=2, runs=tmp_path / "runs", **folders)


@pytest.fixture
def tiny(monkeypatch):
    """The recipes, at a size for tests."""
    transformer, bc = recipes[NAME](), recipes["bc/hopper-medium"]()
    model = FactoredTransformerConfig(
        context=1, horizon=2, n_bins=5, width=8, depth=1, heads=2, head_width=8, stop_token=True
    )
    train = TrainConfig(steps=4, batch_size=2, precision="fp32")
    planner = BeamPlannerConfig(context=1, horizon=2, beam=2)
    found = {
        NAME: lambda: replace(transformer, model=model, train=train, planner=planner),
        "bc": lambda: replace(bc, train=replace(bc.train, steps=5, batch_size=4)),
    }
    monkeypatch.setattr(locomotion_rows, "recipes", found)
    monkeypatch.setattr(locomotion_rows, "TIMED_STEPS", 1)
    monkeypatch.setattr("forethought.studies.iql_rows.CURVE_EPISODES", 2)


def test_rows_train_once_and_act_on_the_same_starts(settings, tiny):
    behavior = behavior_row(settings, "hopper")
    planned = learned_row(settings, NAME, "planner")
    saved = settings.runs / NAME / "model.safetensors"
    before = saved.stat().st_mtime_ns
    again = learned_row(settings, NAME, "planner")
    assert saved.stat().st_mtime_ns == before and again["returns"] == planned["returns"]
    clone = learned_row(settings, "bc", "clone")
    assert planned["starts"] == behavior["starts"] == clone["starts"] and planned["n"] == 2
    assert planned["protocol"]["planner"]["beam"] == 2 and planned["protocol"]["plan_ms"]
    assert planned["protocol"]["alone_ms"]["core"] > 0
    facts = planned["training"]
    assert facts["tokens"] == 4 * 2 * 3 * (11 + 3 + 2)
    assert len(clone["curve"]) == 5 and clone["curve"][-1]["updates"] == 5
    rows = sweep(settings, NAME, [{}, {"beam": 1}, {"expand": 3, "horizon": 1}], episodes=2)
    used = [row["protocol"]["planner"] for row in rows]
    assert [(p["beam"], p["horizon"], p["reward"]["expand"]) for p in used] == [
        (2, 2, 2),
        (1, 2, 2),
        (2, 1, 3),
    ]
    assert rows[0]["starts"] != planned["starts"]


def test_data_row_tells_what_the_data_earn(settings):
    row = data_row(settings, "hopper-medium")
    assert row["steps"] >= 300 and row["n"] > 5 and row["falls"] == 1.0
    assert row["protocol"]["sources"][0]["policy"].startswith("snapshots/step-")
    returns = row["protocol"]["sources"][0]["return"]
    low, high = -20.272305, 3234.3
    assert row["score"]["mean"] == pytest.approx(100 * (returns - low) / (high - low), abs=1e-3)


def test_a_model_of_other_data_is_refused(settings, tiny):
    learned_row(settings, NAME, "planner")
    shipped = settings.pretrained / "sac" / "hopper"
    other = build_locomotion("hopper", "medium", 1, 300, folder=str(shipped))
    other.save(settings.data / "hopper-medium")
    with pytest.raises(ValueError, match="holds a model of other data"):
        learned_row(settings, NAME, "planner")


# ------------------------------------------------------------------------------ what is told

REFERENCE = [-20.272305, 3234.3]


def fake_row(mean: float, n: int = 15, *, ms: float = 0.0, **facts) -> dict:
    scores = np.linspace(mean - 5, mean + 5, n)
    center, low, high = mean_and_interval(scores.tolist())
    planner = {"kind": "beam", "search": "reward", "beam": 32, "horizon": 10, "context": 5}
    planner |= {"reward": {"expand": 2}}
    protocol = {"seed": 0, "reference_returns": REFERENCE, "wall_seconds": 9.0, "sources": None}
    times = {"plan_ms": {"median": ms}, "alone_ms": {"core": 2 * ms}}
    protocol |= {"planner": planner, **times} if ms else {"controller": "acts"}
    return {
        "env": "forethought/hopper-v0",
        "score": {"mean": center, "interval": [low, high]},
        "n": n,
        "starts": f"starts of {n}",
        "protocol": {**protocol, "network_calls": 10, "core_seconds": 4.0},
        "returns": (REFERENCE[0] + (REFERENCE[1] - REFERENCE[0]) * scores / 100).tolist(),
        "training": {"updates": 7_000, "batch_size": 64, "core_minutes": 25.0}
        | ({"tokens": 90_000_000, "tokens_per_core_second": 60_000} if ms else {}),
        **facts,
    }


CURVE = [{"updates": k, "score": {"mean": 10.0 * k, "interval": None}} for k in (1, 2)]
TABLE = {
    "data-hopper-medium": fake_row(30.0, 400, steps=200_000, falls=0.5),
    "bc-hopper-medium": fake_row(28.0, curve=CURVE),
    "tt-hopper-medium": fake_row(40.0, ms=45.0),
    "tt-flat-hopper-medium": fake_row(50.0, 3, ms=900.0),
    "sweep-hopper-medium-replay": [fake_row(20.0, 5, ms=45.0)],
}
IMITATION = {
    "data-hopper": fake_row(80.0, 200, steps=200_000, falls=0.1),
    "behavior-hopper": fake_row(80.0),
    "tt-hopper": fake_row(100.0, ms=30.0),
    "tt-bins-walker2d": fake_row(60.0, ms=30.0),
}
PARTS = {"table-4-1": TABLE, "imitation": IMITATION}
TOLD = {
    "table-4-1": [
        "quantile (ours) | 40.0 [38.2, 41.8] | – | – | – |",
        "quantile (ours) | 50.0 [37.6, 62.4] (3 episodes)",
        "*Trajectory Transformer, quantile, published (thesis Table 4.1)* | 61.1 ± 3.6 | 91.5 ± 3.6"
        " | 110.0 ± 2.7 | 87.5 |",
        "| behavior cloning (ours) | +12.0 [12.0, 12.0] | – | – |",
        "reward search, beam 32, horizon 10, 2 expansions, context 5, a plan every step, 45 ms "
        "side by side, 90 ms alone",
        "90M tokens (60,000 a core-second), about 25 core-minutes",
        "10 at 1, 20 at 2",
        "| Medium | 200,000 | 400 |",
    ],
    "imitation": [
        "| 80.0 [78.2, 81.8] | – |",
        "125 % of the behavior policy's mean return",
        "+20.0 [20.0, 20.0]",
        "published (thesis Section 4.4)* | 104 | 109 |",
    ],
}


@pytest.mark.parametrize("name", sorted(PARTS))
def test_study_tells_and_draws_what_it_has_and_copes_with_what_is_missing(name):
    study, parts = studies[name](), PARTS[name]
    assert set(parts) <= {part.name for part in study.parts}
    text = study.markdown(parts)
    for piece in TOLD[name]:
        assert piece in text, text
    (figure,) = study.plot(parts).values()
    figure.canvas.draw()
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)
    bars = [
        p
        for key, p in parts.items()
        if "sweep" not in key and (name != "imitation" or "data" not in key)
    ]
    np.testing.assert_allclose(heights, sorted(p["score"]["mean"] for p in bars))
    for missing in parts:
        some = {key: value for key, value in parts.items() if key != missing}
        assert study.markdown(some) and study.plot(some)
    assert study.plot({}) == {} and "published" in study.markdown({})


def test_table_has_a_part_for_every_row_and_says_what_it_costs():
    parts = {part.name: part.minutes for part in studies["table-4-1"]().parts}
    for row in ("data", "bc", "iql", "tt", "tt-uniform"):
        assert {f"{row}-{name}" for name in SETS} <= set(parts)
    assert all(minutes > 0 for minutes in parts.values())
