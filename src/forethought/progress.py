"""What a person sees of a training run: a progress bar, ``metrics.jsonl`` and TensorBoard
events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from forethought.checkpoint import write_text


class TrainProgress:
    """Context manager around a run from step ``first`` to ``total`` that logs into folder ``out``.

    Rows of an earlier attempt past ``first`` are dropped, so a resumed run's log has each step
    once.
    """

    def __init__(self, out: Path, *, first: int, total: int) -> None:
        self._file = out / "metrics.jsonl"
        self._keep_rows_up_to(first)
        self._writer = SummaryWriter(str(out), purge_step=first + 1)
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.1f} steps/s"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=total, completed=first, loss=float("nan"), rate=0)
        self._mark = (first, time.perf_counter())

    def _keep_rows_up_to(self, step: int) -> None:
        if not self._file.exists():
            return
        kept = []
        for line in self._file.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break  # a kill tore the last line
            if row["step"] <= step:
                kept.append(line + "\n")
        write_text(self._file, "".join(kept))

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._writer.close()

    def advance(self) -> None:
        """One step done."""
        self._bar.advance(self._task)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record metrics at ``step``."""
        before, since = self._mark
        now = time.perf_counter()
        rate = (step - before) / max(now - since, 1e-9)
        self._mark = (step, now)
        row = {"step": step, "steps_per_second": round(rate, 3), **metrics}
        with self._file.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._bar.update(self._task, loss=metrics["loss"], rate=rate)
