"""Pictures of plans, executions and scores, drawn from the plain data of result files.

Positions are (row, col) in the frame of `forethought.envs.maze_layout`, drawn with rows downward
like the layout's text. Time runs from blue to orange. As in the thesis's Figure 5.4, a hollow
circle is the start and a star in a circle the goal. No pyplot: no figure stays open anywhere.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from forethought.envs.maze_layout import HOME, Layout

INK, MUTED, FLOOR, ALARM = "#2d3848", "#8893a2", "#ffffff", "#c8323c"
TIME = LinearSegmentedColormap.from_list("time", ["#2f5fb3", "#8a4fb0", "#dd4f70", "#f79a3e"])
IMAGINED: dict[str, Any] = {"color": "#3d6fb4", "lw": 1.6, "ls": (0, (2.2, 1.4))}
EXECUTED: dict[str, Any] = {"color": "#e8743b", "lw": 2.6}
PARTING: dict[str, Any] = {"marker": "X", "mfc": ALARM, "mec": FLOOR, "ms": 10, "ls": ""}
BARS: dict[str, dict[str, Any]] = {  # by the place of a bar's numbers in an evaluation
    "evaluations": {"label": "run here (95 % interval)", "color": "#3d6fb4"},
    "references": {"label": "reference controller, run here", "color": "#b9c3d0"},
    "published": {"label": "published (± as printed)", "fc": FLOOR, "ec": MUTED, "hatch": "/////"},
}
NEAR = 0.5  # cells: closer than this D4RL pays its reward, farther than this plan and run part


def draw_maze(ax: Axes, layout: Layout) -> None:
    """Draw walls and floor, without ticks, and fix the view to the maze with a thin rim."""
    rows, columns = layout.shape
    edge = 0.5 - HOME  # cell 0 begins here
    extent = (edge, columns + edge, rows + edge, edge)
    ax.imshow(layout.walls, cmap=ListedColormap([FLOOR, INK]), extent=extent, vmin=0, vmax=1)
    ax.set(xlim=(edge + 0.6, columns + edge - 0.6), ylim=(rows + edge - 0.6, edge + 0.6))
    ax.set_axis_off()


def draw_ends(ax: Axes, start: Sequence[float], goal: Sequence[float]) -> None:
    """Mark start and goal, (row, col) or longer."""
    ring: dict[str, Any] = {"marker": "o", "mfc": FLOOR, "mec": INK, "mew": 1.5, "zorder": 5}
    ax.plot(start[1], start[0], ms=8, **ring)
    ax.plot(goal[1], goal[0], ms=10.5, **ring)
    ax.plot(goal[1], goal[0], "*", mfc=INK, mec="none", ms=8.5, zorder=6)


def draw_paths(ax: Axes, paths: Sequence[ArrayLike], *, width: float = 2.2) -> None:
    """Draw paths, each (steps, 2 or more), colored from their first step to their last."""
    for path in paths:
        xy = _xy(path)
        segments = list(np.stack([xy[:-1], xy[1:]], axis=1))
        colors = TIME(np.linspace(0, 1, len(segments)))
        ax.add_collection(LineCollection(segments, colors=colors, lw=width, capstyle="round"))


def figure_paths(evaluation: Mapping[str, Any]) -> Figure:
    """A grid of executed paths, up to twelve, each until it comes to rest."""
    examples, layout = evaluation["examples"][:12], Layout.parse(evaluation["layout"])
    figure, axes = _panels(len(examples), layout, columns=4, width=2.2)
    for ax, example in zip(axes, examples, strict=True):
        draw_paths(ax, [_until_rest(example["executed"])])
        draw_ends(ax, example["start"], example["goal"])
        _title_outcome(ax, example)
    return figure


def figure_imagined_executed(evaluation: Mapping[str, Any]) -> Figure:
    """First plan (dashed) over execution (solid), up to six, failures first, and where they part.

    They part at the first step at which the run is more than 0.5 from the plan: from where the plan
    would be then if control goes by the clock, else from the plan's nearest point.
    """
    by_clock = follows_clock(evaluation["protocol"].get("controller"))
    examples = sorted(evaluation["examples"], key=lambda example: bool(example["success"]))[:6]
    layout = Layout.parse(evaluation["layout"])
    figure, axes = _panels(len(examples), layout, columns=3, width=2.9)
    for ax, example in zip(axes, examples, strict=True):
        ax.plot(*_xy(_until_rest(example["executed"])).T, **EXECUTED)
        ax.plot(*_xy(example["imagined"]).T, **IMAGINED)
        draw_ends(ax, example["start"], example["goal"])
        step = parting_step(example["executed"], example["imagined"], by_clock=by_clock)
        if step is not None:
            ax.plot(*_xy(example["executed"])[step], **PARTING, zorder=7)
        _title_outcome(ax, example, "" if step is None else f", parts at step {step}")
    named = (("imagined (first plan)", IMAGINED), ("executed", EXECUTED), ("0.5 apart", PARTING))
    _legend(figure, [Line2D([], [], label=label, **style) for label, style in named])
    return figure


def figure_failures(evaluation: Mapping[str, Any]) -> Figure:
    """Failed episodes to their last step, the first plan dashed, and why each failed."""
    failures, layout = evaluation["failures"], Layout.parse(evaluation["layout"])
    figure, axes = _panels(len(failures), layout, columns=3, width=3.0)
    for ax, failure in zip(axes, failures, strict=True):
        draw_paths(ax, [failure["executed"]])
        if failure.get("imagined"):
            ax.plot(*_xy(failure["imagined"]).T, **IMAGINED)
        draw_ends(ax, failure["start"], failure["goal"])
        ax.plot(*_xy(failure["executed"])[-1], **PARTING, zorder=7)
        text = textwrap.fill(failure["text"], 44)
        ax.set_title(text, fontsize=8, color=ALARM)
    named = (("imagined (first plan)", IMAGINED), ("its end", PARTING))
    _legend(figure, [Line2D([], [], label=label, **style) for label, style in named])
    return figure


def figure_strip(plan: Mapping[str, Any]) -> Figure:
    """Denoising from left to right, up to six panels: the thesis's Figure 5.4."""
    strip = plan["strip"]
    chosen = np.unique(np.linspace(0, len(strip) - 1, min(len(strip), 6)).round().astype(int))
    layout = Layout.parse(plan["layout"])
    figure, axes = _panels(len(chosen), layout, columns=len(chosen), width=1.8)
    # a plan may wait at its goal: the colors span the way there, as for executed paths
    end = plan["times"][-1] / plan["arrival"] if plan.get("times") and plan.get("arrival") else 1
    for ax, index in zip(axes, chosen, strict=True):
        xy, last = _xy(strip[index]["positions"]), index == len(strip) - 1
        colors = TIME(np.linspace(0, end, len(xy)).clip(max=1.0))
        ax.plot(*xy.T, color=MUTED, lw=1.0 if last else 0.0)
        ax.scatter(*xy.T, c=colors, s=8, lw=0, zorder=3)
        draw_ends(ax, plan["start"], plan["goal"])
        title = "plan" if last else f"noise level {strip[index]['level']}"
        ax.set_title(title, fontsize=9, color=INK)
    return figure


