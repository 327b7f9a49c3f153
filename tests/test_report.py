"""Reports are made from result files alone, and lose none of their numbers."""

import json
import math
import re
import warnings

import imageio.v3 as iio
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from forethought import figures
from forethought.envs.maze_layout import LAYOUTS
from forethought.registry import studies
from forethought.report import (
    load_results,
    markdown_table,
    write_html,
    write_report,
    write_results_markdown,
)
from forethought.studies.base import Part, Study

LAYOUT = LAYOUTS["umaze"]
START, GOAL = [0.8, 0.8], [2.8, 0.8]


def path_through_umaze(steps=60, arrival=40):
    corners = np.array([[0.8, 0.8], [0.8, 2.8], [2.8, 2.8], [2.8, 0.8]])
    along = np.linspace(0, 3, arrival)
    moving = np.stack([np.interp(along, range(4), corners[:, k]) for k in (0, 1)], axis=1)
    return np.concatenate([moving, np.repeat(moving[-1:], steps - arrival, axis=0)])


def evaluation(mean=158.25, recipe="diffuser/maze-umaze", shift=0.0, **changes):
    path = path_through_umaze()
    stuck = path.copy()
    stuck[20:] = stuck[20]
    episodes = [
        {"seed": seed, "score": mean + shift + seed, "return": 50.0, "success": seed != 3}
        | {"start": [*START, 0, 0], "goal": [*GOAL, 0, 0]}
        for seed in range(5)
    ]
    examples = [
        {"start": START, "goal": GOAL, "success": success, "executed": executed.tolist()}
        | {"imagined": path.tolist()}
        for success, executed in ((True, path), (False, stuck))
    ]
    protocol = {
        "env": "forethought/multi2d-umaze-v0",
        "replan_every": 0,
        "plan_ms": {"median": 20.1, "p99": 33.0},
        "train_seconds": 1500,
        "command": "forethought evaluate some|folder --seed 0",
        "commit": "abc1234",
        "hardware": {"cpu": "a <fast> one", "threads": 2, "gpu": None},
        "dataset": {"name": "maze-umaze", "fingerprint": "f00d"},
    }
    references = [
        {
            "name": "shortest path",
            "score": {"mean": 171.5, "interval": [170, 173]},
            "success_rate": 1.0,
        }
    ]
    published = [{"name": "Diffuser (thesis)", "score": 128.9, "error": 1.8, "source": "Table 5.1"}]
    return {
        "kind": "evaluation",
        "recipe": recipe,
        "score": {"mean": mean, "interval": [mean - 6.0, mean + 6.0]},
        "success_rate": 0.8,
        "n": 5,
        "protocol": protocol,
        "references": references,
        "published": published,
        "layout": "\\".join(LAYOUT.rows),
        "episodes": episodes,
        "examples": examples,
    } | changes


def bare_evaluation():
    """As little as a result file may hold: another environment, one episode, no interval."""
    score = {"mean": 77.7, "interval": [-math.inf, math.inf]}
    return {"kind": "evaluation", "recipe": "iql/hopper", "score": score, "n": 1, "protocol": {}}


def plan(n_steps=8):
    random = np.random.default_rng(0)
    path = path_through_umaze()[::2]
    strip = [
        {"level": level, "positions": (path + random.normal(size=path.shape) * level).tolist()}
        for level in range(n_steps - 1, -1, -1)
    ]
    return {
        "kind": "plan",
        "recipe": "diffuser/maze-umaze",
        "layout": "\\".join(LAYOUT.rows),
        "start": START,
        "goal": GOAL,
        "arrival": 40,
        "times": list(range(0, 60, 2)),
        "strip": strip,
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return write_report([evaluation(), bare_evaluation(), plan()], folder / "new")


def test_results_in_a_folder_are_found_and_other_json_is_passed_over(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(json.dumps(evaluation()))
    (tmp_path / "b.json").write_text(json.dumps(plan()))
    (tmp_path / "config.json").write_text('{"model": 1}')
    assert [result["kind"] for result in load_results(tmp_path)] == ["plan", "evaluation"]
    assert len(load_results([tmp_path / "b.json", tmp_path / "deep"])) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "evaluation", "sco', "r.json is damaged .*line 1.*run the command"),
        ('{"kind": "evaluation", "recipe": "x"}', "r.json: evaluation without score, n, protocol"),
        ('{"model": 1}', "r.json is no result file"),
    ],
)
def test_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_results(tmp_path / "r.json")


def test_missing_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_results([tmp_path / "nowhere"])


