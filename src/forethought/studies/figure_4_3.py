"""Figure 4.3: how likely true trajectories stay under what models predict, up to 100 steps ahead.

From each of 6 starting points (4 in Walker2d), 1,000 sequences are sampled from a model; 25 true
trajectories of the policy are judged under the marginals (``studies/marginals.py``, with the floor
stated there). Beside the models stand three references over the transformer's bins: the discrete
oracle; 1,000 simulated trajectories of the same policy, which is what a perfect model would
predict; and the histogram of all data, which knows neither start nor time.

Trajectories of one starting point share its marginals, so intervals are over starting points
(Student's t over the means of each). Differences are paired by trajectory.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.data.tokenizers import Tokenizer
from forethought.models.dynamics import Dynamics
from forethought.models.token_model import TokenTrajectoryModel
from forethought.occupancy import simulator_of
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_4_3_show import (
    JUDGED,
    REFERENCES,
    REPORTED,
    markdown,
    over_starts,
    plot,
)
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

LOWER_FLOOR = 1e-6


@studies.register("figure-4-3")
def figure_4_3() -> Study:
    """Likelihood against step: transformers, their Markov versions, an ensemble, references."""
    parts = []
    for task in TASKS:
        parts.append(
            Part(name=f"{task}-references", minutes=2.0, compute=partial(references, task=task))
        )
        for key in MODELS:
            parts.append(
                Part(
                    name=f"{task}-{key}",
                    minutes=CORE_SECONDS / 60 + (2.0 if key == "ensemble" else 10.0),
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
    policy = load_policy(settings, task).explore
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
        "sequences": PREFIXES,
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
        "sequences": PREFIXES,
        "crop": CROP.get(key),
        "actions": "of the policy" if key == "ensemble" else "predicted",
        "core_seconds": round(time.process_time() - began, 1),
    }


def prediction_model(
    settings: StudySettings, task: str, key: str
) -> tuple[TokenTrajectoryModel | Dynamics, dict[str, Any]]:
    """One of the models of ``prediction_setup``, trained unless it is in the scratch folder."""
    dataset = open_dataset(settings, data_name(task))
    folder = settings.runs / f"prediction-{task}-{key}"
    model, training = trained_for(experiment_of(task, key), dataset, folder, CORE_SECONDS)
    assert isinstance(model, TokenTrajectoryModel | Dynamics), "these are the study's models"
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
    rows = [over_starts(values[:, :, step]) for step in range(values.shape[2])]
    judged = [step - 1 for step in JUDGED if step <= values.shape[2]]
    low = [_floored(densities, bins, step - 1) for step in REPORTED if step <= values.shape[2]]
    return {
        "mean": [_round(row[0]) for row in rows],
        "interval": [[_round(row[1]), _round(row[2])] for row in rows],
        "by_trajectory": [[_listed(each) for each in start] for start in values[:, :, judged]],
        "floored": low,
        "lower_floor": {
            "floor": LOWER_FLOOR,
            "mean": [_round(over_starts(lower[:, :, step])[0]) for step in judged],
        },
    }


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