def figure_scores(evaluations: Sequence[Mapping[str, Any]]) -> Figure:
    """Bars with 95 % intervals, beside reference controllers and published values, by task."""
    figure = Figure(layout="constrained")
    ax, places, names, used, place = figure.add_subplot(), [], [], set(), 0.0
    for task, group in by_task(evaluations).items():
        ax.text(0, place, task, weight="bold", color=INK, va="center")
        for kind, item, _ in entries(group):
            place += 1
            score, below, above = score_and_errors(item)
            errors = {"xerr": [[below], [above]], "ecolor": INK, "capsize": 3}
            ax.barh(place, score, height=0.68, **errors, **BARS[kind])
            end = (max(score, 0) + above, place)
            ax.annotate(f"{score:.1f}", end, (6, 0), textcoords="offset points", va="center")
            places, names = [*places, place], [*names, item.get("name") or item["recipe"]]
            used.add(kind)
        place += 1.2
    figure.set_size_inches(7.6, 0.34 * place + 0.9)
    ax.axvline(100, color=MUTED, lw=1, ls=":", zorder=0)
    ax.set_yticks(places, names)
    ax.set_xlabel("normalized score (0 = random, 100 = reference policy)")
    ax.set(xlim=(ax.get_xlim()[0], 1.07 * ax.get_xlim()[1]), ylim=(place - 0.6, -0.5))
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    _legend(figure, [Patch(**BARS[kind]) for kind in BARS if kind in used])
    return figure


