"""The command line: good paths on a tiny scale, and one readable line for each mistake."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import forethought
from forethought import commands, training
from forethought.cli import main
from forethought.data.episodes import EpisodeDataset

RECIPE = "diffuser/maze-umaze"
TINY = ["--model.dim", "16", "--model.dim-mults", "1", "2", "--model.horizon", "16"]
TINY += ["--model.reach-pairs", "16", "--model.reach-width", "16", "--train.batch-size", "8"]
TINY += ["--train.steps", "30", "--train.log-every", "10"]
MAZE_RECIPE = """
from dataclasses import replace
from forethought.registry import recipes

def elsewhere():
    return replace(recipes["diffuser/maze-umaze"](), **CHANGES)
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a small data set and a trained tiny model, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("made")
    main(["data", "build", "maze-umaze", "--steps", "3000", "--out", str(folder / "data")])
    train = ["train", RECIPE, "--data", str(folder / "data"), "--out", str(folder / "model")]
    main([*train, *TINY])
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the working folder."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    """Exit code of a command, called in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def files(folder: Path) -> dict[str, bytes]:
    found = (f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in found}


@pytest.fixture
def refuses(capsys):
    """Run a command that must fail with one line holding all ``parts`` and change no file."""

    def check(*words, parts: list[str]) -> None:
        before = files(Path.cwd())
        capsys.readouterr()
        code = run(*words)
        stderr = capsys.readouterr().err
        assert code == 1, stderr
        assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
        assert "Traceback" not in stderr
        for part in parts:
            assert part in stderr, f"{part!r} is not in {stderr!r}"
        assert files(Path.cwd()) == before

    return check


def python_m(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "forethought", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )


def environment() -> dict[str, str]:
    path = str(Path(forethought.__file__).parents[1])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


# --------------------------------------------------------------------------------- good path


