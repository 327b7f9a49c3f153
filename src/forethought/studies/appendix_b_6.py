"""Appendix B.6, Figure B.1: goals in MultiRoom-N4-S5, on maps that the model has never seen.

The map goes through a convolutional network into every token's embedding, place and goal are
tokens, and the likeliest continuation leads to the goal. Every row acts on the same maps, of which
none should be in the data (it is counted): the planner, its model
without search, and the search-based expert, whose ways are the shortest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from forethought.data.episodes import Episode, EpisodeDataset
from forethought.envs.multiroom import DOOR, NOTHING, WALL, shortest_actions
from forethought.figures import INK
from forethought.policy import ContextObserver
from forethought.registry import recipes, studies
from forethought.rollout import Evaluation, evaluate
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_4_6 import explain_paths, reach_goals, reached_table
from forethought.studies.iql_rows import open_dataset
from forethought.studies.rows import row_of

RECIPE, EPISODES, SHOWN = "transformer/multiroom", 500, 6
ROWS: dict[str, tuple[str, dict[str, int]]] = {
    "planner": ("Trajectory Transformer, beam search", {}),
    "no-search": ("the same, likeliest next action", {"beam": 1, "horizon": 1}),
}
PUBLISHED = 0.94  # of testing goals on held-out maps


@studies.register("appendix-B-6")
def appendix_b_6() -> Study:
    """Goals on held-out maps."""
    parts = [
        Part(name=name, minutes=10.0 if name == "planner" else 2.0, compute=partial(act, row=name))
        for name in ROWS
    ]
    parts.append(Part(name="expert", minutes=0.5, compute=expert))
    return Study(
        title="Appendix B.6: goals in MultiRoom-N4-S5 on held-out maps",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def act(settings: StudySettings, *, row: str) -> dict[str, Any]:
    """Reach goals with the model, trained now if it has not been."""
    label, changes = ROWS[row]
    found = reach_goals(settings, RECIPE, settings.episodes or EPISODES, changes)
    data = open_dataset(settings, recipes[RECIPE]().dataset)
    return {**row_of(label, found), **_maps(found, data), "paths": shown_paths(found)}


def _maps(found: Evaluation, data: EpisodeDataset) -> dict[str, Any]:
    """How many maps the data has, and which episodes were on one of them."""
    assert data.contexts is not None, "the data has maps"
    known = {np.asarray(context).tobytes() for context in data.contexts}
    seen = [i for i, path in enumerate(found.paths) if _map_of(path).tobytes() in known]
    return {"training_maps": len(known), "on_training_maps": seen}


def _map_of(path: Episode) -> np.ndarray:
    assert path.context is not None, "every episode has a map"
    return path.context


class _Expert(ContextObserver):
    """Follows the shortest way; it is shown the map and needs no other memory than its steps."""

    def reset(self, n_envs: int, seeds: Sequence[int] | None = None) -> None:
        self._ways: list[list[int]] = [[] for _ in range(n_envs)]

    def observe_contexts(self, contexts: Tensor) -> None:
        self._maps = contexts.numpy()

    def __call__(
        self, observation: Tensor, goal: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        assert goal is not None and rows is not None, "rooms have goals"
        taken = []
        for place, env in enumerate(rows.tolist()):
            if not self._ways[env]:
                start, aim = observation[place].numpy(), goal[place].numpy()
                self._ways[env] = shortest_actions(self._maps[env], start, aim)
            taken.append(self._ways[env].pop(0))
        return torch.tensor(taken)[:, None]


def expert(settings: StudySettings) -> dict[str, Any]:
    """The same maps."""
    episodes = settings.episodes or EPISODES
    found = evaluate(_Expert(), recipes[RECIPE]().env, episodes, settings.seed, n_parallel=episodes)
    found.protocol["controller"] = "breadth-first search"
    return {**row_of("the expert: shortest ways", found), "paths": shown_paths(found)}


def shown_paths(found: Evaluation) -> list[dict[str, Any]]:
    """The first episodes' maps, ways and goals, and those of failures."""
    failed = [i for i, record in enumerate(found.episodes) if not record["success"]]
    kept = [*range(min(SHOWN, found.n)), *(i for i in failed[:SHOWN] if i >= SHOWN)]
    return [
        {
            "episode": index,
            "success": found.episodes[index]["success"],
            "goal": found.episodes[index]["goal"][:2],
            "way": found.paths[index].observations.astype(int).tolist(),
            "map": ["".join(map(str, row)) for row in _map_of(found.paths[index])],
        }
        for index in kept
    ]


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Figure B.1: the planner's first ways and its failures."""
    if "planner" not in parts:
        return {}
    shown = parts["planner"]["paths"]
    columns = min(SHOWN, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels:
        panel.axis("off")
    for panel, episode in zip(panels, shown, strict=False):
        _draw(panel, episode)
    figure.suptitle(f"{parts['planner']['method']}: its first ways and all that fail", fontsize=9)
    explain_paths(figure)
    return {"ways": figure}


def _draw(panel: Any, episode: dict[str, Any]) -> None:
    cells = np.array([[int(kind) for kind in row] for row in episode["map"]])
    shades = np.full((*cells.shape, 3), 1.0)
    shades[cells == WALL] = 0.45
    shades[cells == DOOR] = (0.98, 0.8, 0.45)
    panel.imshow(shades)
    way = np.array(episode["way"])
    color = "#3d6fb4" if episode["success"] else "#c8323c"
    panel.plot(way[:, 0], way[:, 1], color=color, lw=2)
    panel.plot(*way[0, :2], "o", ms=5, mfc="white", mec=INK, mew=1.2, zorder=3)
    panel.plot(*episode["goal"], "o", ms=5, mfc="#e8743b", mec="none", zorder=3)
    y, x = np.nonzero(cells != NOTHING)
    panel.set(xlim=(x.min() - 0.5, x.max() + 0.5), ylim=(y.max() + 0.5, y.min() - 0.5))
    steps = len(way) - 1
    panel.set_title(f"{steps} steps" if episode["success"] else "not reached", fontsize=8)


def markdown(parts: Mapping[str, Any]) -> str:
    """Shares of goals reached, and steps against the shortest ways."""
    lines = [
        reached_table(
            parts,
            (*ROWS, "expert"),
            f"Random maps, the same for every row, in at most 80 steps. Thesis: {PUBLISHED:.0%} "
            "of goals on held-out maps. Steps: median of those that arrive.",
        ),
        "",
    ]
    for name in ROWS:
        if name in parts:
            row = parts[name]
            among = len(row["on_training_maps"])
            lines.append(
                f"{row['method']}: {row['training_maps']:,} maps in the data, of which {among} of "
                f"the {row['n']} acted on{_extra_steps(parts, name)}."
            )
    return "\n".join(lines)


def _extra_steps(parts: Mapping[str, Any], name: str) -> str:
    """How much longer the ways are than the shortest ones, on maps where both arrive."""
    if "expert" not in parts:
        return ""
    pairs = zip(parts[name]["arrivals"], parts["expert"]["arrivals"], strict=True)
    extra = [ours - least for ours, least in pairs if ours is not None and least is not None]
    if not extra:
        return ""
    return f"; {np.mean(extra):.2f} steps more than the shortest way on average"
