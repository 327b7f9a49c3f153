"""Tables and pictures of ``test_time_tasks``, from its parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle

from forethought.envs.maze_layout import LAYOUTS
from forethought.figures import draw_ends, draw_maze, draw_paths

TASKS = ("waypoints", "timed", "speed", "reward", "composed")
ROWS = ("without", "with")
EXAMPLES = 2
WORDS = {
    "success": "arrives",
    "steps": "steps",
    "visited": "visits both, in order",
    "on_time": "within 0.5 of both at their times",
    "off": "off at those times",
    "never_above": "never above the limit",
    "above": "steps above it",
    "most": "largest speed",
    "reward": "reward",
    "across": "off the middle",
}


def markdown(parts: Mapping[str, Any]) -> str:
    """One table a task."""
    lines = []
    for task in TASKS:
        rows = [row for row in ROWS if f"{task}/{row}" in parts]
        if not rows:
            continue
        first = parts[f"{task}/{rows[0]}"]
        keys = list(first["measured"])
        lines += [
            f"**{task}** ({first['protocol']['controller']}, {first['n']} episodes a row)",
            "",
            f"| the task is | {' | '.join(WORDS[key] for key in keys)} |",
            "|---" * (len(keys) + 1) + "|",
        ]
        for row in rows:
            measured = parts[f"{task}/{row}"]["measured"]
            cells = [_cell(measured[key]) for key in keys]
            lines.append(f"| {'given' if row == 'with' else 'not given'} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(item: Mapping[str, Any]) -> str:
    low, high = item["interval"]
    if "hits" in item:
        return f"{item['mean']:.0%} [{low:.0%}, {high:.0%}]"
    digits = 0 if abs(item["mean"]) >= 20 else 3
    return f"{item['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def plot(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """A line of mazes for each task: two cases, each without and with it."""
    tasks = [task for task in TASKS if any(f"{task}/{row}" in parts for row in ROWS)]
    if not tasks:
        return {}
    figure = Figure(figsize=(9.6, 2.0 * len(tasks)), dpi=150, layout="constrained")
    axes = figure.subplots(len(tasks), len(ROWS) * EXAMPLES, squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for place, ax in enumerate(line):
            draw_maze(ax, LAYOUTS["large"])
            example, row = place // len(ROWS), ROWS[place % len(ROWS)]
            episodes = parts.get(f"{task}/{row}", {"episodes": []})["episodes"]
            if example < len(episodes):
                _draw(ax, episodes[example], task)
            ax.set_title(f"{task}: {'given' if row == 'with' else 'not given'}", fontsize=7)
    return {"paths": figure}


def _draw(ax: Any, record: Mapping[str, Any], task: str) -> None:
    case = record["case"]
    if task in ("waypoints", "timed"):
        for number, (row, column) in enumerate(case["waypoints"], start=1):
            ax.add_patch(Circle((column, row), 0.3, color="#3d6fb4", alpha=0.35))
            ax.text(column, row, str(number), ha="center", va="center", fontsize=7)
    draw_paths(ax, [record["path"]], width=1.6)
    draw_ends(ax, case["start"], case["goal"])