def test_training_leaves_a_complete_checkpoint(made):
    names = {file.name for file in (made / "model").iterdir()}
    expected = {"config.json", "model.safetensors", "train_state.safetensors", "metrics.jsonl"}
    assert names >= expected | {"training.json"}
    rows = [json.loads(line) for line in (made / "model/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]
    config = json.loads((made / "model" / "config.json").read_text())
    dataset = EpisodeDataset.open(made / "data")
    assert config["experiment"]["model"]["dim"] == 16
    assert config["dataset"]["fingerprint"] == dataset.fingerprint
    assert dataset.n_steps == 3000


def test_data_info_prints_sizes(place, capsys):
    assert run("data", "info", "data") == 0
    out = capsys.readouterr().out
    assert "3,000" in out and EpisodeDataset.open("data").fingerprint in out


def test_evaluation_file_holds_score_and_protocol(place, capsys):
    assert run("evaluate", "model", "--episodes", "3", "--out", "result.json") == 0
    result = json.loads((place / "result.json").read_text())
    scores = [episode["score"] for episode in result["episodes"]]
    assert result["kind"] == "evaluation" and result["recipe"] == RECIPE
    assert result["n"] == len(scores) == 3
    assert result["score"]["mean"] == pytest.approx(np.mean(scores))
    low, high = result["score"]["interval"]
    assert low < result["score"]["mean"] < high
    assert 0 <= result["success_rate"] <= 1
    protocol = result["protocol"]
    keys = "env seed replan_every candidates network_calls controller goal_time command commit"
    keys += " hardware wall_seconds train_seconds reference_returns planner control dataset plan_ms"
    assert set(keys.split()) <= protocol.keys()
    assert protocol["env"] == "forethought/maze2d-umaze-v0"
    assert (protocol["replan_every"], protocol["candidates"]) == (15, 1)
    assert protocol["network_calls"] == 2
    assert protocol["train_seconds"] > 0 and protocol["train_steps"] == 30
    assert len(result["references"]) == 4  # the ceiling, the shortest path, the behavior, no plan
    printed = capsys.readouterr().out
    assert f"{result['score']['mean']:.1f}" in printed and "result.json" in printed


def test_score_depends_on_the_seed_and_not_on_the_batching(place):
    for name, parallel, seed in (("a", 1, 0), ("b", 3, 0), ("c", 3, 1)):
        words = ["--episodes", "4", "--parallel", parallel, "--seed", seed, "--no-references"]
        assert run("evaluate", "model", *words, "--out", f"{name}.json") == 0
    a, b, c = (json.loads((place / f"{name}.json").read_text()) for name in "abc")
    assert a["episodes"] == b["episodes"]
    assert a["score"] == b["score"] and a["success_rate"] == b["success_rate"]
    assert a["episodes"] != c["episodes"]


def test_evaluation_goes_beside_the_checkpoint_by_default(place):
    assert run("evaluate", "model", "--episodes", "2", "--no-references", "--seed", "7") == 0
    assert (place / "model" / "evaluation" / "maze2d-umaze-seed7.json").is_file()


def test_multi_task_goals_differ(place):
    words = ["--multi", "--episodes", "3", "--no-references", "--out", "multi.json"]
    assert run("evaluate", "model", *words) == 0
    result = json.loads((place / "multi.json").read_text())
    assert result["protocol"]["env"] == "forethought/multi2d-umaze-v0"
    assert len({tuple(episode["goal"]) for episode in result["episodes"]}) == 3


def test_one_episode_has_no_interval(place):
    assert run("evaluate", "model", "--episodes", "1", "--out", "one.json") == 0
    text = (place / "one.json").read_text()
    assert json.loads(text)["score"]["interval"] is None
    assert "Infinity" not in text and "NaN" not in text  # legal JSON


def test_every_sampling_step_is_counted(place):
    words = ["--episodes", "1", "--no-references", "--out", "all.json"]
    assert run("evaluate", "model", *words, "--planner.sampler.steps", "0") == 0
    assert json.loads((place / "all.json").read_text())["protocol"]["network_calls"] == 64


def test_plan_writes_a_picture_and_numbers(place, capsys):
    words = ["plan", "model", "--start", "1", "1", "--goal", "3", "1", "--out", "plan"]
    assert run(*words) == 0
    plan = json.loads((place / "plan" / "plan.json").read_text())
    assert plan["start"] == [1, 1] and plan["goal"] == [3, 1]
    assert len(plan["strip"]) == len(plan["denoising"]) == 3  # noise, then two sampling steps
    np.testing.assert_allclose(plan["observations"][0][:2], [1, 1], atol=1e-3)
    assert (place / "plan" / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert 'class="viewer"' in (place / "plan" / "plan.html").read_text()
    said = capsys.readouterr().out
    assert "plan.png" in said and "plan.html" in said


def test_plan_holds_all_candidates_with_the_best_chosen(place):
    words = ["plan", "model", "--start", "1", "1", "--goal", "3", "1", "--out", "five"]
    assert run(*words, "--planner.candidates", "5") == 0
    plan = json.loads((place / "five" / "plan.json").read_text())
    values = [candidate["value"] for candidate in plan["candidates"]]
    assert len(values) == 5 and values == sorted(values, reverse=True) and plan["chosen"] == 0
    assert len({candidate["drawn"] for candidate in plan["candidates"]}) == 5
    for frame in plan["denoising"]:
        assert np.shape(frame["samples"])[0] == 5
    rows = np.array(plan["observations"])[:, :2]
    np.testing.assert_allclose(plan["denoising"][-1]["samples"][0], rows, atol=1e-3)
    # the path it imagines passes through the plan's rows, at their times
    kept = [t for t in plan["times"] if t < len(plan["imagined"])]
    imagined = np.array(plan["imagined"])[kept]
    np.testing.assert_allclose(imagined, rows[: len(kept)], atol=1e-3)


def test_report_holds_the_results(place):
    words = ["--episodes", "2", "--no-references", "--out", "results/a.json"]
    assert run("evaluate", "model", *words) == 0
    assert run("report", "results", "--out", "report", "--markdown", "tables.md") == 0
    assert RECIPE in (place / "report" / "report.html").read_text()
    assert RECIPE in (place / "tables.md").read_text()


def test_list_names_recipes_data_sets_and_environments(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for name in (RECIPE, "diffuser/maze-large-thesis", "maze-medium", "forethought/maze2d-large"):
        assert name in out
    assert run("list", RECIPE) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["model"]["kind"] == "diffuser" and settings["train"]["steps"] > 0


def test_resumed_training_goes_on(place, capsys):
    words = ["train", RECIPE, "--data", "data", "--out", "model", *TINY, "--resume"]
    assert run(*words, "--train.steps", "40") == 0
    assert json.loads((place / "model" / "training.json").read_text())["steps"] == 40


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), ["demo", "list", "data build", "train", "evaluate", "plan", "report"]),
        (("data",), ["build", "info", "import"]),
        (("data", "build"), ["--out", "--seed", "--steps", "NAME"]),
        (("data", "info"), ["PATH"]),
        (("data", "import"), ["--out", "SOURCE"]),
        (("train",), ["RECIPE"]),
        (("train", RECIPE), ["--out", "--data", "--device", "--resume", "--model.horizon"]),
        (("train", RECIPE), ["--train.steps", "--train.seed", "--planner.sampler.steps"]),
        (("evaluate",), ["PATH"]),
        (("evaluate", "MODEL"), ["--episodes", "--seed", "--multi", "--parallel", "--control."]),
        (("plan",), ["PATH"]),
        (("plan", "MODEL"), ["--start", "--goal", "--out", "--planner.candidates"]),
        (("report",), ["--out", "--markdown"]),
        (("list",), ["RECIPE"]),
        (("demo",), ["--out", "--train-seconds", "--episodes"]),
    ],
)
def test_help_mentions_the_flags(made, capsys, words, flags):
    words = [str(made / "model") if word == "MODEL" else word for word in words]
    assert run(*words, "--help") == 0
    out = capsys.readouterr().out
    for flag in flags:
        assert flag in out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == forethought.__version__


