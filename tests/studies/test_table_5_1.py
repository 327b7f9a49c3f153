"""Table 5.1: rows are matched by starts, drawn from what is there, and trained once only."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import forethought.studies.iql_rows as iql_rows
from forethought.config import TrainConfig
from forethought.envs.maze import REFERENCE_RETURNS
from forethought.registry import studies
from forethought.rollout import evaluate
from forethought.scores import paired_difference
from forethought.studies.base import Part, Study, StudySettings, load_study, run_study
from forethought.studies.published import CELLS, PUBLISHED, THESIS
from forethought.studies.rows import are_matched, read_row, row_file, row_of, write_row
from forethought.studies.table_5_1 import D3RLPY, table_5_1
from forethought.studies.table_5_1_show import trend

UMAZE = "maze2d-umaze"


class Push:
    """A constant push: enough to score something."""

    def __init__(self, *push: float) -> None:
        self._push = torch.tensor(push)

    def reset(self, n_envs, seeds=None): ...

    def __call__(self, observation, goal=None, rows=None):
        return self._push.expand(len(observation), 2)


@pytest.fixture(scope="module")
def evaluations():
    """Two policies and a second seed on U-Maze, a few episodes each."""
    runs = {"still": (Push(0, 0), 0), "moving": (Push(0.2, 0), 0), "elsewhere": (Push(0, 0), 1)}
    return {
        name: evaluate(policy, f"forethought/{UMAZE}-v0", 6, seed)
        for name, (policy, seed) in runs.items()
    }


def fake_row(method: str, cell: str, mean: float, n: int = 8, **facts):
    """A row with returns around a mean score, as if run."""
    low, high = REFERENCE_RETURNS[cell.split("-")[1]]
    scores = mean + np.linspace(-4, 4, n)
    protocol = {"env": f"forethought/{cell}-v0", "seed": 0, "reference_returns": [low, high]}
    return {
        "kind": "row",
        "method": method,
        "env": protocol["env"],
        "score": {"mean": mean, "interval": [mean - 3, mean + 3]},
        "success_rate": 0.5,
        "n": n,
        "starts": f"digest-{n}",
        "protocol": protocol,
        "returns": (low + (high - low) * scores / 100).tolist(),
        "arrivals": [None] * n,
        **facts,
    }


def fake_curve(*means: float):
    points = enumerate(means, start=1)
    return [
        {"updates": 1_000 * k, "score": {"mean": m, "interval": [m - 2, m + 2]}, "success_rate": 0}
        for k, m in points
    ]


# ----------------------------------------------------------------------------------- rows


def test_rows_of_the_same_seed_share_their_starts_and_others_do_not(evaluations):
    rows = {name: row_of(name, evaluation) for name, evaluation in evaluations.items()}
    assert are_matched(rows["still"], rows["moving"])
    assert not are_matched(rows["still"], rows["elsewhere"])
    assert rows["still"]["starts"] != rows["elsewhere"]["starts"]
    assert rows["still"]["returns"] == [r["return"] for r in evaluations["still"].episodes]
    assert "paths" not in rows["still"]


def test_difference_in_the_table_is_the_paired_one(evaluations):
    first, second = evaluations["still"], evaluations["moving"]
    parts = {
        f"diffuser-{UMAZE}": row_of("Diffuser", first),
        f"iql-{UMAZE}": row_of("IQL", second),
    }
    mean, low, high = paired_difference(first.episodes, second.episodes)
    assert f"{mean:+.1f} [{low:.1f}, {high:.1f}]" in table_5_1().markdown(parts)
    parts[f"iql-{UMAZE}"] = row_of("IQL", evaluations["elsewhere"])
    assert "not the same starts" in table_5_1().markdown(parts)


def test_stored_row_comes_back_and_a_missing_or_damaged_one_says_how_to_make_it(tmp_path):
    file = row_file(tmp_path / "rows", "SAC-N", UMAZE)
    assert file.name == "sac-n-maze2d-umaze.json"
    with pytest.raises(FileNotFoundError, match="is missing; make it with\n  a command"):
        read_row(file, how="a command")
    row = fake_row("SAC-N", UMAZE, 50.0)
    write_row(file, row)
    assert read_row(file, how="a command") == row
    file.write_text('{"method": "SAC-N"')
    with pytest.raises(ValueError, match="damaged .* make it again with\n  a command"):
        read_row(file, how="a command")


# ---------------------------------------------------------------------------------- the study


def test_study_is_registered_and_names_every_cell():
    names = [part.name for part in studies["table-5-1"]().parts]
    assert len(names) == len(set(names))
    for row in ("diffuser", "references", "mppi", "iql"):
        assert {f"{row}-{cell}" for cell in CELLS} <= set(names)
    for method in D3RLPY:
        assert {f"{method}-{cell}" for cell in CELLS[:3]} <= set(names)


def test_parts_of_stored_rows_read_them_and_missing_ones_name_the_script(tmp_path):
    row = fake_row("AWAC", "maze2d-medium", 80.0)
    write_row(row_file(tmp_path, "awac", "maze2d-medium"), row)
    parts = {part.name: part for part in table_5_1(tmp_path).parts}
    assert parts["awac-maze2d-medium"].compute(StudySettings()) == row
    with pytest.raises(FileNotFoundError, match=r"train_d3rlpy\.py awac large"):
        parts["awac-maze2d-large"].compute(StudySettings())


def test_tables_hold_every_row_with_interval_and_mark_published_ones():
    parts = {f"diffuser-{cell}": fake_row("Diffuser", cell, 150.0) for cell in CELLS}
    parts |= {f"mppi-{cell}": fake_row("MPPI", cell, 20.0, n=4) for cell in CELLS}
    parts[f"cql-{UMAZE}"] = fake_row("CQL", UMAZE, 7.0, curve=fake_curve(1, 5, 7, 7))
    parts[f"references-{UMAZE}"] = [fake_row("straight to the goal", UMAZE, 30.0)]
    text = table_5_1().markdown(parts)
    lines = text.splitlines()
    assert lines.count("| Diffuser (ours) | " + "150.0 [147.0, 153.0] | " * 3 + "150.0 |") == 2
    assert "| CQL (d3rlpy) | 7.0 [4.0, 10.0] | – | – | – |" in lines
    assert "| straight to the goal | 30.0 [27.0, 33.0] | – | – | – |" in lines
    thesis = next(row for row in PUBLISHED if row.source == THESIS and row.name == "Diffuser")
    assert thesis.scores["multi2d-large"] == (132.1, 5.8)
    expected = "*Diffuser, published (thesis Table 5.1)* | 113.9 ± 3.1 | 121.5 ± 2.7 | 123.0 ± 6.4"
    assert f"| {expected} | 119.5 |" in lines
    # MPPI's four episodes are compared with Diffuser's first four of the same seed
    ours, row = parts[f"diffuser-{UMAZE}"], parts[f"mppi-{UMAZE}"]
    low, high = REFERENCE_RETURNS["umaze"]
    gap = np.mean(100 * (np.array(ours["returns"][:4]) - row["returns"]) / (high - low))
    assert any(
        line.startswith(f"| MPPI, true dynamics, sparse reward | {gap:+.1f} [") for line in lines
    )


@pytest.mark.parametrize(
    ("means", "word"),
    [((0, 10, 40, 41), "rising"), ((5, 30, 31, 30), "flat"), ((9, 40, 40, 9), "falling")],
)
def test_trend_tells_a_finished_curve_from_a_rising_one(means, word):
    assert trend(fake_curve(*means)).startswith(word)


def test_figures_are_drawn_from_partial_results():
    study = table_5_1()
    assert study.plot({}) == {} and "published" in study.markdown({})
    parts = {
        f"diffuser-{UMAZE}": fake_row("Diffuser", UMAZE, 150.0),
        "iql-multi2d-large": fake_row("IQL", "multi2d-large", 9.0, curve=fake_curve(1, 9)),
    }
    figures = study.plot(parts)
    assert set(figures) == {"scores", "curves"}
    bars = [bar for ax in figures["scores"].axes for bar in ax.patches]
    assert sorted(bar.get_height() for bar in bars) == [9.0, 150.0]
    (curve,) = [line for line in figures["curves"].axes[-1].lines]
    np.testing.assert_allclose(curve.get_xydata(), [[1, 1], [2, 9]])


# ------------------------------------------------------------------------------- IQL's training


@pytest.fixture
def small_iql(monkeypatch, tmp_path):
    """The grid and the runs at a size for tests, on a thousand steps of U-Maze."""
    from forethought.datasets.maze import build_maze

    build_maze("umaze", seed=0, n_steps=1_000).save(tmp_path / "data" / "maze-umaze")
    monkeypatch.setattr(iql_rows, "GRID", ((3.0, 0.65), (10.0, 0.95)))
    monkeypatch.setattr(iql_rows, "GRID_MARKS", (4, 8))
    monkeypatch.setattr(iql_rows, "CURVE_EPISODES", 2)
    plain = iql_rows._experiment

    def tiny(cell, temperature, expectile):
        experiment = plain(cell, temperature, expectile)
        train = TrainConfig(steps=12, batch_size=8, schedule="constant", ema_decay=0, save_every=4)
        return replace(experiment, train=train, model=replace(experiment.model, width=8))

    monkeypatch.setattr(iql_rows, "_experiment", tiny)
    return StudySettings(episodes=3, data=tmp_path / "data", runs=tmp_path / "runs")


def test_final_run_continues_the_grid_s_best_and_is_trained_once(small_iql, tmp_path):
    folder = tmp_path / "rows"
    row = iql_rows.iql_row(small_iql, folder, UMAZE)
    grid = iql_rows.iql_grid(small_iql, folder)
    best = max(grid["runs"], key=lambda run: sum(p["score"]["mean"] for p in run["curve"]))
    assert row["curve"][:2] == best["curve"]
    assert [point["updates"] for point in row["curve"]] == [4, 8, 12]
    assert row["protocol"]["train_updates"] == 12 and row["n"] == 3
    runs = list((tmp_path / "runs").rglob("curve.json"))
    assert len(runs) == 2, "the final run is one of the grid's"
    for file in runs:
        file.unlink()
    assert iql_rows.iql_row(small_iql, folder, UMAZE) == row  # from its file


def test_interrupted_run_ends_like_one_that_was_not(small_iql, tmp_path):
    experiment = iql_rows._experiment(UMAZE, 3.0, 0.65)
    dataset = iql_rows.open_dataset(small_iql, "maze-umaze")
    whole = iql_rows.train_with_curve(experiment, dataset, tmp_path / "a", (4, 12))
    iql_rows.train_with_curve(experiment, dataset, tmp_path / "b", (4,))
    parted = iql_rows.train_with_curve(experiment, dataset, tmp_path / "b", (4, 12))
    assert parted == whole
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    with pytest.raises(ValueError, match="needs train.schedule 'constant'; got 'cosine'"):
        cosine = replace(experiment, train=replace(experiment.train, schedule="cosine"))
        iql_rows.train_with_curve(cosine, dataset, tmp_path / "c", (4,))


def test_parts_that_another_process_added_meanwhile_are_kept(tmp_path):
    file = tmp_path / "table.json"

    def meanwhile(settings):
        other = load_study(file, "table")
        other["parts"]["theirs"] = 1
        file.write_text(json.dumps(other))
        return 2

    study = Study(
        title="",
        parts=(Part(name="ours", minutes=0, compute=meanwhile),),
        plot=lambda parts: {},
        markdown=lambda parts: "",
    )
    run_study("table", study, StudySettings(), file)
    assert load_study(file, "table")["parts"] == {"theirs": 1, "ours": 2}