def save_movie(
    path: str | Path,
    layout: Layout,
    executed: ArrayLike,
    imagined: ArrayLike | None,
    goal: Sequence[float],
    fps: int = 20,
    by_clock: bool = True,
) -> Path:
    """Write a movie of one execution until it rests, about 100 frames: .gif or .mp4.

    The hollow ball is where the first plan would be at that step, or, not ``by_clock``, the nearest
    point of its path; imagined None draws none.
    """
    path, run = Path(path), _until_rest(executed)
    ghost = None if imagined is None else points_beside(run, imagined, by_clock=by_clock)
    frames = list(_movie_frames(layout, run, imagined, ghost, goal))
    frames = np.stack(frames + fps * frames[-1:])  # rest a second on the end
    if path.suffix == ".gif":
        iio.imwrite(path, frames, plugin="pillow", duration=1000 / fps, loop=0)
    elif path.suffix == ".mp4":
        iio.imwrite(path, frames, plugin="FFMPEG", fps=fps, codec="libx264", macro_block_size=2)
    else:
        raise ValueError(f"movie file {path.name!r} ends in {path.suffix!r}; use .gif or .mp4")
    return path


def _movie_frames(
    layout: Layout,
    executed: NDArray,
    imagined: ArrayLike | None,
    beside: NDArray | None,
    goal: Sequence[float],
) -> Iterator[NDArray[np.uint8]]:
    """RGB frames: the maze is drawn once, then only the moving parts over a copy of it."""
    rows, columns = layout.shape
    scale = 180 / max(rows, columns)
    width, height = 2 * round(scale * columns), 2 * round(scale * rows) + 26  # H.264 wants even
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1 - 26 / height))
    text: dict[str, Any] = {"y": 1 - 13 / height, "va": "center", "fontsize": 9, "color": INK}
    figure.text(0.015, s="executed" if imagined is None else "dashed: imagined", **text)
    counter = figure.text(0.985, s="", ha="right", **text)
    draw_maze(ax, layout)
    draw_ends(ax, executed[0], goal)
    (trail,) = ax.plot([], [], **EXECUTED)
    (ball,) = ax.plot([], [], "o", mfc=EXECUTED["color"], mec=FLOOR, ms=9, zorder=8)
    (ghost,) = ax.plot([], [], "o", mfc=FLOOR, mec=IMAGINED["color"], mew=1.6, ms=9, zorder=7)
    run, plan = _xy(executed), None if beside is None else _xy(beside)
    if imagined is not None:
        ax.plot(*_xy(imagined).T, **IMAGINED)
    canvas.draw()  # what moves is still empty
    background = canvas.copy_from_bbox(figure.bbox)
    for step in np.unique(np.linspace(0, len(run) - 1, 100).round().astype(int)):
        canvas.restore_region(background)
        trail.set_data(*run[: step + 1].T)
        ball.set_data(*run[[step]].T)
        if plan is not None:
            ghost.set_data(*plan[[step]].T)
        counter.set_text(f"step {step}")
        for artist in (trail, ghost, ball, counter):
            artist.draw(canvas.get_renderer())
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def by_task(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Evaluations by environment (by recipe where none is named), in order of appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for evaluation in evaluations:
        task = evaluation["protocol"].get("env") or evaluation["recipe"]
        groups.setdefault(task, []).append(evaluation)
    return groups


def entries(group: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping, Mapping]]:
    """(kind, numbers, evaluation they came with), each once: evaluations, references, published."""
    found: list[tuple[str, Mapping, Mapping]] = []
    for kind in BARS:
        for evaluation in group:
            items = [evaluation] if kind == "evaluations" else evaluation.get(kind) or []
            known = [entry[1] for entry in found]
            found += [(kind, item, evaluation) for item in items if item not in known]
    return found


