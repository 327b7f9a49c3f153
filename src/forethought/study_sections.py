"""What a report shows of studies: title, tables and findings, figures, and how each part was made.

Titles, tables and figures come from the study's code, applied to the parts in the result file; no
part is computed again. A study that this version does not know is passed over with a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from forethought.registry import studies
from forethought.studies.base import Study

Record = Mapping[str, Any]
FACTS = ("made", "seed", "wall_seconds", "hardware")


def study_markdown(result: Record) -> str:
    """Title, the study's own Markdown, and the command, commit and hardware of every part."""
    study = _find(result)
    if study is None:
        return f"## {result['study']}\n\n{_unknown(result)}"
    text = [f"## {study.title}", _below(study.markdown(result["parts"]), level=3)]
    for name, commit, facts, command in _provenance(result):
        text.append(f"**{name}.** commit: {commit}; {facts}\n\n```\n{command}\n```")
    return "\n\n".join(text)


def study_html(result: Record) -> tuple[str, dict[str, Figure], str]:
    """Heading and tables as HTML, figures by name, and provenance as HTML."""
    study = _find(result)
    if study is None:
        return f"<h2>{escape(result['study'])}</h2><p>{escape(_unknown(result))}</p>", {}, ""
    text = markdown_html(_below(study.markdown(result["parts"]), level=3))
    notes = [
        f'<p class="small"><b>{escape(name)}.</b> commit: {escape(commit)}; {escape(facts)}</p>'
        f"<pre>{escape(command)}</pre>"
        for name, commit, facts, command in _provenance(result)
    ]
    made = f"<details><summary>How its parts were made</summary>{''.join(notes)}</details>"
    return f"<h2>{escape(study.title)}</h2>{text}", study.plot(result["parts"]), made


def markdown_html(text: str) -> str:
    """Markdown with tables as HTML; HTML inside it is shown as text. Wide tables scroll."""
    page = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    page = page.replace("<table>", '<div class="scroll"><table>')
    return page.replace("</table>", "</table></div>")


def facts_text(facts: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """ "name: value; ..." of those of ``names`` that are known."""
    found = []
    for name in names:
        value = facts.get(name)
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {part}" for key, part in value.items() if part)
        found += [] if value is None else [f"{name.replace('_', ' ')}: {value}"]
    return "; ".join(found)


def _find(result: Record) -> Study | None:
    return studies[result["study"]]() if result["study"] in studies else None


def _unknown(result: Record) -> str:
    return f"This version has no study {result['study']}; its results are not shown."


def _below(text: str, *, level: int) -> str:
    """The same Markdown with its highest heading at ``level``."""
    pieces = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # odd ones are code
    found = [len(marks) for text in pieces[::2] for marks in re.findall(r"^(#+) ", text, re.M)]
    more = "#" * max(0, level - min(found, default=level))
    pieces[::2] = [re.sub(r"^(#+ )", rf"{more}\1", text, flags=re.M) for text in pieces[::2]]
    return "".join(pieces).strip()


def _provenance(result: Record) -> list[tuple[str, str, str, str]]:
    """(part, commit, other facts, command) of every part that is there."""
    rows = []
    for name in result["parts"]:
        known = result["provenance"].get(name) or {}
        command = known.get("command") or "command not recorded"
        rows.append((name, str(known.get("commit")), facts_text(known, FACTS), command))
    return rows
