r"""Figure 5.3b: trained on straight lines only, does Diffuser plan V shapes? Against Figure 5.2.

The data are lines in open space, each at a constant speed between half and one and a half times the
usual, along one of two directions, (1, 1) and (1, -1). A start and a goal that no line joins can still be joined by steps from both kinds of lines, in as
many orders as there are. A plan is feasible if each of its steps is like a step of the data: along
one of the two directions and with a length that the data show, within a tolerance. Four of its 23 steps may be otherwise: no line
has a corner. ``like_data`` counts the steps themselves.

The thesis's claim (Section 5.3, "Temporal locality", and 5.4): if one denoising step sees only a
part of the plan, it can enforce only local consistency, and plans combine what was never seen
together. So the receptive field varies here and all else stays: rows within reach of a network's
convolutions, measured as the rows whose output reacts to one input row. Group normalization ties all
rows together through two numbers a group, in every network here as in the released one; the measured
field leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forethought.config import TrainConfig
from forethought.data.episodes import Episode, EpisodeDataset
from forethought.models.base import SamplerConfig
from forethought.models.diffuser import Diffuser, DiffuserConfig
from forethought.nn.unet1d import TemporalUnet
from forethought.scores import mean_and_interval
from forethought.studies.base import StudySettings
from forethought.training import train
from forethought.types import Pin

ROWS = 24  # of a line, and of a plan
STEP = 0.045  # usual, per axis and row; the space is [-1, 1] x [-1, 1]
SPEEDS = (0.5, 1.5)  # of the data's lines, as multiples of STEP
SPEED_TOLERANCE = 0.2  # of a step's length beyond SPEEDS, in the same unit
ANGLE_TOLERANCE = 30.0  # degrees off one of the two directions, which are 90 apart
CORNER_STEPS = 4  # of a plan's 23, that may be unlike the data's, because they round a corner


@dataclass(frozen=True, kw_only=True)
class Network:
    """One U-Net of the comparison: depth and kernel decide the receptive field."""

    dim_mults: tuple[int, ...]
    kernel_size: int
    dim: int
    middle_blocks: int = 2


NETWORKS = (
    Network(dim_mults=(1,), kernel_size=3, dim=96, middle_blocks=0),
    Network(dim_mults=(1,), kernel_size=5, dim=72, middle_blocks=0),
    Network(dim_mults=(1,), kernel_size=3, dim=48),
    Network(dim_mults=(1,), kernel_size=5, dim=40),
    Network(dim_mults=(1,), kernel_size=9, dim=32),
    Network(dim_mults=(1, 2, 4), kernel_size=5, dim=16),
)


def draw_lines(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, ROWS, 2) points (x, y) on lines within [-1, 1]^2, one of the directions each."""
    step = STEP * generator.uniform(*SPEEDS, (count, 1, 1))
    offset = step * np.arange(ROWS)[:, None] * np.ones(2)
    start = generator.uniform(-1, 1 - offset[:, -1])
    lines = start[:, None] + offset
    lines[:, :, 1] *= generator.choice([-1.0, 1.0], count)[:, None]
    return lines.astype(np.float32)


def draw_tasks(count: int, turns: bool, generator: np.random.Generator) -> Tensor:
    """(count, 2, 2): starts and goals that steps like the data's join at about the usual speed;
    with ``turns`` a third to two thirds of the way go up, else all of it or none."""
    up = generator.uniform(1 / 3, 2 / 3, count) if turns else generator.choice([0.0, 1.0], count)
    span = (ROWS - 1) * STEP * generator.uniform(0.8, 1.2, count)
    move = span[:, None] * np.stack([np.ones(count), 2 * up - 1], axis=1)
    middle = generator.uniform(-0.2, 0.2, (count, 2))
    ends = np.stack([middle - move / 2, middle + move / 2], axis=1)
    return torch.from_numpy(ends.astype(np.float32))


def are_like_data(plans: Tensor) -> Tensor:
    """Whether each step of plans (..., ROWS, 2) is like one of the data's: (..., ROWS - 1) bool."""
    step = plans.diff(dim=-2)
    length = step.square().sum(dim=-1).sqrt() / (STEP * 2**0.5)
    angle = torch.rad2deg(torch.atan2(step[..., 1], step[..., 0]))
    slow, fast = SPEEDS[0] - SPEED_TOLERANCE, SPEEDS[1] + SPEED_TOLERANCE
    along = (angle.abs() - 45).abs() <= ANGLE_TOLERANCE
    return along & (length >= slow) & (length <= fast)


def are_feasible(plans: Tensor) -> Tensor:
    """Whether all steps of plans (..., ROWS, 2), but a corner's, are like the data's: (...) bool."""
    return (~are_like_data(plans)).sum(dim=-1) <= CORNER_STEPS


