"""Figure 4.4: what the heads of a Trajectory Transformer attend to.

The flat transformer of Figure 4.3, run over windows of its data; weights are computed anew and
averaged over the windows. Two of all heads are drawn: the one that puts most weight on the present
and the previous transition ("Markov"), and the one that puts most on the same dimension two and
more steps back ("striped"). As a token at most five transitions into the window has few others to
attend to, only later ones count.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forethought.data.trajectory_tokens import TrajectoryTokens
from forethought.figures import INK, MUTED
from forethought.models.transformer import TrajectoryTransformer
from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_4_3 import prediction_model
from forethought.studies.gamma_truth import open_dataset
from forethought.studies.prediction_setup import CORE_SECONDS, TASKS, data_name

Array = NDArray[np.float64]

WINDOWS, CHUNK = 64, 8
FIRST_ROW = 5  # transitions into the window from which on predictions count
DRAWN_ROWS = 5  # transitions of a drawn map, the window's last
SCALE = 1_000  # maps are stored as whole thousandths


@studies.register("figure-4-4")
def figure_4_4() -> Study:
    """Two attention maps, and every head in numbers."""
    minutes = CORE_SECONDS / 60 + 1
    return Study(
        title="Figure 4.4: attention maps of a Trajectory Transformer",
        parts=tuple(
            Part(name=f"{task}-heads", minutes=minutes, compute=partial(heads, task=task))
            for task in TASKS
        ),
        plot=plot,
        markdown=markdown,
    )


def heads(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """Mean weights of every head over windows of the data; the model is trained if it is not
    there."""
    model, training = prediction_model(settings, task, "flat")
    assert isinstance(model, TrajectoryTransformer), "this key's model is one"
    view = model.config.view(open_dataset(settings, data_name(task)))
    chosen = np.random.default_rng(settings.seed).integers(len(view), size=WINDOWS)
    total: Array = np.zeros(())
    for first in range(0, WINDOWS, CHUNK):
        tables = model.attention(view[chosen[first : first + CHUNK]])
        total = total + tables.double().sum(dim=1).numpy()
    mean = total / WINDOWS  # (depth, heads, tokens, tokens - 1)
    shares = [
        {"layer": layer + 1, "head": head + 1, **shares_of(table, model.tokens)}
        for layer, tables in enumerate(mean)
        for head, table in enumerate(tables)
    ]
    return {
        "training": training,
        "windows": WINDOWS,
        "columns": model.tokens.columns,
        "action_start": model.tokens.action_start,
        "heads": shares,
        "maps": {kind: _map_of(mean, shares, kind, model) for kind in ("markov", "striped")},
    }


def shares_of(table: Array, layout: TrajectoryTokens) -> dict[str, float]:
    """Where a head's weight goes, as mean shares over later predictions; table (n, n - 1).

    markov: to the present and the previous transition;  striped: to the same dimension, two and
        more transitions back
    action_to_actions, action_to_observations: of predictions of actions, to tokens of the
        transitions before
    """
    columns = layout.columns
    query, key = np.arange(len(table)), np.arange(table.shape[1])
    lag = query[:, None] // columns - key // columns
    same = query[:, None] % columns == key % columns
    is_action = (key % columns >= layout.action_start) & (key % columns < layout.action_end)
    is_observation = key % columns < layout.action_start
    acts = (query % columns >= layout.action_start) & (query % columns < layout.action_end)
    late = query // columns >= FIRST_ROW

    def share(mask: NDArray[np.bool_], rows: NDArray[np.bool_]) -> float:
        return round(float((table * mask)[rows].sum(axis=1).mean()), 4)

    return {
        "markov": share((lag >= 0) & (lag <= 1), late),
        "striped": share(same & (lag >= 2), late),
        "action_to_actions": share((lag >= 1) & is_action, late & acts),
        "action_to_observations": share((lag >= 1) & is_observation, late & acts),
    }


def _map_of(
    mean: Array, shares: list[dict[str, Any]], kind: str, model: TrajectoryTransformer
) -> dict[str, Any]:
    """The head with the largest share of a kind: the window's last transitions."""
    best = max(shares, key=lambda row: row[kind])
    table = mean[best["layer"] - 1, best["head"] - 1]
    rows = DRAWN_ROWS * model.tokens.columns
    kept = np.round(SCALE * table[-rows:, 1 - rows :]).astype(int)  # the last is never attended to
    return {"layer": best["layer"], "head": best["head"], "thousandths": kept.tolist()}


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Two maps a task."""
    return {task: _draw(task, parts[f"{task}-heads"]) for task in TASKS if f"{task}-heads" in parts}


def _draw(task: str, part: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11.0, 5.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(part["maps"]), squeeze=False)[0]
    columns, start = part["columns"], part["action_start"]
    for axis, (kind, each) in zip(axes, part["maps"].items(), strict=True):
        table = np.array(each["thousandths"]) / SCALE
        norm = PowerNorm(0.5, vmin=0, vmax=table.max())
        mesh = axis.imshow(table, cmap="Blues", norm=norm, interpolation="nearest", aspect="equal")
        figure.colorbar(mesh, ax=axis, shrink=0.7, label="mean attention weight")
        rows = len(table) // columns
        for row in range(rows):
            for at, color in ((row * columns, INK), (row * columns + start, MUTED)):
                axis.axhline(at - 0.5, color=color, lw=0.4)
                axis.axvline(at - 0.5, color=color, lw=0.4)
        places = [row * columns + columns / 2 - 0.5 for row in range(rows)]
        names = [f"t{row - rows + 1:+d}" if row < rows - 1 else "t" for row in range(rows)]
        axis.set_xticks(places, names)
        axis.set_yticks(places, names)
        axis.set(xlabel="attends to (dark lines: transitions; light: their actions)")
        axis.set_ylabel("prediction of")
        title = f"{task}: most {'Markov' if kind == 'markov' else 'striped'}"
        axis.set_title(
            f"{title} (layer {each['layer']}, head {each['head']})", fontsize=10, color=INK
        )
    return figure


def markdown(parts: Mapping[str, Any]) -> str:
    """Every head's shares."""
    lines: list[str] = []
    for task in TASKS:
        part = parts.get(f"{task}-heads")
        if part is None:
            continue
        lines += [
            f"{task.capitalize()}: mean attention weights over {part['windows']} windows, of "
            f"predictions {FIRST_ROW} and more transitions into the window; maps are drawn in the "
            "square root of the weight.",
            "",
            "| layer | head | present and previous transition | same dimension, 2+ back | "
            "actions: to earlier actions | to earlier observations |",
            "|---|---|---|---|---|---|",
        ]
        keys = ("markov", "striped", "action_to_actions", "action_to_observations")
        for row in part["heads"]:
            cells = " | ".join(f"{100 * row[key]:.1f} %" for key in keys)
            lines.append(f"| {row['layer']} | {row['head']} | {cells} |")
        lines.append("")
    return "\n".join(lines)
