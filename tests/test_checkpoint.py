"""Checkpoints: round trips, refusals of damaged and hostile files, writes that fail."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from forethought import checkpoint
from forethought.checkpoint import (
    CONFIG,
    FORMAT_VERSION,
    WEIGHTS,
    load_config,
    load_model,
    load_tensors,
    save_config,
    save_model,
    save_tensors,
    write_json,
)
from forethought.config import ControlConfig, Experiment, TrainConfig
from forethought.data.episodes import EpisodeDataset
from forethought.planners.diffusion import DiffusionPlannerConfig


@pytest.fixture
def experiment(tiny_config) -> Experiment:
    return Experiment(
        name="tiny",
        dataset="waves",
        env="forethought/maze2d-umaze-v0",
        model=tiny_config,
        train=TrainConfig(steps=3, learning_rate=0.1, betas=(0.5, 0.6)),
        planner=DiffusionPlannerConfig(length=7, candidates=3),
        control=ControlConfig(gains=((1.0, 2.0, 3.0),) * 2, replan_every=4),
    )


@pytest.fixture
def folder(tmp_path, experiment, tiny_model) -> Path:
    """A complete checkpoint."""
    facts = {"name": "waves", "fingerprint": "0123", "seed": 5}
    save_config(tmp_path / "model", experiment, tiny_model.spaces, dataset=facts, seed=5)
    save_model(tmp_path / "model", tiny_model.state_dict())
    return tmp_path / "model"


def edit_config(folder: Path, change) -> None:
    data = json.loads((folder / CONFIG).read_text())
    change(data)
    (folder / CONFIG).write_text(json.dumps(data))


def safetensors_bytes(header: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def header_of(**tensors) -> bytes:
    return json.dumps(
        {name: {"dtype": "F32", "shape": s, "data_offsets": o} for name, (s, o) in tensors.items()}
    ).encode()


# ------------------------------------------------------------------------------ round trips


def test_model_round_trips_bit_equal(folder, experiment, tiny_model):
    loaded = load_model(folder)
    torch.testing.assert_close(loaded.state_dict(), tiny_model.state_dict(), rtol=0, atol=0)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    config = load_config(folder)
    assert config["experiment"] == experiment
    assert config["spaces"] == tiny_model.spaces
    assert config["dataset"] == {"name": "waves", "fingerprint": "0123", "seed": 5}
    assert config["made_with"]["torch"] == torch.__version__


def test_checkpoint_alone_is_enough(folder, tmp_path):
    """In another place, without its run's other files."""
    (tmp_path / "other").mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).rename(tmp_path / "other" / name)
    assert load_model(str(tmp_path / "other")).spaces.observation_dim == 3


def test_tensors_round_trip_with_metadata(tmp_path):
    tensors = {
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
    }
    save_tensors(tmp_path / "x.safetensors", tensors, {"run": "ü {}"})
    found, metadata = load_tensors(tmp_path / "x.safetensors")
    torch.testing.assert_close(found, tensors, rtol=0, atol=0)
    assert metadata == {"run": "ü {}"}


def test_saved_files_follow_the_umask(folder):
    modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in (CONFIG, WEIGHTS)}
    mask = os.umask(0)
    os.umask(mask)
    assert modes == {0o666 & ~mask}


# ------------------------------------------------------------------------ incomplete folders


def test_missing_config_is_refused(folder):
    (folder / CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json is missing.*forethought train"):
        load_model(folder)


def test_missing_weights_are_refused(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing; copy or train"):
        load_model(folder)


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "state.pkl", "pytorch_model.bin"])
def test_pickles_are_named_and_never_loaded(folder, tmp_path, name, has_config):
    (folder / WEIGHTS).unlink()
    if not has_config:
        (folder / CONFIG).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(FileNotFoundError, match=rf"{name}: pickled weights .* never loaded"):
        load_model(folder)
    assert not (tmp_path / "exploded").exists()
    pickle.loads((folder / name).read_bytes())
    assert (tmp_path / "exploded").exists()  # the bomb was live


@pytest.mark.parametrize("as_torch", [True, False])
def test_pickle_named_safetensors_is_not_unpickled(folder, tmp_path, as_torch):
    bomb = Bomb(tmp_path / "exploded")
    if as_torch:
        torch.save(bomb, folder / WEIGHTS)
    else:
        (folder / WEIGHTS).write_bytes(pickle.dumps(bomb))
    with pytest.raises(ValueError, match="damaged or not a safetensors file.*train it again"):
        load_model(folder)
    assert not (tmp_path / "exploded").exists()


# -------------------------------------------------------------------- damaged, hostile files


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_truncated_weights_are_refused(folder, keep):
    content = (folder / WEIGHTS).read_bytes()
    end = int(keep * len(content)) if isinstance(keep, float) else keep
    (folder / WEIGHTS).write_bytes(content[:end])
    with pytest.raises(ValueError, match="damaged or not a safetensors file.*train it again"):
        load_model(folder)


