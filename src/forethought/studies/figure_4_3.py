"""Figure 4.3: how likely true trajectories stay under what models predict, up to 100 steps ahead.

From each of 8 starting points, 1,000 sequences are sampled from a model; 25 true trajectories of
the policy are judged under the marginals (``studies/marginals.py``, with the floor stated there).
Beside the models stand three references over the transformer's bins: the discrete oracle; 1,000
simulated trajectories of the same policy, which is what a perfect model would predict; and the
histogram of all data, which knows neither start nor time.

Trajectories of one starting point share its marginals, so intervals are over starting points
(Student's t over the means of each). Differences are paired by trajectory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from forethought.data.tokenizers import Tokenizer
from forethought.figures import INK, MUTED
from forethought.models.dynamics import Dynamics
from forethought.models.transformer import TrajectoryTransformer
from forethought.occupancy import simulator_of
from forethought.registry import studies
from forethought.scores import mean_and_interval
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.gamma_truth import load_policy, open_dataset
from forethought.studies.marginals import (
    FLOOR,
    bin_densities,
    ensemble_marginals,
    histogram,
    log_likelihood,
    oracle_densities,
    token_marginals,
)
from forethought.studies.prediction_setup import (
    CORE_SECONDS,
    CROP,
    HIDDEN_SHARE,
    MODELS,
    PREFIXES,
    TASKS,
    Start,
    bins_of,
    data_name,
    digest,
    experiment_of,
    pose_starts,
    run_policy,
)
from forethought.studies.timed_training import trained_for

Array = NDArray[np.float64]

JUDGED = (1, 10, 25, 50, 75, 100)  # steps at which every trajectory's value is kept
REPORTED = (50, 100)
LOWER_FLOOR = 1e-6
REFERENCES = ("oracle", "simulator", "data")
STYLE: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle": ("discrete oracle", {"color": MUTED, "ls": "--"}),
    "simulator": ("1,000 simulated trajectories", {"color": INK, "ls": ":"}),
    "data": ("all data, any time", {"color": MUTED, "ls": ":"}),
    "transformer": ("transformer", {"color": "#2f6690"}),
    "markov": ("transformer, Markov", {"color": "#7fb0d3"}),
    "partial": ("transformer", {"color": "#2f6690"}),
    "partial-markov": ("transformer, Markov", {"color": "#7fb0d3"}),
    "ensemble": ("ensemble (PETS)", {"color": "#e8743b"}),
    "ensemble-binned": ("ensemble, over the bins", {"color": "#e8743b", "ls": "--"}),
}
PANELS = {
    "observed": (*REFERENCES, "transformer", "markov", "ensemble", "ensemble-binned"),
    "half of the dimensions hidden": (*REFERENCES, "partial", "partial-markov"),
}
PAIRS = (
    ("transformer", "ensemble"),
    ("transformer", "ensemble-binned"),
    ("markov", "ensemble"),
    ("transformer", "markov"),
    ("partial", "partial-markov"),
    ("simulator", "transformer"),
)


@studies.register("figure-4-3")
def figure_4_3() -> Study:
    """Likelihood against step: transformers, their Markov versions, an ensemble, references."""
    parts = []
    for task in TASKS:
        parts.append(
            Part(name=f"{task}-references", minutes=5.0, compute=partial(references, task=task))
        )
        for key in MODELS:
            seconds = CORE_SECONDS["ensemble" if key == "ensemble" else "transformer"]
            parts.append(
                Part(
                    name=f"{task}-{key}",
                    minutes=seconds / 60 + (2.0 if key == "ensemble" else 10.0),
                    compute=partial(predictions, task=task, key=key),
                )
            )
    return Study(
        title="Figure 4.3: compounding errors of models, likelihood up to 100 steps ahead",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def references(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """Oracle, simulator and data, over the bins of the transformers."""
    starts, bins = pose_starts(settings, task), bins_of(settings, task)
    simulator = simulator_of(f"forethought/{task}-v0")
    policy = load_policy(settings, task)
    generator = torch.Generator().manual_seed(settings.seed + 3)
    data = torch.from_numpy(open_dataset(settings, data_name(task)).observations[:, None].copy())
    mixed = histogram(data, bins)[0]
    found: dict[str, list[Tensor]] = {key: [] for key in REFERENCES}
    for start in starts:
        simulated = run_policy(simulator, policy, start.state, PREFIXES, generator)
        found["oracle"].append(oracle_densities(start.truths, bins))
        masses = histogram(simulated, bins)
        found["simulator"].append(bin_densities(masses, start.truths, bins))
        found["data"].append(bin_densities(mixed, start.truths, bins))
    return {
        "curves": {key: summarize(densities, bins) for key, densities in found.items()},
        **_facts(starts),
        "simulated": PREFIXES,
    }


def predictions(settings: StudySettings, *, task: str, key: str) -> dict[str, Any]:
    """Train a model, unless it is there, and judge its predictions from every start."""
    model, training = prediction_model(settings, task, key)
    starts, bins = pose_starts(settings, task), bins_of(settings, task)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    found: dict[str, list[Tensor]] = {key: []}
    began = time.process_time()
    if isinstance(model, Dynamics):
        policy = load_policy(settings, task)
        found["ensemble-binned"] = []
        for start in starts:
            predicted = ensemble_marginals(
                model,
                policy.explore,
                start.observation,
                start.truths,
                bins=bins,
                n_samples=PREFIXES,
                generator=generator,
            )
            found[key].append(predicted.densities)
            found["ensemble-binned"].append(predicted.binned)
    else:
        hidden = HIDDEN_SHARE if key.startswith("partial") else 0.0
        for start in starts:
            marginals = token_marginals(
                model,
                start.prefix(hidden, generator),
                n_samples=PREFIXES,
                n_steps=start.truths.shape[1],
                crop=CROP[key],
                hidden_share=hidden,
                generator=generator,
            )
            found[key].append(bin_densities(marginals.masses, start.truths, bins))
    return {
        "training": training,
        "curves": {name: summarize(densities, bins) for name, densities in found.items()},
        **_facts(starts),
        "prefixes": PREFIXES,
        "crop": CROP.get(key),
        "actions": "of the policy" if key == "ensemble" else "predicted",
        "core_seconds": round(time.process_time() - began, 1),
    }


def prediction_model(
    settings: StudySettings, task: str, key: str
) -> tuple[TrajectoryTransformer | Dynamics, dict[str, Any]]:
    """One of the models of ``prediction_setup``, trained unless it is in the scratch folder."""
    dataset = open_dataset(settings, data_name(task))
    seconds = CORE_SECONDS["ensemble" if key == "ensemble" else "transformer"]
    folder = settings.runs / f"prediction-{task}-{key}"
    model, training = trained_for(experiment_of(task, key), dataset, folder, seconds)
    assert isinstance(model, TrajectoryTransformer | Dynamics), "these are the study's models"
    return model, {**training, "data": data_name(task), "data_steps": dataset.n_steps}


def _facts(starts: list[Start]) -> dict[str, Any]:
    ends = [float((~start.truths[:, -1, 0].isnan()).float().mean()) for start in starts]
    return {
        "truths": digest(starts),
        "starts": len(starts),
        "trajectories": sum(len(start.truths) for start in starts),
        "alive_at_100": round(float(np.mean(ends)), 3),
        "floor": f"{FLOOR:g} of the uniform density over each dimension's range in the data",
    }


def summarize(densities: list[Tensor], bins: Tokenizer) -> dict[str, Any]:
    """From densities (N, T, O) by start: means and intervals by step, values by trajectory."""
    values = np.stack([log_likelihood(each, bins) for each in densities])  # (S, N, T)
    lower = np.stack([log_likelihood(each, bins, floor=LOWER_FLOOR) for each in densities])
    rows = [_over_starts(values[:, :, step]) for step in range(values.shape[2])]
    judged = [step - 1 for step in JUDGED if step <= values.shape[2]]
    low = [_floored(densities, bins, step - 1) for step in REPORTED if step <= values.shape[2]]
    return {
        "mean": [_round(row[0]) for row in rows],
        "interval": [[_round(row[1]), _round(row[2])] for row in rows],
        "by_trajectory": [[_listed(each) for each in start] for start in values[:, :, judged]],
        "floored": low,
        "lower_floor": {
            "floor": LOWER_FLOOR,
            "mean": [_round(_over_starts(lower[:, :, step])[0]) for step in judged],
        },
    }


def _over_starts(values: Array) -> tuple[float, float, float]:
    """Mean and interval over starts of means over trajectories (S, N) that still go on."""
    kept = [row[~np.isnan(row)] for row in values]
    return mean_and_interval([float(row.mean()) for row in kept if len(row)])


def _floored(densities: list[Tensor], bins: Tokenizer, step: int) -> float:
    """Share of the dimensions of true states that the floor had to hold up."""
    seen = torch.cat([each[:, step] for each in densities])
    floor = FLOOR / (bins.edges[:, -1] - bins.edges[:, 0])
    known = ~seen.isnan()
    return round(float(((seen < floor) & known).sum() / known.sum().clamp(min=1)), 4)


def _round(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def _listed(values: Array) -> list[float | None]:
    return [_round(float(value)) for value in values]


def collect(parts: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Curves of a task by name; ValueError if they were judged on different trajectories."""
    names = [f"{task}-{key}" for key in ("references", *MODELS)]
    found = {name: parts[name] for name in names if name in parts}
    if len({part["truths"] for part in found.values()}) > 1:
        raise ValueError(
            f"the parts of {task} were judged on different true trajectories, so they do not "
            "compare; compute them again with --redo, with one seed, policy and data set"
        )
    return {name: curve for part in found.values() for name, curve in part["curves"].items()}


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any], step: int
) -> tuple[float, float, float, float]:
    """Mean difference at a step, its interval over starts, share of trajectories above zero."""
    at = JUDGED.index(step)
    values = [
        np.array([[row[at] for row in start] for start in curve["by_trajectory"]], dtype=float)
        for curve in (first, second)
    ]
    gap = values[0] - values[1]
    known = gap[~np.isnan(gap)]
    return (*_over_starts(gap), float((known > 0).mean()))


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """A figure a task: fully observed, and half hidden."""
    figures = {}
    for task in TASKS:
        curves = collect(parts, task)
        if any(key in curves for key in MODELS):
            figures[task] = _draw(task, curves)
    return figures


