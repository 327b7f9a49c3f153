"""Copy a trained model in half precision, as small as it ships.

    python benchmarks/ship_model.py runs/transformer/four-rooms/seed0 OUT

Learned weights are rounded to 16 bits, which halves the file; bins, normalizers and whatever else
was fitted to data stay exact. Studies then take their rows from the copy, so what is scored is what
ships.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from forethought.checkpoint import CONFIG, WEIGHTS, load_model, load_tensors, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that `forethought train` wrote")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    learned = {name for name, _ in load_model(arguments.run).named_parameters()}
    tensors, _ = load_tensors(arguments.run / WEIGHTS)
    shipped = {name: t.half() if name in learned else t for name, t in tensors.items()}
    lost = [name for name in learned if not bool(torch.isfinite(shipped[name]).all())]
    if lost:
        raise SystemExit(f"{', '.join(lost)}: too large for 16 bits; nothing was written")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, "training.json"):
        shutil.copyfile(arguments.run / name, arguments.out / name)
    save_model(arguments.out, shipped)
    change = max(
        float((shipped[name].float() - tensors[name]).norm() / tensors[name].norm().clamp(min=1e-9))
        for name in learned
    )
    size = (arguments.out / WEIGHTS).stat().st_size / 1e6
    print(f"{arguments.out}: {size:.2f} MB, weights moved by at most {change:.1e} of their norm")


if __name__ == "__main__":
    main()
