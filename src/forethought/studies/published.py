"""Published scores of Table 5.1's cells: other starts, other data seeds, so they compare roughly.

Each row: name, source, and (score, error) by cell; error is None where the source gives none. An
"average" is what the thesis prints below its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = ("umaze", "medium", "large")
CELLS = tuple(f"{task}-{layout}" for task in ("maze2d", "multi2d") for layout in LAYOUTS)

Score = tuple[float, float | None]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published row; ``scores`` by cell, and which kind of method it is."""

    name: str
    source: str
    scores: dict[str, Score]
    plans: bool = True


def _row(
    name: str,
    source: str,
    single: tuple[float | None, ...] = (),
    multi: tuple[float | None, ...] = (),
    *,
    errors: tuple[float, ...] = (),
    plans: bool = True,
) -> Published:
    """Scores in the order of ``LAYOUTS``; errors, if given, for all given cells in turn."""
    values = [*(single or (None,) * 3), *(multi or (None,) * 3)]
    given = [(cell, value) for cell, value in zip(CELLS, values, strict=True) if value is not None]
    sizes = errors or (None,) * len(given)
    scores = {cell: (value, e) for (cell, value), e in zip(given, sizes, strict=True)}
    return Published(name=name, source=source, scores=scores, plans=plans)


THESIS = "thesis Table 5.1"
HD = "the Hierarchical Diffuser paper"
DV = "the Diffusion Veteran paper"
CORL = "CORL's repository, last scores"
SECONDARY = "quoted by others"
PUBLISHED = (
    _row("MPPI, true dynamics", THESIS, (33.2, 10.2, 5.1), (41.2, 15.4, 8.0)),
    _row("CQL", THESIS, (5.7, 5.0, 12.5), plans=False),
    _row("IQL", THESIS, (47.4, 34.9, 58.6), (24.8, 12.1, 13.9), plans=False),
    _row(
        "Diffuser",
        THESIS,
        (113.9, 121.5, 123.0),
        (128.9, 127.2, 132.1),
        errors=(3.1, 2.7, 6.4, 1.8, 3.4, 5.8),
    ),
    _row("HDMI", HD, (120.1, 121.8, 128.6), (131.3, 131.6, 135.4)),
    _row("AdaptDiffuser", DV, (135.1, 129.9, 167.9)),
    _row("Hierarchical Diffuser", HD, (128.4, 135.6, 155.8), (144.1, 140.2, 165.5)),
    _row(
        "Diffusion Forcing",
        "the Diffusion Forcing paper",
        (116.7, 149.4, 159.0),
        (119.1, 152.3, 167.1),
    ),
    _row("Diffusion Veteran, inverse dynamics", DV, (136.6, 150.7, 203.6)),
    _row("Diffusion Veteran, joint", f"{DV}, Figure 3", (146.3, 156.0, 202.9)),
    _row("Diffuser + LoMAP", SECONDARY, (None, None, 151.9)),
    _row("RACTD", SECONDARY, (None, None, 143.8)),
    _row("Mixed-Density Diffuser", SECONDARY, (None, None, 206.1)),
    _row("AWAC", CORL, (82.67, 52.88, 209.13), errors=(28.30, 55.12, 8.19), plans=False),
    _row("CQL", CORL, (-8.90, 86.11, 23.75), errors=(6.11, 9.68, 36.70), plans=False),
    _row("IQL", CORL, (42.11, 34.85, 61.72), errors=(0.58, 2.72, 3.50), plans=False),
    _row("SAC-N", CORL, (130.59, 88.61, 204.76), errors=(16.52, 18.72, 1.19), plans=False),
    _row("ReBRAC", CORL, (106.9, 105.1, 78.3), plans=False),
)