def test_table_has_one_row_for_each_evaluation_reference_and_published_value():
    # the second evaluation brings the same reference and published value again
    table = markdown_table([evaluation(), evaluation(mean=140.0)]).splitlines()
    assert len(table) == 2 + 2 + 1 + 1
    assert len({line.count(" | ") for line in table}) == 1
    assert "| diffuser/maze-umaze (1) | 158.2 [152.2, 164.2] | 80.0 % | 5 |" in table[2]
    assert "| never |" in table[2] and "| 20.1 (33.0) | 25.0 | abc1234 | run here |" in table[2]
    assert "| shortest path | 171.5 [170.0, 173.0] |" in table[4]
    assert "| 128.9 ± 1.8 |" in table[5] and "published: Table 5.1" in table[5]


def test_rows_with_equal_starts_share_a_name_and_are_paired(tmp_path):
    other = evaluation(recipe="diffuser/other", shift=-10.0)
    moved = evaluation(recipe="diffuser/moved")
    moved["episodes"] = [episode | {"seed": 9} for episode in moved["episodes"]]
    rows = markdown_table([evaluation(), other, moved]).splitlines()[2:5]
    first, second, third = (row.split(" | ")[4] for row in rows)
    assert first == second != third
    text = write_results_markdown([evaluation(), other, moved], tmp_path / "r.md").read_text()
    assert text.count("episode by episode") == 1
    assert "same 5 starts: -10.0 [-10.0, -10.0]" in text


def test_markdown_states_how_each_row_was_made(tmp_path):
    results = [evaluation(), bare_evaluation(), plan()]
    text = write_results_markdown(results, tmp_path / "docs" / "results.md").read_text()
    assert "comparable only when their starts match" in text
    assert "## forethought/multi2d-umaze-v0" in text and "## iql/hopper" in text
    assert "forethought evaluate some|folder --seed 0" in text
    assert "cpu a <fast> one, threads 2" in text and "fingerprint f00d" in text
    assert "| iql/hopper | 77.7 | – | 1 |" in text


def test_html_is_self_contained_and_holds_every_score(report):
    page = report.read_text()
    assert not re.search(r"https?://|<script [^>]*src|<link|@import", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)', page))
    for score in ("158.2", "77.7", "171.5", "128.9 ± 1.8"):
        assert score in page
    assert "1 of 5 episodes failed" in page and "(0.8, 0.8)" in page
    assert "a &lt;fast&gt; one" in page and 'name="viewport"' in page


def test_pictures_lie_beside_the_page(report):
    name = "multi2d-umaze-v0-diffuser-maze-umaze"
    expected = {"report.html", "scores.png", "diffuser-maze-umaze-denoising.png"}
    expected |= {f"{name}-paths.png", f"{name}-imagined.png", f"{name}-movie.gif"}
    assert {file.name for file in report.parent.iterdir()} == expected
    assert report.read_text().count("<img") == len(expected) - 1


def test_html_without_pictures_or_results(tmp_path):
    file = write_html([bare_evaluation()], tmp_path / "a" / "page.html", title="One & only")
    assert "<title>One &amp; only</title>" in file.read_text() and "unknown" in file.read_text()
    assert "Nothing" in write_html([], file, title="Nothing").read_text()


def test_examples_without_plans_are_drawn(tmp_path):
    examples = [example | {"imagined": None} for example in evaluation()["examples"]]
    report = write_report([evaluation(examples=examples)], tmp_path)
    assert report.read_text().count("<img") == 3  # scores, movie, paths


def test_figures_stay_out_of_pyplot_and_draw_without_warnings():
    made = (
        figures.figure_paths(evaluation()),
        figures.figure_imagined_executed(evaluation()),
        figures.figure_strip(plan()),
        figures.figure_strip(plan(n_steps=1)),
        figures.figure_scores([evaluation(), bare_evaluation()]),
    )
    assert all(isinstance(figure, Figure) for figure in made)
    assert [len(figure.axes) for figure in made] == [2, 2, 6, 1, 1]
    assert matplotlib._pylab_helpers.Gcf.get_all_fig_managers() == []


def test_parting_step_is_the_first_more_than_half_a_cell_apart():
    plan = np.zeros((5, 2))
    run = np.stack([np.array([0, 0.5, 0.51, 0, 3.0, 9.0]), np.zeros(6)], axis=1)
    for by_clock in (True, False):
        assert figures.parting_step(run, plan, by_clock=by_clock) == 2
        assert figures.parting_step(run[:2], plan, by_clock=by_clock) is None