def measure_receptive_field(network: TemporalUnet, rows: int = 512) -> int:
    """Rows of the input that one row of the output depends on, normalization left out."""
    normalizers = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    kept = [m.forward for m in normalizers]
    for module in normalizers:
        module.forward = nn.Identity().forward
    x = torch.zeros(1, rows, network.down[0][0].first[0].in_channels, requires_grad=True)  # pyright: ignore[reportIndexIssue]
    fields = []
    for row in range(rows // 2, rows // 2 + network.multiple):
        output = network(x, torch.zeros(1))[0, row].sum()
        (gradient,) = torch.autograd.grad(output, x)
        fields.append(int((gradient[0].abs().sum(dim=1) > 0).sum()))
    for module, forward in zip(normalizers, kept, strict=True):
        module.forward = forward
    return max(fields)


def train_on_lines(
    network: Network, settings: StudySettings, *, steps: int, n_lines: int, seed: int
) -> Diffuser:
    """A small Diffuser of the lines' positions; checkpoints in ``settings.runs``."""
    lines = draw_lines(n_lines, np.random.default_rng(seed))
    dataset = EpisodeDataset.from_episodes(
        [Episode(line, np.diff(line, axis=0), np.zeros(ROWS - 1)) for line in lines],
        builder="straight-lines",
        seed=seed,
    )
    config = DiffuserConfig(
        horizon=ROWS,
        actions="none",
        denoising_steps=128,
        prediction="noise",  # as in the thesis; small errors where little noise is left
        condition_in_training="start_and_end",
        dim=network.dim,
        dim_mults=network.dim_mults,
        kernel_size=network.kernel_size,
        middle_blocks=network.middle_blocks,
        blocks_per_level=1,
        activation="silu",
    )
    torch.manual_seed(seed)
    model = config.build(dataset.spaces)
    model.fit_statistics(dataset)
    training = TrainConfig(
        steps=steps, batch_size=32, learning_rate=2e-3, ema_decay=0.995, save_every=500, seed=seed
    )
    shape = f"{len(network.dim_mults)}x{network.kernel_size}x{network.dim}-{network.middle_blocks}"
    out = settings.runs / "figure-5-3" / f"lines-{shape}-seed{seed}"
    trained = train(model, config.view(dataset), training, out, resume=True)
    assert isinstance(trained, Diffuser), "train returns the model it was given"
    return trained.eval()


def sample_plans(model: Diffuser, tasks: Tensor, samples: int, seed: int) -> Tensor:
    """(tasks, samples, ROWS, 2) plans by the full chain of denoising steps."""
    times = torch.arange(ROWS)
    plans = model.sample(
        [Pin(0, tasks[:, 0]), Pin("last", tasks[:, 1])],
        times=times,
        n_candidates=samples,
        sampler=SamplerConfig(kind="ddpm", steps=0),
        generator=torch.Generator().manual_seed(seed),
    )
    return plans.observations


def compute_stitching(
    settings: StudySettings,
    *,
    networks: tuple[Network, ...] = NETWORKS,
    steps: int = 1200,
    n_tasks: int = 20,
    samples: int = 8,
    seeds: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """Share of feasible plans by receptive field, for goals that need a turn and goals that do not."""
    n_tasks = settings.episodes or n_tasks
    rows = []
    for network in networks:
        rows.append(_measure(network, settings, steps, n_tasks, samples, seeds))
        shares = {kind: round(rows[-1][kind]["mean"], 3) for kind in ("turning", "straight")}
        settings.console.print(f"    {rows[-1]['receptive_field']} rows: {shares}")
    lines = draw_lines(60, np.random.default_rng(settings.seed))
    return {
        "rows": rows,
        "horizon": ROWS,
        "tolerance": {"speed": SPEED_TOLERANCE, "degrees": ANGLE_TOLERANCE, "steps": CORNER_STEPS},
        "protocol": {
            "tasks": n_tasks,
            "plans_per_task": samples,
            "training_seeds": list(seeds),
            "training_steps": steps,
            "sampler": "ddpm, all 128 steps, start and goal pinned",
            "interval": "over tasks, all training seeds' plans of a task averaged",
        },
        "lines": lines[:, [0, -1]].round(3).tolist(),
    }


def _measure(
    network: Network,
    settings: StudySettings,
    steps: int,
    n_tasks: int,
    samples: int,
    seeds: tuple[int, ...],
) -> dict[str, Any]:
    models = [
        train_on_lines(network, settings, steps=steps, n_lines=4000, seed=settings.seed + seed)
        for seed in seeds
    ]
    row: dict[str, Any] = {
        "dim_mults": list(network.dim_mults),
        "kernel_size": network.kernel_size,
        "middle_blocks": network.middle_blocks,
        "dim": network.dim,
        "parameters": sum(p.numel() for p in models[0].network.parameters()),
        "receptive_field": measure_receptive_field(models[0].network),
    }
    for kind in ("turning", "straight"):
        generator = np.random.default_rng(settings.seed + 1)
        tasks = draw_tasks(n_tasks, kind == "turning", generator)
        plans = torch.stack([sample_plans(model, tasks, samples, settings.seed) for model in models])
        feasible = are_feasible(plans)  # (seeds, tasks, samples)
        mean, low, high = mean_and_interval(feasible.float().mean(dim=(0, 2)).tolist())
        row[kind] = {
            "mean": mean,
            "interval": [max(low, 0.0), min(high, 1.0)],
            "by_seed": feasible.float().mean(dim=(1, 2)).tolist(),
            "like_data": float(are_like_data(plans).float().mean()),
        }
        if kind == "turning":
            row["examples"] = [
                {
                    "start": tasks[task, 0].tolist(),
                    "goal": tasks[task, 1].tolist(),
                    "plans": plans[0, task, :6].numpy().round(3).tolist(),
                    "feasible": feasible[0, task, :6].tolist(),
                }
                for task in range(1)
            ]
    return row