# ------------------------------------------------------------------------------ unknown names


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "Did you mean 'train'", "evaluate", "data"]),
        (["dta", "build"], ["unknown command 'dta'", "Did you mean 'data'"]),
        (["data", "biuld"], ["unknown command 'biuld'", "Did you mean 'build'", "import"]),
        (["data", "build", "maze-umze"], ["unknown data set", "Did you mean 'maze-umaze'"]),
        (["train", "diffuser/maze-umze"], ["unknown recipe", "Did you mean 'diffuser/maze-umaze'"]),
        (["list", "difuser/maze-large"], ["unknown recipe", "Did you mean 'diffuser/maze-large'"]),
        (["train", "mine.py:recipe"], ["mine.py does not exist", "FILE.py:FUNCTION"]),
        (["train"], ["RECIPE comes first", "forethought list"]),
        (["train", "--out", "x", RECIPE], ["RECIPE comes first", "train RECIPE [flags]"]),
        (["evaluate", "--episodes", "3", "x"], ["PATH comes first"]),
        (["evaluate", "nowhere"], ["nowhere is not a checkpoint folder", "forethought train"]),
        (["data", "info", "nowhere"], ["nowhere is not a data-set folder", "data build"]),
        (["train", RECIPE, "--data", "nowhere"], ["nowhere is not a data-set folder"]),
        (["data", "import", "nowhere.hdf5", "--out", "x"], ["nowhere.hdf5"]),
        (["report", "nowhere"], ["nowhere"]),
        (["data", "build", "maze-umaze", "--steps", "0"], ["0 steps", "at least one"]),
    ],
)
def test_unknown_names_are_refused(empty, refuses, words, parts):
    refuses(*words, parts=parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ('dict(dataset="maze-umze")', ["unknown data set 'maze-umze'", "'maze-umaze'"]),
        ('dict(dataset="nowhere/at-all")', ["unknown data set 'nowhere/at-all'", "Known:"]),
    ],
)
def test_unknown_data_set_of_a_recipe_is_refused(empty, refuses, changes, parts):
    (empty / "mine.py").write_text(MAZE_RECIPE.replace("CHANGES", changes))
    refuses("train", "mine.py:elsewhere", parts=parts)
    refuses("train", "mine.py:elsewere", parts=["function in mine.py", "'elsewhere'"])


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ("forethought/maze2d-umze-v0", ["unknown environment", "'forethought/maze2d-umaze-v0'"]),
        ("Pendulum-v1", ["(3,)", "trained on observations of 4 dimensions"]),
    ],
)
def test_wrong_environments_are_refused(place, refuses, env, parts):
    edit_json(place / "model" / "config.json", lambda data: data["experiment"].update(env=env))
    refuses("evaluate", "model", "--episodes", "1", parts=parts)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model.horizn", "32"], ["Unrecognized options: --model.horizn", "--model.horizon INT"]),
        (["--train.steps", "many"], ["--train.steps", "'many'"]),
        (["--model.pad", "zero"], ["--model.pad", "zero", "repeat"]),
        (["--out"], ["--out", "Missing value"]),
    ],
)
def test_wrong_flags_are_refused(empty, refuses, flags, parts):
    refuses("train", RECIPE, *flags, parts=[*parts, "forethought train --help"])