def test_runs_are_compared_with_the_plans_nearest_point_or_by_its_clock():
    plan = np.stack([np.arange(5.0), np.zeros(5)], axis=1)  # along the rows, one a step
    run = np.stack([2 * np.arange(3.0), np.array([0.0, 0.3, 0.6])], axis=1)  # twice as fast
    beside = figures.points_beside(run, plan)
    np.testing.assert_allclose(beside, [[0, 0], [2, 0], [4, 0]], atol=1e-12)
    np.testing.assert_allclose(figures.points_beside(run, plan, by_clock=True), plan[:3])
    assert figures.parting_step(run, plan) == 2, "0.6 beside the path at the third step"
    assert figures.parting_step(run, plan, by_clock=True) == 1, "one cell ahead of the clock"
    between = figures.points_beside([[1.4, 1.0], [9.0, 0.0]], plan)  # on a piece, past the end
    np.testing.assert_allclose(between, [[1.4, 0], [4, 0]], atol=1e-12)
    held = figures.points_beside(np.zeros((7, 2)), plan, by_clock=True)
    np.testing.assert_allclose(held[4:], plan[[4, 4, 4]], err_msg="a plan stays at its end")
    assert figures.follows_clock("track_observations") and not figures.follows_clock("pursue_path")


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_movie_has_frames_and_is_small(tmp_path, ending):
    path = path_through_umaze(steps=30, arrival=20)
    file = figures.save_movie(tmp_path / f"movie.{ending}", LAYOUT, path, path + 0.1, GOAL, fps=10)
    frames = iio.imread(file, plugin="pillow" if ending == "gif" else "FFMPEG")
    assert len(frames) > 15 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100  # the ball moved
    assert file.stat().st_size < 200_000


def test_movie_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'.avi'; use .gif or .mp4"):
        figures.save_movie(tmp_path / "movie.avi", LAYOUT, path_through_umaze(9, 5), None, GOAL)


MADE = {
    "command": "forethought study fruit",
    "commit": "abc1234",
    "made": "2026-01-31",
    "wall_seconds": 12.5,
    "hardware": {"cpu": "a <fast> one", "threads": 2},
}


@pytest.fixture
def fruit(monkeypatch):
    """A study registered for one test, and its result file's content."""

    def draw(parts):
        figure = Figure()
        figure.add_subplot().plot(parts.get("apples", {"weights": []})["weights"])
        return {"weights": figure}

    def describe(parts):
        rows = "".join(f"| {name} | {max(part['weights'])} |\n" for name, part in parts.items())
        code = "```\n# no heading\n```"
        return f"# Weights\n\n| fruit | <b>g</b> |\n|---|---|\n{rows}\n*Heavy* fruit.\n\n{code}"

    parts = tuple(Part(name=n, minutes=1, compute=lambda _: {}) for n in ("apples", "pears"))
    study = Study(title="Fruit & weight", parts=parts, plot=draw, markdown=describe)
    assert "fruit" not in studies  # which also reads the folder in, before it is added to
    monkeypatch.setitem(studies._entries, "fruit", lambda: study)
    made = {"apples": {"weights": [1.25, 3.5]}}
    return {"kind": "study", "study": "fruit", "parts": made, "provenance": {"apples": MADE}}


def test_page_shows_a_study_with_tables_figures_and_provenance(tmp_path, fruit):
    report = write_report([fruit], tmp_path)
    page = report.read_text()
    assert "<h2>Fruit &amp; weight</h2>" in page and "<h3>Weights</h3>" in page
    assert "<td>apples</td>" in page and "<td>3.5</td>" in page and "<em>Heavy</em>" in page
    assert "<th>&lt;b&gt;g&lt;/b&gt;</th>" in page  # HTML in Markdown is text
    assert "forethought study fruit" in page and "abc1234" in page and "a &lt;fast&gt; one" in page
    assert (tmp_path / "fruit-weights.png").exists() and page.count("<img") == 1


def test_markdown_holds_a_study_with_the_provenance_of_its_parts(tmp_path, fruit):
    text = write_results_markdown([fruit], tmp_path / "r.md").read_text()
    assert "\n## Fruit & weight\n\n### Weights\n" in text and "\n# no heading\n" in text
    assert "| apples | 3.5 |" in text
    assert "**apples.** commit: abc1234; made: 2026-01-31; wall seconds: 12.5; hardware:" in text
    assert "```\nforethought study fruit\n```" in text and "pears" not in text


def test_unknown_study_is_passed_over_with_a_note(tmp_path):
    result = {"kind": "study", "study": "gone", "parts": {"a": 1}, "provenance": {}}
    page = write_html([result], tmp_path / "page.html", title="x").read_text()
    text = write_results_markdown([result], tmp_path / "r.md").read_text()
    for made in (page, text):
        assert "This version has no study gone; its results are not shown." in made
    (tmp_path / "r.json").write_text('{"kind": "study", "study": "gone"}')
    with pytest.raises(ValueError, match="study without parts, provenance"):
        load_results(tmp_path / "r.json")