def score_and_errors(item: Mapping[str, Any]) -> tuple[float, float, float]:
    """Score and how far its error bar reaches down and up; 0 where that is not known."""
    if not isinstance(item["score"], Mapping):
        return item["score"], item.get("error") or 0.0, item.get("error") or 0.0
    mean, bounds = item["score"]["mean"], item["score"].get("interval") or ()
    below, above = np.abs(np.asarray(bounds or (mean, mean), dtype=float) - mean)
    return (mean, below, above) if math.isfinite(below + above) else (mean, 0.0, 0.0)


def parting_step(executed: ArrayLike, imagined: ArrayLike, *, by_clock: bool = False) -> int | None:
    """First step at which the run is more than 0.5 from its plan; None if it never is.

    by_clock: from where the plan would be at that step, else from the plan's nearest point
    """
    beside = points_beside(executed, imagined, by_clock=by_clock)
    apart = np.linalg.norm(_xy(executed) - _xy(beside), axis=1) > NEAR
    return int(apart.argmax()) if apart.any() else None


def points_beside(executed: ArrayLike, imagined: ArrayLike, *, by_clock: bool = False) -> NDArray:
    """(steps, 2), as (row, col): what each executed point (steps, 2 or more) is compared with.

    That is where the plan would be at that step, if control follows the plan's clock; a plan stays
    at its end. Else it is the nearest point of the planned path (the distance to it is called
    cross-track error): a controller that pursues the path is ahead of the plan's clock on purpose.
    """
    run, plan = (np.asarray(path, dtype=float)[:, :2] for path in (executed, imagined))
    if by_clock:
        return plan[np.minimum(np.arange(len(run)), len(plan) - 1)]
    if len(plan) == 1:
        return plan.repeat(len(run), axis=0)
    begin, piece = plan[:-1], np.diff(plan, axis=0)
    length = np.maximum((piece**2).sum(axis=1), 1e-12)
    share = (((run[:, None] - begin) * piece).sum(axis=2) / length).clip(0, 1)  # (steps, pieces)
    nearest = begin + share[..., None] * piece
    best = ((nearest - run[:, None]) ** 2).sum(axis=2).argmin(axis=1)
    return nearest[np.arange(len(run)), best]


def follows_clock(controller: str | None) -> bool:
    """Whether a controller, by its name in the settings, goes by the plan's clock."""
    return controller in ("track_observations", "follow_actions")


def _panels(n: int, layout: Layout, *, columns: int, width: float) -> tuple[Figure, list[Axes]]:
    """A figure of n mazes, `columns` to a line, each `width` inches wide."""
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    height = width * layout.shape[0] / layout.shape[1] + 0.25
    figure = Figure(figsize=(columns * width, rows * height + 0.08), dpi=150, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for index, ax in enumerate(axes):
        draw_maze(ax, layout) if index < n else ax.remove()
    return figure, axes[:n]


def _xy(path: ArrayLike) -> NDArray:
    """Horizontal and vertical coordinates, (steps, 2), of positions (row, col, ...)."""
    return np.asarray(path, dtype=float)[:, 1::-1]


def _until_rest(path: ArrayLike) -> NDArray:
    """The path without its tail within 0.15 of its end, so that colors span the motion."""
    path = np.asarray(path, dtype=float)
    moving = np.linalg.norm(path[:, :2] - path[-1, :2], axis=1) > 0.15
    return path[: int(np.flatnonzero(moving).max(initial=0)) + 8]


def _title_outcome(ax: Axes, example: Mapping[str, Any], more: str = "") -> None:
    near = np.linalg.norm(_xy(example["executed"]) - _xy([example["goal"]]), axis=1) <= NEAR
    arrival = f"arrives at step {int(near.argmax())}" if near.any() else "arrives"
    title = (arrival if example["success"] else "does not arrive") + more
    ax.set_title(title, fontsize=9, color=INK if example["success"] else ALARM)


def _legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
