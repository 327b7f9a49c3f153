"""Published scores of thesis Table 4.1 (Hopper), on D4RL's own data, so they compare roughly.

Errors are standard errors over 15 seeds, as printed; None where the source gives none.
"""

from __future__ import annotations

from forethought.studies.published import Published, Score

SETS = ("hopper-medium", "hopper-medium-replay", "hopper-medium-expert")
"""data sets that this version has rows for, in the order of the scores below"""

TABLE = "thesis Table 4.1"
IMITATION = {"hopper": 104.0, "walker2d": 109.0}
"""thesis Section 4.4: mean normalized score of likelihood beam search on D4RL's expert data"""


def _row(name: str, *scores: Score | float, source: str = TABLE, plans: bool = False) -> Published:
    by_set: dict[str, Score] = {}
    for data, score in zip(SETS, scores, strict=True):
        by_set[data] = score if isinstance(score, tuple) else (score, None)
    return Published(name=name, source=source, scores=by_set, plans=plans)


PUBLISHED = (
    _row("BC", 63.9, 27.6, 79.6),
    _row("MBOP", 48.8, 12.4, 55.1, plans=True),
    _row("BRAC", 31.3, 0.6, 0.9),
    _row("CQL", 58.5, 95.0, 105.4),
    _row("DT", 67.6, 82.7, 107.6),
    _row("IQL", 66.3, 94.7, 91.5, source="thesis Table 5.3"),
    _row("Trajectory Transformer, uniform", (67.4, 2.9), (99.4, 3.2), (106.0, 0.28), plans=True),
    _row("Trajectory Transformer, quantile", (61.1, 3.6), (91.5, 3.6), (110.0, 2.7), plans=True),
)
