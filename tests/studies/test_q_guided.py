"""Study q-guided at a tiny size: rows on the same starts, told and drawn with parts missing."""

from dataclasses import replace

import gymnasium
import pytest

from forethought.agents.iql import IQLConfig
from forethought.config import TrainConfig
from forethought.datasets.maze_stitch import build_medium_stitch
from forethought.models.factored import FactoredTransformerConfig
from forethought.planners.beam_planner import BeamPlannerConfig
from forethought.registry import recipes, studies
from forethought.studies import locomotion_rows, q_guided
from forethought.studies.base import StudySettings
from forethought.studies.q_guided_show import cut_text, markdown, plot, success_text

SHORT = "forethought/reach-short-v0"
NAMES = [f"{kind}/maze-medium-stitch" for kind in ("iql", "bc", "transformer")]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Recipes of a few steps, and short episodes."""
    gymnasium.register(
        id=SHORT,
        entry_point="forethought.envs.maze_reach:MazeReachEnv",
        max_episode_steps=4,
        kwargs={"layout": "medium", "reference_returns": (0.0, 1.0)},
    )
    build_medium_stitch(n_steps=1_000).save(tmp_path / "data" / "maze-medium-stitch")
    iql, bc, transformer = (recipes[name]() for name in NAMES)
    train = TrainConfig(steps=4, batch_size=4, precision="fp32", schedule="constant")
    model = FactoredTransformerConfig(
        context=1, horizon=2, n_bins=8, width=8, depth=1, heads=2, head_width=8
    )
    planner = BeamPlannerConfig(context=1, horizon=2, beam=2)
    small = IQLConfig(width=8, scale_returns=True, return_range=100.0)
    found = {
        NAMES[0]: lambda: replace(iql, env=SHORT, model=small, train=train),
        NAMES[1]: lambda: replace(bc, env=SHORT, model=small, train=train),
        NAMES[2]: lambda: replace(
            transformer, env=SHORT, model=model, train=train, planner=planner
        ),
    }
    monkeypatch.setattr(q_guided, "recipes", found)
    monkeypatch.setattr(q_guided, "SWEEPS", {"beam": [{"beam": 1}, {"expand": 1}]})
    monkeypatch.setattr(locomotion_rows, "TIMED_STEPS", 1)
    monkeypatch.setattr(locomotion_rows, "ALONE", 1)
    monkeypatch.setattr("forethought.studies.iql_rows.CURVE_EPISODES", 2)
    monkeypatch.setattr("forethought.studies.locomotion_rows.MARKS", 1)
    folders = {"pretrained": tmp_path / "pretrained", "data": tmp_path / "data"}
    yield StudySettings(episodes=2, runs=tmp_path / "runs", **folders)
    del gymnasium.registry[SHORT]


def test_rows_share_starts_and_say_what_led_them(settings):
    study = studies["q-guided"]()
    names = [part.name for part in study.parts]
    assert names == list(dict.fromkeys(names))
    kinds = ("data", "reference", "value", "return", "iql-{}-seed1", "q-{}-seed1", "v-{}-seed0")
    wanted = [(k if "{}" in k else k + "-{}").format("medium") for k in kinds]
    parts = {p.name: p.compute(settings) for p in study.parts if p.name in (*wanted, "sweep-beam")}
    assert set(parts) == {*wanted, "sweep-beam"}
    rows = [parts[name] for name in wanted if not name.startswith(("data", "value"))]
    assert len({row["starts"] for row in rows}) == 1 and all(row["n"] == 2 for row in rows)
    assert parts["reference-medium"]["success"]["hits"] == 0
    assert parts["return-medium"]["protocol"]["critic"] is None
    led = parts["q-medium-seed1"]["protocol"]
    assert led["critic"]["train_seed"] == 1 and led["planner"]["critic_value"] == "action"
    assert led["planner"]["critic"].endswith("iql/maze-medium-stitch-seed1")
    assert parts["v-medium-seed0"]["protocol"]["planner"]["critic_value"] == "state"
    beams = [row["protocol"]["planner"] for row in parts["sweep-beam"]]
    assert [b["beam"] for b in beams] == [1, 2] and beams[1]["reward"]["expand"] == 1
    assert parts["sweep-beam"][0]["protocol"]["seed"] == settings.seed + q_guided.SWEEP_SEED
    text = markdown(parts)
    assert "- q-medium-seed1: " in text and "their union leads there" in text
    assert success_text(parts["reference-medium"]) == "0 [0, 66]"
    assert set(plot(parts)) == {"success", "paths-medium"}


def test_missing_parts_are_left_out():
    assert plot({}) == {} and markdown({}) == ""
    assert cut_text({"top": 0, "cdf": 0.0}) == "all tokens"
    assert cut_text({"top": 3, "cdf": 0.5}) == "the likeliest 3 and without the least likely 50 %"
