"""Checkpoints: a folder of ``config.json``, ``model.safetensors``, ``train_state.safetensors``.

The first two are enough to load a model and plan: no data set, no environment, no pickle. The third
holds what a resumed run needs, in one file, so it can never disagree with itself. Every file is
written to a temporary name, flushed to disk and renamed, so that a kill at any instant leaves the
old or the new one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from forethought.config import Experiment, from_json, to_json
from forethought.types import Spaces

if TYPE_CHECKING:  # for annotations only: layer 0 imports nothing above it
    from forethought.models.base import Model

Device = Literal["cpu", "cuda", "mps", "auto"]
FORMAT_VERSION = 1
CONFIG, WEIGHTS, TRAIN_STATE = "config.json", "model.safetensors", "train_state.safetensors"


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a scratch path beside ``file``, flush it, rename it into place."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        scratch.touch()
        mode = scratch.stat().st_mode
        write(scratch)
        scratch.chmod(mode)  # safetensors would leave it unreadable to others
        with open(scratch, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(scratch, file)
    except OSError as error:
        raise OSError(
            f"could not write {file}: {error.strerror or error}. Nothing was changed; free some "
            "disk space or choose another folder."
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_result(file: Path, data: dict[str, Any]) -> None:
    """Write a result file atomically, one line a key: long lists stay short on disk."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in data.items()
    ]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def write_json(file: Path, data: Any) -> None:
    """Write JSON atomically, readable by people."""
    write_text(file, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically."""

    def write(path: Path) -> None:
        path.write_text(text)

    write_atomically(file, write)


def save_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; its metadata values are strings."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(path: Path) -> None:
        try:
            save_file(contiguous, path, metadata=metadata)
        except (
            safetensors.SafetensorError
        ) as error:  # the library wraps a full disk in its own type
            raise OSError(str(error)) from error

    write_atomically(file, write)


def load_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file; an error with advice if it is missing, damaged or no such file."""
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.parent} is not a complete checkpoint: {file.name} is missing; copy or train it "
            f"again.{_about_pickles(file.parent)}"
        )
    try:
        with safetensors.safe_open(file, framework="pt") as handle:
            metadata = handle.metadata() or {}
            return {name: handle.get_tensor(name) for name in handle.keys()}, metadata  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, MemoryError) as error:
        raise ValueError(
            f"{file} is damaged or not a safetensors file ({error}); copy or train it again"
        ) from error


def _about_pickles(folder: Path) -> str:
    pickled = [p.name for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".pkl", ".bin")]
    if not pickled:
        return ""
    return f" It holds {min(pickled)}: pickled weights can run code, and are never loaded."


def save_config(
    out: Path, experiment: Experiment, spaces: Spaces, *, dataset: dict[str, Any], seed: int
) -> None:
    """Write ``config.json``: the experiment, the spaces, and where it all came from."""
    out.mkdir(parents=True, exist_ok=True)
    packages = ("forethought", "torch", "numpy", "gymnasium", "mujoco", "safetensors")
    data = {
        "format_version": FORMAT_VERSION,
        "experiment": to_json(experiment),
        "spaces": asdict(spaces),
        "dataset": dataset,
        "seed": seed,
        "made_with": {
            "commit": current_commit(),
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
    }
    write_json(out / CONFIG, data)


def load_config(path: Path | str) -> dict[str, Any]:
    """``config.json`` of a checkpoint as a dict with ``experiment`` and ``spaces`` rebuilt."""
    path = Path(path)
    file = path / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} is not a checkpoint folder: {CONFIG} is missing. Train one with "
            f"`forethought train RECIPE`; see `forethought list`.{_about_pickles(path)}"
        )
    try:
        data = json.loads(file.read_text())
        version = int(data["format_version"])
        if version <= FORMAT_VERSION:
            spaces = from_json(Spaces, data["spaces"], where="spaces")
            experiment = dict(data["experiment"])
            _ = data["dataset"]["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); copy or train it again") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version}; this forethought reads up to {FORMAT_VERSION}. "
            "Upgrade with `pip install --upgrade forethought`."
        )
    experiment = from_json(Experiment, experiment, where=str(file))
    return data | {"experiment": experiment, "spaces": spaces}


def save_model(out: Path, state: dict[str, Tensor]) -> None:
    """Write the weights that plan (the average, if there is one)."""
    save_tensors(out / WEIGHTS, state, {"format": "pt"})


def find_checkpoint(path: Path | str) -> Path:
    """``path`` if it is there, else the same below the source tree, where ``pretrained/`` lies."""
    given, beside = Path(path), Path(__file__).parents[2] / path
    return beside if beside.is_dir() and not given.is_dir() else given


def load_model(path: Path | str) -> Model:
    """The trained model in a checkpoint folder, ready to plan, on the CPU.

    A folder that ``forethought.online.export_policy`` wrote holds what acting needs alone: critics
    are untrained then.
    """
    path = Path(path)
    config = load_config(path)
    tensors, _ = load_tensors(path / WEIGHTS)
    model = config["experiment"].model.build(config["spaces"])
    try:
        model.load_state_dict(tensors, strict=not _is_policy_alone(model, tensors))
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise ValueError(
            f"{path / WEIGHTS} does not fit the model that {CONFIG} describes"
            f"{':' + first[0] if first else ''}; the two files are from different runs"
        ) from error
    return model.eval().requires_grad_(False)


def _is_policy_alone(model: Model, tensors: dict[str, Tensor]) -> bool:
    from forethought.models.base import Explorer  # when called: layer 0 imports nothing above it

    return isinstance(model, Explorer) and set(tensors) == set(model.actor_state())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def current_commit() -> str | None:
    """Short commit of the source tree ("+" = uncommitted changes), None outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no", str(here))
        return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def find_device(name: Device) -> torch.device:
    """The device that ``--device`` names, auto being the GPU if there is one.

    Raises ValueError if it is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not found[name]:
        raise ValueError(f"--device {name}: torch finds no such device here; use --device cpu")
    return torch.device(name)


def hardware() -> dict[str, Any]:
    """What the numbers were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