HOSTILE = {
    "huge length prefix": safetensors_bytes(b"{}", length=2**63),
    "largest length prefix": safetensors_bytes(b"{}", length=2**64 - 1),
    "length of a terabyte": safetensors_bytes(b"{}", length=10**12),
    "no JSON": safetensors_bytes(b"\xff\xfe not json"),
    "a list": safetensors_bytes(b"[1, 2]"),
    "deep nesting": safetensors_bytes(b"[" * 100_000),
    "overlapping": safetensors_bytes(header_of(a=([2], [0, 8]), b=([2], [4, 12])), bytes(12)),
    "hole": safetensors_bytes(header_of(a=([1], [0, 4]), b=([1], [8, 12])), bytes(12)),
    "outside": safetensors_bytes(header_of(a=([4], [0, 16])), bytes(8)),
    "far outside": safetensors_bytes(header_of(a=([1], [2**40, 2**40 + 4])), bytes(8)),
    "reversed": safetensors_bytes(header_of(a=([1], [4, 0])), bytes(8)),
    "negative": safetensors_bytes(header_of(a=([1], [-4, 0])), bytes(8)),
    "shape and size differ": safetensors_bytes(header_of(a=([3], [0, 8])), bytes(8)),
    "shape overflows": safetensors_bytes(header_of(a=([2**33, 2**33], [0, 8])), bytes(8)),
    "trailing bytes": safetensors_bytes(header_of(a=([1], [0, 4])), bytes(64)),
    "unknown type": safetensors_bytes(
        b'{"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(folder, name):
    (folder / WEIGHTS).write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_model(folder)


def test_wrong_shapes_are_refused(folder, tiny_model):
    state = tiny_model.state_dict()
    name = next(name for name, tensor in state.items() if tensor.ndim == 3)
    save_model(folder, state | {name: state[name][..., :-1]})
    with pytest.raises(ValueError, match="does not fit the model that config.json describes"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["missing", "extra"])
def test_wrong_names_are_refused(folder, tiny_model, kind):
    state = dict(tiny_model.state_dict())
    if kind == "missing":
        state.popitem()
    else:
        state["surprise"] = torch.zeros(1)
    save_model(folder, state)
    with pytest.raises(ValueError, match="does not fit the model that config.json describes"):
        load_model(folder)


# ------------------------------------------------------------------------------ config.json


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**30])
def test_newer_format_says_to_upgrade(folder, version):
    def make_newer(data):
        data["format_version"] = version
        data["experiment"] = {"another": "layout"}
        del data["spaces"]

    edit_config(folder, make_newer)
    with pytest.raises(ValueError, match="format version .* reads up to 1.*pip install --upgrade"):
        load_model(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"null", b"\x80\x04binary", b'{"format_version": 1}']
    + [b'{"format_version": "new"}', b'{"format_version": 1, "spaces": 3, "experiment": 4}'],
)
def test_damaged_config_is_refused(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(ValueError, match="config.json is damaged .* train it again"):
        load_model(folder)


def test_unknown_keys_are_refused_with_a_suggestion(folder):
    edit_config(folder, lambda data: data["experiment"]["model"].update(horizn=8))
    with pytest.raises(ValueError, match="unknown setting 'horizn'. Did you mean 'horizon'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "kind"), "difuser", "unknown model 'difuser'. Did you mean 'diffuser'"),
        (("planner", "kind"), "difusion", "unknown planner 'difusion'. Did you mean 'diffusion'"),
        (("model", "horizon"), "8", "config.json.model.horizon is '8'; expected .* int"),
        (("model", "horizon"), 9, "horizon 9 is not a multiple of 2"),
        (("model", "actions"), "some", "model.actions is 'some'; expected one of"),
        (("train", "betas"), [0.5], "train.betas has 1 items; expected 2"),
        (("train", "steps"), 0, "train.steps is 0; it must be at least 1"),
        (("model",), "x", "config.json.model is 'x'; expected an object"),
    ],
)
def test_wrong_settings_are_refused(folder, path, value, message):
    def change(data):
        place = data["experiment"]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    edit_config(folder, change)
    with pytest.raises((ValueError, KeyError), match=message):
        load_model(folder)


def test_missing_setting_is_refused(folder):
    edit_config(folder, lambda data: data["experiment"].pop("env"))
    with pytest.raises(ValueError, match="env"):
        load_model(folder)


# ------------------------------------------------------------------------- writes that fail


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


ADVICE = "No space left on device. Nothing was changed; free some disk space"


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_full_disk_leaves_the_old_weights(folder, tiny_model, monkeypatch, broken):
    before = (folder / WEIGHTS).read_bytes()
    monkeypatch.setattr(checkpoint.os, broken, full_disk)
    with pytest.raises(OSError, match=f"could not write .*model.safetensors: {ADVICE}"):
        save_model(folder, {k: v + 1 for k, v in tiny_model.state_dict().items()})
    assert (folder / WEIGHTS).read_bytes() == before
    assert {file.name for file in folder.iterdir()} == {CONFIG, WEIGHTS}


def test_full_disk_leaves_the_old_json(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", {"old": 1})
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match=f"could not write .*x.json: {ADVICE}"):
        write_json(tmp_path / "x.json", {"new": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_interrupted_write_leaves_no_scratch_file(tmp_path):
    def write(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


def run_limited(write, limit: int) -> str:
    """Call ``write`` in a fork where no file may grow past ``limit`` bytes; its error's message."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            write()
        except OSError as error:
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


WRITES = {
    "weights": lambda folder: save_model(folder, {"x": torch.ones(50_000)}),
    "json": lambda folder: write_json(folder / CONFIG, {"x": "y" * 100_000}),
}


@pytest.mark.parametrize("what", WRITES)
def test_failed_write_leaves_the_old_checkpoint(folder, what):
    before = contents(folder)
    message = run_limited(lambda: WRITES[what](folder), 20_000)
    assert "could not write" in message and "free some disk space" in message
    assert contents(folder) == before
    load_model(folder)


@pytest.mark.parametrize("limit", [100, 20_000])
def test_failed_write_leaves_the_old_data_set(tmp_path, dataset, limit):
    dataset.save(tmp_path / "data")
    before = contents(tmp_path)
    larger = EpisodeDataset.from_episodes([*dataset] * 50)
    message = run_limited(lambda: larger.save(tmp_path / "data"), limit)
    assert "could not write" in message and "free some disk space" in message
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    opened = EpisodeDataset.open(tmp_path / "data")
    np.testing.assert_array_equal(opened.observations, dataset.observations)