# ---------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model.horizon", "30"], ["horizon 30 is not a multiple of 4", "use 28 or 32"]),
        (["--model.horizon", "1"], ["horizon >= 2"]),
        (["--model.mixed-horizons", "5"], ["mixed horizon 5 does not divide horizon 32"]),
        (["--model.denoising-steps", "0"], ["denoising_steps is 0", "at least 1"]),
        (["--train.steps", "0"], ["train.steps is 0", "at least 1"]),
        (["--train.learning-rate", "-1"], ["train.learning_rate is -1", "positive"]),
        (["--train.ema-decay", "1"], ["train.ema_decay is 1", "[0, 1)"]),
        (["--model.pad", "none", "--model.stride", "200"], ["no window of 6200 steps", "shorter"]),
    ],
)
def test_impossible_settings_are_refused(place, refuses, flags, parts):
    refuses("train", RECIPE, "--data", "data", "--out", "new", *flags, parts=parts)
    assert not (place / "new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_missing_device_is_refused(place, refuses):
    words = ["train", RECIPE, "--data", "data", "--out", "new", "--device", "cuda"]
    refuses(*words, parts=["--device cuda", "use --device cpu"])
    refuses("evaluate", "model", "--device", "cuda", parts=["--device cuda", "use --device cpu"])


def test_existing_run_is_not_overwritten(place, refuses):
    words = ["train", RECIPE, "--data", "data", "--out", "model", *TINY]
    refuses(*words, parts=["model holds an earlier run", "--resume", "--out"])
    (place / "model" / "train_state.safetensors").unlink()
    refuses(*words, parts=["model holds a trained model", "choose another --out"])
    refuses(*words, "--resume", parts=["no saved state to resume"])


def test_resume_with_other_settings_is_refused(place, refuses):
    words = ["train", RECIPE, "--data", "data", "--out", "model", *TINY, "--resume"]
    refuses(*words, "--model.dim", "24", parts=["--model.dim is 24", "begun with 16"])
    refuses(*words, "--train.seed", "3", parts=["--train.seed is 3", "begun with 0"])


def test_resume_with_other_data_is_refused(place, refuses):
    main(["data", "build", "maze-umaze", "--steps", "2000", "--out", "other", "--seed", "1"])
    words = ["train", RECIPE, "--out", "model", *TINY, "--resume"]
    refuses(*words, "--data", "other", parts=["fingerprint", "resume with that one"])
    dataset = EpisodeDataset.open("data")
    names = ("actions", "rewards", "starts", "terminated")
    wider = np.pad(dataset.observations, ((0, 0), (0, 1)))
    EpisodeDataset(wider, *(getattr(dataset, name) for name in names)).save("wider")
    refuses(*words, "--data", "wider", parts=["observation_dim=5", "observation_dim=4"])


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--episodes", "0"], ["0 episodes", "at least 1"]),
        (["--parallel", "0"], ["0 at a time", "at least 1"]),
        (["--planner.sampler.steps", "65"], ["65 sampling steps", "use 1 to 64"]),
        (["--planner.candidates", "0"], ["candidates 0"]),
        (["--planner.length", "-1"], ["planner.length -1"]),
        (["--control.replan-every", "-1"], ["replan_every is -1", "use 0"]),
        (["--control.controller", "follow_actions"], ["follow_actions", "use track_observations"]),
    ],
)
def test_impossible_evaluations_are_refused(place, refuses, flags, parts):
    refuses("evaluate", "model", "--episodes", "1", *flags, parts=parts)


