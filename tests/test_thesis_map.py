"""The page docs/thesis.md must name real code and list every figure, table and algorithm."""

import pkgutil
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "thesis.md").read_text(encoding="utf-8")

# A dotted name in backticks, with or without call arguments after it.
CODE_NAMES = sorted(set(re.findall(r"`(forethought(?:\.\w+)+)(?:\([^`]*)?`", PAGE)))

ITEMS = [
    *(f"Algorithm {n}" for n in range(1, 6)),
    *(f"Figure 3.{n}" for n in range(1, 6)),
    *(f"Figure 4.{n}" for n in range(1, 7)),
    *(f"Figure 5.{n}" for n in range(1, 8)),
    *("Figure A.1", "Figure B.1", "Figure C.1"),
    *("Table 4.1", "Table 4.2", "Table 5.1", "Table 5.2", "Table 5.3", "Table A.1", "Table A.2"),
]


def test_page_names_code() -> None:
    assert CODE_NAMES, "docs/thesis.md names no code, so the next test would check nothing"


@pytest.mark.parametrize("name", CODE_NAMES)
def test_every_code_name_resolves(name: str) -> None:
    pkgutil.resolve_name(name)  # imports modules as far as they go, then walks attributes


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_has_its_own_row(item: str) -> None:
    pattern = rf"^\| {re.escape(item)} \("
    assert re.search(pattern, PAGE, re.MULTILINE), f"docs/thesis.md has no row for {item}"
