r"""Figure 5.3b: trained on straight lines only, does Diffuser plan V shapes? Against Figure 5.2.

The data are lines of one speed across open space, from the upper left to the lower right or from
the lower left to the upper right; the two kinds cross in the middle. A start on one kind and a goal
on the other are joined by no line, but by the halves of two, in as many steps.

When a plan is feasible follows from the data's geometry alone, and was fixed before the networks
below were trained. Directions and speed leave one way from start to goal: row k lies k steps of
the data's speed along it, down (or up) to the corner and up (or down) after it. A plan is feasible
if no row of it is farther than ``TOLERANCE`` = ``JITTER`` = 0.15 units from its place on that way:
as far, per axis, as the data's lines begin from the middle of their band. For scale: lines are 1.6
units long per axis, a step is 0.10 units, and the middle of the straight way from start to goal,
which cuts the corner, is 0.8 units from its place. Shares at half and at twice the tolerance are
reported beside. Added later, after plans of the first network had been seen to run along the V but
hurry and dawdle on it: the share whose path alone, whatever its timing, stays within the tolerance
of the V. The sampler adds half the chain's noise, as the released code does.

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
from forethought.studies.base import StudySettings
from forethought.training import train
from forethought.types import Pin

ROWS = 24  # of a line, and of a plan
STEP = 1.6 / (ROWS - 1)  # per axis and row
JITTER = 0.15  # half width of the lines' starts around (-0.8, 0.8) and (-0.8, -0.8)
TOLERANCE = JITTER  # units: how far a feasible plan's rows may be from their places
TOLERANCES = (0.5 * TOLERANCE, TOLERANCE, 2 * TOLERANCE)


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


def only_ways(tasks: Tensor) -> Tensor:
    """(tasks, ROWS, 2): the way from start to goal at the data's directions and speed.

    tasks: (tasks, 2, 2), whose goals are as many steps to the right of the start as a line is long
    """
    start, goal = tasks[:, None, 0], tasks[:, None, 1]  # (tasks, 1, 2)
    gone = STEP * torch.arange(ROWS)[:, None]  # (ROWS, 1) per axis
    rise = (goal - start)[..., 1:]  # (tasks, 1, 1)
    whole = STEP * (ROWS - 1)
    # up and down take whole = |up| + |down| per axis, and up - down = rise; a start above the
    # middle is one of a line that goes down, so its way goes down first
    sign = -start[..., 1:].sign()
    first = 0.5 * (whole + sign * rise)  # of the way along the start's own direction
    height = sign * torch.minimum(gone, 2 * first - gone)
    return torch.cat([start[..., :1] + gone.expand_as(height), start[..., 1:] + height], dim=-1)


def deviations(plans: Tensor, tasks: Tensor) -> Tensor:
    """(..., tasks, samples): largest distance, in units, of any row of the plans (..., tasks,
    samples, ROWS, 2) from its place on the only way."""
    return (plans - only_ways(tasks)[:, None]).norm(dim=-1).amax(dim=-1)


def path_deviations(plans: Tensor, tasks: Tensor) -> Tensor:
    """As ``deviations``, but from the nearest point of the way: its timing does not count."""
    ways = only_ways(tasks)
    share = torch.linspace(0, 1, 9)[:-1, None]
    between = ways[:, :-1, None] + share * (ways[:, 1:, None] - ways[:, :-1, None])
    points = torch.cat([between.flatten(1, 2), ways[:, -1:]], dim=1)  # (tasks, points, 2)
    apart = (plans[..., None, :] - points[:, None, None]).norm(dim=-1)
    return apart.amin(dim=-1).amax(dim=-1)


def are_feasible(plans: Tensor, tasks: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Whether no row of plans (..., tasks, samples, ROWS, 2) is farther than ``tolerance`` from its
    place: (..., tasks, samples) bool."""
    return deviations(plans, tasks) <= tolerance


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
    training_seed: int = 0,
) -> dict[str, Any]:
    """Share of feasible plans by receptive field, for goals that need a turn and that do not.

    Of one training of every network; all trainings are measured on the same tasks and noise.
    """
    n_tasks = settings.episodes or n_tasks
    rows = []
    for network in networks:
        rows.append(_measure(network, settings, steps, n_tasks, samples, training_seed))
        shares = {
            kind: round(float(np.mean(rows[-1][kind]["by_task"])), 3)
            for kind in ("turning", "straight")
        }
        settings.console.print(f"    {rows[-1]['receptive_field']} rows: {shares}")
    lines = draw_lines(60, np.random.default_rng(settings.seed))
    return {
        "rows": rows,
        "horizon": ROWS,
        "tolerance": TOLERANCE,
        "protocol": {
            "tasks": n_tasks,
            "plans_per_task": samples,
            "training_seed": training_seed,
            "training_steps": steps,
            "sampler": "ddpm, all 128 steps, temperature 0.5, start and goal pinned",
        },
        "lines": lines[:, [0, -1]].round(3).tolist(),
    }


def _measure(
    network: Network,
    settings: StudySettings,
    steps: int,
    n_tasks: int,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    model = train_on_lines(network, settings, steps=steps, n_lines=4000, seed=settings.seed + seed)
    unet = model.network
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
        plans = sample_plans(model, tasks, samples, settings.seed)
        far = deviations(plans, tasks)  # (tasks, samples)
        feasible = far <= TOLERANCE
        row[kind] = {
            "by_task": feasible.float().mean(dim=1).tolist(),
            "by_tolerance": {f"{t:g}": float((far <= t).float().mean()) for t in TOLERANCES},
            "median_deviation": float(far.median()),
            "path_within": float((path_deviations(plans, tasks) <= TOLERANCE).float().mean()),
        }
        if kind == "turning":
            row["example"] = {
                "start": tasks[0, 0].tolist(),
                "goal": tasks[0, 1].tolist(),
                "plans": plans[0, :6].numpy().round(3).tolist(),
                "feasible": feasible[0, :6].tolist(),
            }
    return row