@pytest.mark.parametrize(
    ("start", "goal", "parts"),
    [
        (("1", "1"), ("2", "1"), ["goal (2, 1) is in a wall", "free cells"]),
        (("0", "0"), ("1", "1"), ["start (0, 0) is in a wall"]),
        (("50", "1"), ("1", "1"), ["start (50, 1) is outside the maze"]),
        (("1", "1"), ("-9", "1"), ["goal (-9, 1) is outside the maze"]),
        (("nan", "1"), ("1", "1"), ["start is", "finite"]),
    ],
)
def test_impossible_plans_are_refused(place, refuses, start, goal, parts):
    words = ["plan", "model", "--start", *start, "--goal", *goal, "--out", "plan"]
    refuses(*words, parts=parts)
    assert not (place / "plan").exists()


# ------------------------------------------------------------------------------ damaged data


def edit_json(file: Path, change) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def edit_array(file: Path, change) -> None:
    array = np.load(file)
    changed = change(array)
    np.save(file, array if changed is None else changed)


def poison(value: float):
    def change(array: np.ndarray) -> None:
        array[1234] = value

    return change


DAMAGE = {
    "truncated": (
        lambda data: (data / "observations.npy").write_bytes(
            (data / "observations.npy").read_bytes()[:-500]
        ),
        ["observations.npy is truncated or damaged", "build it again"],
    ),
    "empty file": (
        lambda data: (data / "actions.npy").write_bytes(b""),
        ["actions.npy is truncated or damaged", "build it again"],
    ),
    "missing file": (
        lambda data: (data / "rewards.npy").unlink(),
        ["rewards.npy is missing", "build it again"],
    ),
    "pickle": (
        lambda data: np.save(data / "rewards.npy", np.array([{}], dtype=object)),
        ["rewards.npy is truncated or damaged"],
    ),
    "NaN": (
        lambda data: edit_array(data / "observations.npy", poison(np.nan)),
        ["observations holds NaN or infinite", "row 1234", "import it again"],
    ),
    "infinite": (
        lambda data: edit_array(data / "actions.npy", poison(np.inf)),
        ["actions holds NaN or infinite", "row 1234"],
    ),
    "lengths": (
        lambda data: edit_array(data / "actions.npy", lambda array: array[:-7]),
        ["mismatched lengths", "3001 observation rows, 2994 action rows"],
    ),
    "empty": (
        lambda data: [
            edit_array(data / f"{name}.npy", lambda array: array[:0])
            for name in ("observations", "actions", "rewards", "starts", "terminated")
        ],
        ["data set is empty", "at least one step"],
    ),
    "header": (
        lambda data: (data / "dataset.json").write_text("{"),
        ["dataset.json is damaged", "again"],
    ),
    "newer": (
        lambda data: edit_json(data / "dataset.json", lambda d: d.update(format_version=99)),
        ["format version 99", "pip install --upgrade"],
    ),
    "steps": (
        lambda data: edit_json(data / "dataset.json", lambda d: d.update(steps=4000)),
        ["is truncated: 3000 steps found, 4000 recorded"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_data_sets_are_refused(place, refuses, name):
    damage, parts = DAMAGE[name]
    damage(place / "data")
    refuses("train", RECIPE, "--data", "data", "--out", "new", *TINY, parts=parts)
    refuses("data", "info", "data", parts=parts)
    assert not (place / "new").exists()


def test_data_set_is_not_written_over_something_else(empty, refuses):
    (empty / "papers").mkdir()
    (empty / "papers" / "thesis.txt").write_text("years of work")
    words = ["data", "build", "maze-umaze", "--steps", "50", "--out", "papers"]
    refuses(*words, parts=["papers exists and is not a data set"])
    refuses("demo", "--out", "papers", parts=["papers exists and is not an earlier demo"])


# ----------------------------------------------------------------------- damaged checkpoints


def keep_only_a_pickle(model: Path) -> None:
    for file in model.iterdir():
        file.unlink()
    (model / "model.pt").write_bytes(pickle.dumps({}))


BROKEN = {
    "config": (lambda model: (model / "config.json").unlink(), ["config.json is missing"]),
    "weights": (
        lambda model: (model / "model.safetensors").unlink(),
        ["model.safetensors is missing", "train it again"],
    ),
    "header": (
        lambda model: (model / "model.safetensors").write_bytes(b"\xff" * 100),
        ["model.safetensors is damaged", "train it again"],
    ),
    "pickle": (keep_only_a_pickle, ["model.pt", "never loaded"]),
    "newer": (
        lambda model: edit_json(model / "config.json", lambda d: d.update(format_version=2)),
        ["format version 2", "pip install --upgrade"],
    ),
    "unknown key": (
        lambda model: edit_json(
            model / "config.json", lambda d: d["experiment"]["train"].update(step=3)
        ),
        ["unknown setting 'step'", "Did you mean 'steps'"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_refused(place, refuses, name):
    damage, parts = BROKEN[name]
    damage(place / "model")
    refuses("evaluate", "model", "--episodes", "1", parts=parts)
    refuses("plan", "model", "--start", "1", "1", "--goal", "3", "1", parts=parts)


def test_damaged_training_state_is_refused(place, refuses):
    (place / "model" / "train_state.safetensors").write_bytes(b"\0" * 50)
    words = ["train", RECIPE, "--data", "data", "--out", "model", *TINY, "--resume"]
    refuses(*words, parts=["train_state.safetensors is damaged", "train it again"])


# -------------------------------------------------------------------------------- interrupts


def test_interrupted_training_says_how_to_go_on(place, monkeypatch, capsys):
    advance = training.TrainingRun.advance

    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return advance(*arguments)

    monkeypatch.setattr(training.TrainingRun, "advance", interrupt)
    words = ["train", RECIPE, "--data", "data", "--out", "with space", *TINY]
    assert run(*words) == 130
    stderr = capsys.readouterr().err
    assert "stopped at step 1 of 30" in stderr and "Traceback" not in stderr
    command = stderr.strip().splitlines()[-1].strip()
    assert command.startswith("forethought train ") and command.endswith(" --resume")
    assert "'with space'" in command
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert run(*words, "--resume") == 0


def test_interrupt_elsewhere_is_one_line(empty, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "build_data", interrupt)
    assert run("data", "build", "maze-umaze") == 130
    assert capsys.readouterr().err == "interrupted\n"


# --------------------------------------------------------------------- as a user starts them


def test_module_refuses_with_one_line(tmp_path):
    done = python_m("train", "diffuser/maze-umze", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: unknown recipe")
    assert list(tmp_path.iterdir()) == []


def test_module_records_its_command(place):
    words = ["evaluate", "model", "--episodes", "1", "--no-references", "--out", "x y.json"]
    done = python_m(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    protocol = json.loads((place / "x y.json").read_text())["protocol"]
    command = "forethought evaluate model --episodes 1 --no-references --out 'x y.json'"
    assert protocol["command"] == command


def test_ctrl_c_stops_a_real_run_and_resume_finishes_it(place):
    words = ["train", RECIPE, "--data", "data", "--out", "run", *TINY, "--train.steps", "100000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "forethought", *words, "--train.save-every", "5"],
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 600
        while not (place / "run" / "model.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=600)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in stderr and "--resume" in stderr
    step = int(stderr.split("stopped at step ")[1].split()[0])
    assert run(*words, "--resume", "--train.steps", step + 5) == 0
    assert json.loads((place / "run" / "training.json").read_text())["steps"] == step + 5
