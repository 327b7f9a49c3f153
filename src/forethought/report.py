"""From result files to Markdown tables and one self-contained page: no model, no simulator.

A score never travels alone: its row carries the protocol, and the notes below carry command,
hardware and data. Rows compare only where their start sets match, so each row names its set.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from forethought import figures
from forethought.envs.maze_layout import Layout
from forethought.prediction_tables import predictions_markdown
from forethought.scores import paired_difference
from forethought.study_sections import facts_text, markdown_html, study_html, study_markdown
from forethought.viewer import content_policy, viewer_html, viewer_script, viewer_style

Record = Mapping[str, Any]
REQUIRED = {
    "evaluation": ("recipe", "score", "n", "protocol"),
    "plan": ("recipe", "strip"),
    "prediction": ("recipe", "rows", "protocol"),
    "study": ("study", "parts", "provenance"),
}
FACTS = ("hardware", "dataset", "checkpoint", "seed", "goal_time", "wall_seconds", "made")
COLUMNS = "method,score,success,n,starts,replans,candidates,network calls,controller,plan ms (p99),"
COLUMNS = (COLUMNS + "train min,commit,source").split(",")
COMPARABLE = (
    "Rows are comparable only when their starts match: equal names in the column “starts” mean the"
    " same seeds, starts and goals. Published rows come from other starts and are context. Brackets"
    " hold the 95 % interval over episodes run here; ± after a published score is as printed."
)
INTRODUCTION = (
    "Each planner here learned a generative model of trajectories from recorded behavior. To act,"
    " it imagines: from the model it draws whole futures that fit the present and the goal, and a"
    " controller follows one of them in the simulator."
)
SCORES = (
    " Scores are averages over all episodes; pictures show a few. A score of 0 is a random policy,"
    " 100 D4RL's reference policy."
)
STRIP_CAPTION = (
    "How a plan appears: all its time steps start as noise and are refined together, left to right,"
    " into a way from the start (circle) to the goal (star). Blue is early, orange late."
)
STYLE = """
body{margin:0;background:#f5f6f8;color:#2d3848;font:16px/1.55 system-ui,sans-serif}
main{max-width:64rem;margin:auto;padding:1.5rem 1rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:.5rem 0} h2{margin:0} h3{margin:1.2rem 0 .4rem}
.lead{max-width:46rem;font-size:1.08rem} .small,figcaption,summary{font-size:.88rem;color:#5d6878}
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr))}
.card,section{background:#fff;border:1px solid #e1e5ea;border-radius:12px;padding:1rem 1.2rem}
section{margin-top:1.5rem} .card h3{margin:0;font-size:1rem} .big{font-size:2.8rem;margin:0}
.big{font-weight:650;line-height:1.2;color:#3d6fb4} figure{margin:1rem 0} summary{cursor:pointer}
dl{display:grid;grid-template-columns:1fr auto;gap:.15rem .8rem;margin:.4rem 0 0;font-size:.92rem}
dd{margin:0;text-align:right;font-variant-numeric:tabular-nums} .scroll{overflow-x:auto}
img{display:block;max-width:100%;height:auto} .wide img{min-width:40rem}
table{border-collapse:collapse;margin-top:.8rem;font-size:.84rem;font-variant-numeric:tabular-nums}
td,th{padding:.35rem .7rem;text-align:left;white-space:nowrap;border-bottom:1px solid #e1e5ea}
td:first-child,th:first-child{background:#fff;font-weight:600;left:0}
@media(min-width:48rem){td:first-child,th:first-child{position:sticky}}
pre{overflow-x:auto;background:#f5f6f8;padding:.6rem .8rem;border-radius:8px;font-size:.82rem}
"""


def load_results(paths: str | Path | Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read result files: each path is a JSON file, or a folder searched through for them.

    JSON files of a folder without a "kind" are no results and passed over. Raises
    FileNotFoundError for a missing path, ValueError for a damaged file.
    """
    results = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if not path.exists():
            raise FileNotFoundError(f"no result file or folder at {path}")
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            try:
                result = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                advice = "delete it, or run the command that wrote it again"
                raise ValueError(f"{file} is damaged ({error}); {advice}") from error
            if isinstance(result, dict) and "kind" in result:
                missing = [key for key in REQUIRED.get(result["kind"], ()) if key not in result]
                if missing:
                    raise ValueError(f"{file}: {result['kind']} without {', '.join(missing)}")
                results.append(result)
            elif not path.is_dir():
                raise ValueError(f'{file} is no result file: it has no "kind"')
    return results


def markdown_table(evaluations: Sequence[Record]) -> str:
    """One Markdown table: a row for every evaluation, reference controller and published value."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *_rows(evaluations)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write_results_markdown(results: Sequence[Record], out_file: str | Path) -> Path:
    """Write a section for every task and study: its tables, then how each row was made."""
    parts = ["# Results", "Made by `forethought report`; do not edit.", COMPARABLE]
    for task, group in figures.by_task(_of_kind(results, "evaluation")).items():
        parts += [f"## {task}", markdown_table(group), *_paired(group)]
        for evaluation in group:
            facts = facts_text(evaluation["protocol"], FACTS)
            parts.append(f"**{_label(evaluation, group)}.** {facts}")
            parts.append(f"```\n{evaluation['protocol'].get('command', 'not recorded')}\n```")
    parts += [_predictions(results)] if _of_kind(results, "prediction") else []
    parts += [study_markdown(result) for result in _of_kind(results, "study")]
    return _write(Path(out_file), "\n\n".join(parts) + "\n")


def write_html(results: Sequence[Record], out_file: str | Path, *, title: str) -> Path:
    """Write one HTML file that holds everything it shows: no network, no other file."""
    return _write(Path(out_file), _page(results, title, {}))


def write_report(
    results: Sequence[Record], out_dir: str | Path, *, title: str = "Planning by imagining"
) -> Path:
    """Write report.html into a folder, and its pictures and movies beside it; returns its path."""
    pictures: dict[str, bytes] = {}
    page = _write(Path(out_dir) / "report.html", _page(results, title, pictures))
    for name, content in pictures.items():
        (page.parent / name).write_bytes(content)
    return page


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _predictions(results: Sequence[Record]) -> str:
    """Markdown of evaluated gamma-models."""
    table = predictions_markdown(_of_kind(results, "prediction"))
    return f"## Predictions of gamma-models\n\n{table}"


def _of_kind(results: Sequence[Record], kind: str) -> list[Record]:
    return [result for result in results if result["kind"] == kind]


def _label(evaluation: Record, group: Sequence[Record]) -> str:
    """The recipe, numbered where the group has several evaluations of it."""
    same = [other for other in group if other["recipe"] == evaluation["recipe"]]
    return evaluation["recipe"] + (f" ({same.index(evaluation) + 1})" if len(same) > 1 else "")


def _rows(group: Sequence[Record]) -> list[list[str]]:
    """Cells under COLUMNS, one row for each entry."""
    rows = []
    for kind, item, evaluation in figures.entries(group):
        protocol = item.get("protocol") or {}
        rate, times = item.get("success_rate"), protocol.get("plan_ms")
        cadence, seconds = protocol.get("replan_every"), protocol.get("train_seconds")
        calls = [protocol.get("network_calls"), protocol.get("sampler")]
        cells = (
            _label(item, group) if kind == "evaluations" else item["name"],
            _score_text(item),
            None if rate is None else f"{100 * rate:.1f} %",
            item.get("n"),
            _start_set(item),
            {None: None, 0: "never", 1: "every step"}.get(cadence, f"every {cadence} steps"),
            protocol.get("candidates"),
            " ".join(str(part) for part in calls if part is not None) or None,
            protocol.get("controller"),
            f"{times['median']:.1f} ({times['p99']:.1f})" if times else None,
            None if seconds is None else f"{seconds / 60:.1f}",
            None if kind == "published" else evaluation["protocol"].get("commit"),
            f"published: {item.get('source')}" if kind == "published" else "run here",
        )
        rows.append(["–" if cell is None else str(cell) for cell in cells])
    return rows


def _score_text(item: Record) -> str:
    mean, below, above = figures.score_and_errors(item)
    if below == above == 0:
        return f"{mean:.1f}"
    if isinstance(item["score"], Mapping):
        return f"{mean:.1f} [{mean - below:.1f}, {mean + above:.1f}]"
    return f"{mean:.1f} ± {below:.1f}"


def _start_set(item: Record) -> str | None:
    """A short name of the seeds, starts and goals: equal names, equal start sets."""
    episodes = item.get("episodes") or []
    keys = [[episode.get(key) for key in ("seed", "start", "goal")] for episode in episodes]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:6] if episodes else None


def _paired(group: Sequence[Record]) -> list[str]:
    """Differences from the group's first evaluation, where the starts match."""
    sentences, first = [], group[0]
    for other in group[1:]:
        if _start_set(other) is not None and _start_set(other) == _start_set(first):
            mean, low, high = paired_difference(other["episodes"], first["episodes"])
            sentences.append(
                f"{_label(other, group)} minus {_label(first, group)}, episode by episode on the"
                f" same {other['n']} starts: {mean:+.1f} [{low:+.1f}, {high:+.1f}]."
            )
    return sentences


def _page(results: Sequence[Record], title: str, pictures: dict[str, bytes]) -> str:
    """The whole page; every picture drawn for it is also put into `pictures` by file name."""
    evaluations, plans = _of_kind(results, "evaluation"), _of_kind(results, "plan")
    lead = INTRODUCTION + (SCORES if evaluations else "")
    body = [f'<h1>{escape(title)}</h1><p class="lead">{lead}</p>']
    tasks = figures.by_task(evaluations)
    if evaluations:
        cards = [_card(task, one, group) for task, group in tasks.items() for one in group]
        caption = "Published values were measured elsewhere and on other starts: context only."
        chart = _picture("scores.png", figures.figure_scores(evaluations), caption, pictures)
        body += ['<div class="cards">', *cards, f"</div><section>{chart}</section>"]
    for task, group in tasks.items():
        body.append(f"<section><h2>{escape(task)}</h2>")
        recipes = {evaluation["recipe"] for evaluation in group}
        body += [_plan(plan, pictures) for plan in plans if plan["recipe"] in recipes]
        plans = [plan for plan in plans if plan["recipe"] not in recipes]
        for evaluation in group:
            label = _label(evaluation, group)
            body += [f"<h3>{escape(label)}</h3>", _failures(evaluation)]
            body += _episodes(evaluation, f"{task.rpartition('/')[2]} {label}", pictures)
        body += [_table(group), "</section>"]
    body += [f"<section>{_plan(plan, pictures)}</section>" for plan in plans]
    if _of_kind(results, "prediction"):
        body.append(f"<section>{markdown_html(_predictions(results))}</section>")
    for result in _of_kind(results, "study"):
        body.append(f"<section>{_study(result, pictures)}</section>")
    body += [viewer_script()] if _of_kind(results, "plan") else []
    head = f'<meta charset="utf-8">{content_policy()}<title>{escape(title)}</title>'
    head += f"<style>{STYLE}{viewer_style()}</style>"
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    text = "<body><main>" + "\n".join(body) + "</main></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{text}</html>\n'


def _card(task: str, evaluation: Record, group: Sequence[Record]) -> str:
    """The score in large, beside what else is known of the task."""
    interval = _score_text(evaluation).partition(" ")[2].strip("[]").replace(",", " to")
    lines = [("95 % interval", interval or "unknown")]
    if evaluation.get("success_rate") is not None:
        lines.append(("success", f"{100 * evaluation['success_rate']:.1f} %"))
    lines.append(("episodes", str(evaluation["n"])))
    others = [item for kind, item, _ in figures.entries(group) if kind != "evaluations"]
    lines += [(item["name"], _score_text(item).partition(" [")[0]) for item in others]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines)
    score, label = evaluation["score"]["mean"], escape(_label(evaluation, group))
    label = f'{escape(task.rpartition("/")[2])}</h3><p class="small">{label}</p>'
    return f'<div class="card"><h3>{label}<p class="big">{score:.1f}</p><dl>{items}</dl></div>'


def _plan(plan: Record, pictures: dict[str, bytes]) -> str:
    """The viewer, and the strip that stands in for it where scripts do not run."""
    if not plan["strip"] or not plan.get("layout"):
        return ""
    name, figure = f"{plan['recipe']} denoising.png", figures.figure_strip(plan)
    strip, viewer = _picture(name, figure, STRIP_CAPTION, pictures), viewer_html(plan)
    return f"<div data-without-script>{strip}</div>{viewer}"


def _study(result: Record, pictures: dict[str, bytes]) -> str:
    text, drawn, made = study_html(result)
    shown = [
        _picture(f"{result['study']} {label}.png", figure, label, pictures)
        for label, figure in drawn.items()
    ]
    return text + "".join(shown) + made


def _episodes(evaluation: Record, name: str, pictures: dict[str, bytes]) -> list[str]:
    """A movie, paths, and imagined over executed, where the file holds examples in a maze."""
    examples = evaluation.get("examples") or []
    if not evaluation.get("layout") or not examples:
        return []
    imagined = [example for example in examples if example.get("imagined")]
    shown = next((example for example in imagined or examples if example["success"]), examples[0])
    track = shown["executed"], shown.get("imagined"), shown["goal"]
    with tempfile.TemporaryDirectory() as folder:
        layout, file = Layout.parse(evaluation["layout"]), Path(folder) / "movie.gif"
        by_clock = figures.follows_clock(evaluation["protocol"].get("controller"))
        movie = figures.save_movie(file, layout, *track, by_clock=by_clock).read_bytes()
    ghost = "where the plan would be" if by_clock else "the nearest point of the first plan"
    drawn: list[tuple[str, bytes | Figure, str]] = [
        ("movie.gif", movie, f"One episode; the hollow ball is {ghost}."),
        ("paths.png", figures.figure_paths(evaluation), "Executed paths, until each rests."),
    ]
    if imagined:
        figure = figures.figure_imagined_executed({**evaluation, "examples": imagined})
        drawn.append(("imagined.png", figure, "First plans and their fate, failures first."))
    if evaluation.get("failures"):
        figure = figures.figure_failures(evaluation)
        drawn.append(("failures.png", figure, _causes(evaluation)))
    return [_picture(f"{name} {file}", what, text, pictures) for file, what, text in drawn]


def _causes(evaluation: Record) -> str:
    """How often each cause of failure was measured, and which of them are drawn."""
    counts = evaluation.get("causes") or {}
    told = ", ".join(f"{cause} {count}" for cause, count in sorted(counts.items()))
    return f"Failed episodes by cause: {told}."


def _failures(evaluation: Record) -> str:
    episodes = [e for e in evaluation.get("episodes") or [] if e.get("success") is not None]
    failed = [episode for episode in episodes if not episode["success"]]
    if not failed:
        return f"<p>All {len(episodes)} episodes succeeded.</p>" if episodes else ""
    lines: list[tuple[str, ...]] = [("seed", "start", "goal", "return")]
    for episode in failed:
        places = [episode.get(end) or [] for end in ("start", "goal")]
        texts = ["(" + ", ".join(f"{x:.1f}" for x in place[:2]) + ")" for place in places]
        lines.append((str(episode.get("seed", "–")), *texts, f"{episode.get('return') or 0:.1f}"))
    causes = f": {_causes(evaluation)}" if evaluation.get("failures") else ""
    summary = f"{len(failed)} of {len(episodes)} episodes failed{escape(causes)}"
    summary = f"<summary>{summary}</summary>"
    return f"<details>{summary}{_html_table(lines)}</details>"


def _table(group: Sequence[Record]) -> str:
    """The table with its protocol columns, then how each of its rows was made."""
    notes = [f'<p class="small">{escape(text)}</p>' for text in (COMPARABLE, *_paired(group))]
    for evaluation in group:
        facts, label = facts_text(evaluation["protocol"], FACTS), _label(evaluation, group)
        command = escape(evaluation["protocol"].get("command", "command not recorded"))
        notes.append(f'<p class="small"><b>{escape(label)}.</b> {escape(facts)}</p>')
        notes.append(f"<pre>{command}</pre>")
    return _html_table([COLUMNS, *_rows(group)]) + "".join(notes)


def _html_table(lines: Sequence[Sequence[str]]) -> str:
    """A table, the first line its head, that scrolls sideways where it must."""
    rows = ["<td>" + "</td><td>".join(escape(cell) for cell in line) + "</td>" for line in lines]
    head = rows[0].replace("td>", "th>")  # cells are escaped: these are the tags
    table = "</tr><tr>".join([head, *rows[1:]])
    return f'<div class="scroll"><table><tr>{table}</tr></table></div>'


def _picture(name: str, content: Figure | bytes, caption: str, pictures: dict[str, bytes]) -> str:
    """A figure element with the picture inside it, kept in `pictures` under a free file name."""
    if isinstance(content, Figure):
        buffer = io.BytesIO()
        content.savefig(buffer, format="png", dpi=150)
        content = buffer.getvalue()
    stem, _, ending = re.sub(r"[^\w.-]+", "-", name).rpartition(".")
    copies = sum(other.startswith(stem) for other in pictures)
    pictures[f"{stem}-{copies + 1}.{ending}" if copies else f"{stem}.{ending}"] = content
    data = f"data:image/{ending};base64,{base64.b64encode(content).decode()}"
    wide = ' class="scroll wide"' if ending == "png" else ""
    image = f'<img src="{data}" alt="{escape(caption)}">'
    return f"<figure><div{wide}>{image}</div><figcaption>{escape(caption)}</figcaption></figure>"