def _draw(task: str, curves: Mapping[str, Any]) -> Figure:
    panels = {
        title: [key for key in keys if key in curves]
        for title, keys in PANELS.items()
        if any(key in curves and key in MODELS for key in keys)
    }
    figure = Figure(figsize=(5.4 * len(panels), 4.0), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, keys) in zip(axes, panels.items(), strict=True):
        for key in keys:
            label, style = STYLE[key]
            mean = np.array(curves[key]["mean"], dtype=float)
            low, high = np.array(curves[key]["interval"], dtype=float).T
            steps = np.arange(1, len(mean) + 1)
            axis.plot(steps, mean, lw=1.6, label=label, **style)
            if key in MODELS:
                axis.fill_between(steps, low, high, color=style["color"], alpha=0.15, lw=0)
        axis.set_title(f"{task}: {title}", fontsize=10, color=INK)
        axis.set_xlabel("steps ahead")
        axis.legend(fontsize=7.5, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("log-likelihood of the true state (nats)")
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Likelihoods at the reported steps, and paired differences."""
    lines: list[str] = []
    for task in TASKS:
        curves = collect(parts, task)
        if not curves:
            continue
        facts = next(
            parts[f"{task}-{k}"] for k in ("references", *MODELS) if f"{task}-{k}" in parts
        )
        lines += [
            f"{task.capitalize()}: {facts['trajectories']} true trajectories from "
            f"{facts['starts']} starting points ({100 * facts['alive_at_100']:.0f} % last 100 "
            f"steps), {PREFIXES:,} sampled sequences from each; floor {facts['floor']}. Nats, with "
            "95 % intervals over starting points; in parentheses the share of dimensions at the "
            "floor.",
            "",
            "| model | " + " | ".join(f"step {step}" for step in (1, *REPORTED)) + " |",
            "|---|" + "---|" * (1 + len(REPORTED)),
        ]
        lines += [_likelihood_row(key, curve) for key, curve in curves.items()]
        lines += ["", *_pair_rows(curves)]
    return "\n".join(lines)


def _likelihood_row(key: str, curve: Mapping[str, Any]) -> str:
    cells = []
    for step in (1, *REPORTED):
        low, high = curve["interval"][step - 1]
        interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        cell = f"{curve['mean'][step - 1]:.2f}{interval}"
        if step in REPORTED:
            cell += f" ({100 * curve['floored'][REPORTED.index(step)]:.1f} %)"
        cells.append(cell)
    label = STYLE[key][0] + (", partially observed" if key.startswith("partial") else "")
    return f"| {label} | " + " | ".join(cells) + " |"


def _pair_rows(curves: Mapping[str, Any]) -> list[str]:
    pairs = [pair for pair in PAIRS if pair[0] in curves and pair[1] in curves]
    if not pairs:
        return []
    lines = [
        "| difference | " + " | ".join(f"step {step}" for step in REPORTED) + " |",
        "|---|" + "---|" * len(REPORTED),
    ]
    for first, second in pairs:
        cells = []
        for step in REPORTED:
            mean, low, high, share = difference(curves[first], curves[second], step)
            cells.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}], above in {100 * share:.0f} %")
        lines.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
    return [*lines, ""]
