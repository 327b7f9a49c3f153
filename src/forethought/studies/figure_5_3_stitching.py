r"""Figure 5.3b: trained on straight lines only, does Diffuser plan V shapes? Against Figure 5.2.

The data are lines of one speed across open space, from the upper left to the lower right or from
the lower left to the upper right; the two kinds cross in the middle. A start on one kind and a goal
on the other are joined by no line, but by the halves of two. A plan is feasible if each stretch of
three of its steps is like one of the data: along one of the two directions and as long, within a
tolerance. Five of the 21 stretches may be otherwise, since no line has a corner; ``like_data``
counts the stretches. The sampler adds half the chain's noise, as the released code does.

The thesis's claim (Section 5.3, "Temporal locality", and 5.4): if one denoising step sees only a
part of the plan, it can enforce only local consistency, and plans combine what was never seen
together. So the receptive field varies here and all else stays: the rows that one row of the output
depends on, measured by gradients. Group normalization ties all rows together through two numbers a
group, in every network here as in the released one; the measured field leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass
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
STEP = 1.6 / (ROWS - 1)  # per axis and row
JITTER = 0.15  # half width of the lines' starts around (-0.8, 0.8) and (-0.8, -0.8)
LENGTH_TOLERANCE = 0.5  # of a stretch's length, relative
ANGLE_TOLERANCE = 30.0  # degrees off one of the two directions, which are 90 apart
STRETCH = 3  # steps that are compared together
CORNER_STRETCHES = 5  # of a plan's 21, that may be unlike the data's, because they round a corner


@dataclass(frozen=True, kw_only=True)
class Network:
    """One U-Net of the comparison: depth and kernel decide the receptive field."""

    dim_mults: tuple[int, ...]
    kernel_size: int
    dim: int
    middle_blocks: int = 2


NETWORKS = (
    Network(dim_mults=(1,), kernel_size=3, dim=48),
    Network(dim_mults=(1, 2, 4), kernel_size=5, dim=16),
    Network(dim_mults=(1,), kernel_size=3, dim=96, middle_blocks=0),
    Network(dim_mults=(1,), kernel_size=5, dim=40),
    Network(dim_mults=(1,), kernel_size=9, dim=32),
)


def draw_lines(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, ROWS, 2) points (x, y) of lines that go down or up."""
    up = generator.choice([-1.0, 1.0], (count, 1, 1))
    start = generator.uniform(-JITTER, JITTER, (count, 1, 2)) - 0.8
    lines = start + STEP * np.arange(ROWS)[:, None]
    return np.concatenate([lines[..., :1], up * lines[..., 1:]], axis=2).astype(np.float32)


def draw_tasks(count: int, turns: bool, generator: np.random.Generator) -> Tensor:
    """(count, 2, 2): starts and goals, each of a line; with ``turns`` of one that goes down and one
    that goes up, or the reverse, which need the same number of steps."""
    lines = draw_lines(count, generator)
    ends = lines[:, [0, -1]].copy()
    if turns:
        ends[:, 1, 1] *= -1
    return torch.from_numpy(ends)


def are_like_data(plans: Tensor) -> Tensor:
    """Whether each stretch of plans (..., ROWS, 2) is like one of the data's: (..., 21) bool."""
    step = plans[..., STRETCH:, :] - plans[..., :-STRETCH, :]
    length = step.square().sum(dim=-1).sqrt() / (STRETCH * STEP * 2**0.5)
    angle = torch.rad2deg(torch.atan2(step[..., 1], step[..., 0]))
    along = (angle.abs() - 45).abs() <= ANGLE_TOLERANCE
    return along & ((length - 1).abs() <= LENGTH_TOLERANCE)


def are_feasible(plans: Tensor) -> Tensor:
    """Whether all stretches of plans (..., ROWS, 2), but a corner's, are like the data's: (...)."""
    return (~are_like_data(plans)).sum(dim=-1) <= CORNER_STRETCHES


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
        sampler=SamplerConfig(kind="ddpm", steps=0, temperature=0.5),
        generator=torch.Generator().manual_seed(seed),
    )
    return plans.observations


def compute_stitching(
    settings: StudySettings,
    *,
    networks: tuple[Network, ...] = NETWORKS,
    steps: int = 1000,
    n_tasks: int = 20,
    samples: int = 8,
    seeds: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """Share of feasible plans by receptive field, for goals that need a turn and that do not."""
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
        "tolerance": {
            "length": LENGTH_TOLERANCE,
            "degrees": ANGLE_TOLERANCE,
            "stretch": STRETCH,
            "corner_stretches": CORNER_STRETCHES,
        },
        "protocol": {
            "tasks": n_tasks,
            "plans_per_task": samples,
            "training_seeds": list(seeds),
            "training_steps": steps,
            "sampler": "ddpm, all 128 steps, temperature 0.5, start and goal pinned",
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
    unet = models[0].network
    assert isinstance(unet, TemporalUnet), "train_on_lines trains U-Nets"
    row: dict[str, Any] = {
        "dim_mults": list(network.dim_mults),
        "kernel_size": network.kernel_size,
        "middle_blocks": network.middle_blocks,
        "dim": network.dim,
        "parameters": sum(p.numel() for p in unet.parameters()),
        "receptive_field": measure_receptive_field(unet),
    }
    for kind in ("turning", "straight"):
        generator = np.random.default_rng(settings.seed + 1)
        tasks = draw_tasks(n_tasks, kind == "turning", generator)
        plans = torch.stack(
            [sample_plans(model, tasks, samples, settings.seed) for model in models]
        )
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
