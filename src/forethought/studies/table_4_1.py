"""Table 4.1 (Hopper): Trajectory Transformers, IQL and behavior cloning on the same data.

Rows run here: the factored model with quantile and with uniform bins, the flat one on a single data
set (3 episodes, for it plans slowly), IQL (ours), behavior cloning, and what the data itself earns.
A sweep of the search shows what beam, horizon and expansions are worth. The data are our own
(``datasets/locomotion.py``), so published rows compare roughly. Thesis Section 4.4.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from forethought.registry import studies
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.locomotion_rows import EPISODES, data_row, learned_row, sweep
from forethought.studies.published_locomotion import SETS
from forethought.studies.table_4_1_show import ROWS, markdown, plot

# minutes on one core: training, curve, and episodes (300 to 1,000 steps each)
MINUTES = {"tt": 10.0, "tt-uniform": 10.0, "iql": 19.0, "bc": 4.0, "tt-flat": 60.0}
RECIPES = {
    "tt": "transformer/{}",
    "tt-uniform": "transformer/{}-uniform",
    "tt-flat": "transformer/{}-flat",
    "iql": "iql/{}",
    "bc": "bc/{}",
}
FLAT_SET, FLAT_EPISODES = "hopper-medium", 3
SWEEP_SET, SWEEP_EPISODES = "hopper-medium-replay", 5
CHANGES: list[dict[str, Any]] = [
    {},
    {"beam": 1},
    {"beam": 8},
    {"beam": 128},
    {"horizon": 1},
    {"horizon": 10},
    {"expand": 1},
    {"expand": 4},
]
"""of the recipe's search, one at a time"""


@studies.register("table-4-1")
def table_4_1() -> Study:
    """Hopper medium, medium-replay and medium-expert; a part is one row on one data set."""
    parts = [
        Part(name=f"data-{name}", minutes=5.0 if "expert" in name else 2.5, compute=_data(name))
        for name in SETS
    ]
    for key in ("bc", "iql", "tt", "tt-uniform"):
        parts += [_part(key, name) for name in SETS]
    parts.append(_part("tt-flat", FLAT_SET, FLAT_EPISODES))
    compute = partial(_sweep, recipe=RECIPES["tt"].format(SWEEP_SET))
    parts.append(Part(name=f"sweep-{SWEEP_SET}", minutes=35.0, compute=compute))
    return Study(
        title="Table 4.1: offline locomotion in Hopper, rows on the same data and starts",
        parts=tuple(parts),
        plot=plot,
        markdown=markdown,
    )


def _data(name: str) -> Any:
    return partial(data_row, name=name)


def _part(key: str, name: str, episodes: int = EPISODES) -> Part:
    compute = partial(
        learned_row, recipe=RECIPES[key].format(name), label=ROWS[key][0], episodes=episodes
    )
    return Part(name=f"{key}-{name}", minutes=MINUTES[key], compute=compute)


def _sweep(settings: StudySettings, *, recipe: str) -> list[dict[str, Any]]:
    return sweep(settings, recipe, CHANGES, episodes=SWEEP_EPISODES)
