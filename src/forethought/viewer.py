"""The plan viewer: one plan's denoising, candidates and execution, to play with in a browser.

Plain HTML, SVG and JavaScript, kept in viewer.html, viewer.css and viewer.js beside this module
and put into the page together with the data: the page opens offline, from one file. Without
JavaScript the viewer stays hidden and the static strip beside it is what is seen. A view can be
linked to: ``report.html#plan=1&step=3&candidate=2&time=40&show=estimates``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from forethought.envs.maze_layout import HOME, Layout
from forethought.figures import NEAR, TIME, parting_step, points_beside

Record = Mapping[str, Any]


def viewer_data(plan: Record) -> dict[str, Any] | None:
    """What the script needs of a result of kind "plan", or None if there is nothing to look at.

    Files from before the viewer hold one candidate's estimates only, and no imagined path; it is
    read off the plan's rows. beside: for every executed point the nearest of the imagined path, []
    where the two are compared by the clock. frames: [{label, samples, estimates}], samples and
    estimates each (candidates, rows, 2); at most one of the two may be missing. Positions are
    (row, col).
    """
    if not plan.get("layout") or not (plan.get("denoising") or plan.get("strip")):
        return None
    frames = _frames(plan)
    horizon = len((frames[-1].get("samples") or frames[-1]["estimates"])[0])
    times, arrival = plan.get("times"), plan.get("arrival")
    end = times[-1] / arrival if times and arrival else 1.0  # as in figures.figure_strip
    colors = TIME(np.linspace(0, end, horizon).clip(max=1.0))
    executed, imagined = plan.get("executed") or [], _imagined(plan)
    by_clock, beside, parting = bool(plan.get("by_clock")), [], None
    if executed and imagined:
        parting = parting_step(executed, imagined, by_clock=by_clock)
        if not by_clock:  # the script goes by the clock where it is given no points
            beside = points_beside(executed, imagined).round(3).tolist()
    return {
        "recipe": plan["recipe"],
        "rows": list(Layout.parse(plan["layout"]).rows),
        "edge": 0.5 - HOME,  # cell (0, 0) begins here
        "near": NEAR,
        "start": plan["start"],
        "goal": plan["goal"],
        "arrival": arrival,
        "success": plan.get("success"),
        "colors": [to_hex(color) for color in colors],
        "frames": frames,
        "candidates": plan.get("candidates") or [{"drawn": 0, "value": None}],
        "chosen": plan.get("chosen", 0),
        "imagined": imagined,
        "executed": executed,
        "beside": beside,
        "parting": parting,
    }


def viewer_html(plan: Record) -> str:
    """The viewer of one plan, hidden until the script of the page shows it; "" without data."""
    data = viewer_data(plan)
    if data is None:
        return ""
    # in a script element only "<" could end it early or open a comment; JSON has \u for it
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    block = f'<script type="application/json">{text}</script>'
    page = _resource("viewer.html").replace("<!-- outcome -->", escape(_outcome(plan)))
    return page.replace("<!-- data -->", block)


def viewer_style() -> str:
    """The style sheet of the viewer."""
    return _resource("viewer.css")


def viewer_script() -> str:
    """The script element that brings every viewer of a page to life; once, after all of them."""
    return f"<script>{_resource('viewer.js')}</script>"


def content_policy() -> str:
    """A meta element that lets the page run this script alone and load nothing at all."""
    digest = base64.b64encode(hashlib.sha256(_resource("viewer.js").encode()).digest()).decode()
    script = f"script-src 'sha256-{digest}'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {script}"
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


@cache
def _resource(name: str) -> str:
    return files("forethought").joinpath(name).read_text(encoding="utf-8")


def _outcome(plan: Record) -> str:
    facts = [str(plan["recipe"])]
    if plan.get("arrival"):
        facts.append(f"planned to arrive at step {plan['arrival']}")
    if plan.get("success") is not None:
        facts.append("executed, it " + ("arrives" if plan["success"] else "does not arrive"))
    return ", ".join(facts) + ". "


def _frames(plan: Record) -> list[dict[str, Any]]:
    steps = plan.get("denoising")
    if not steps:
        strip = plan["strip"]
        steps = [{"level": frame["level"], "estimates": [frame["positions"]]} for frame in strip]
        steps[-1] = {**steps[-1], "level": -1}
    frames = []
    for index, step in enumerate(steps):
        label = "the plan" if step["level"] < 0 else f"noise level {step['level']}"
        if not index and "estimates" not in step:
            label = "pure noise"
        paths = {name: step[name] for name in ("samples", "estimates") if name in step}
        frames.append({"label": label, **paths})
    return frames


def _imagined(plan: Record) -> list[list[float]]:
    """The plan's position at every environment step; [] if the file does not tell."""
    if plan.get("imagined"):
        return plan["imagined"]
    times, observations = plan.get("times"), plan.get("observations")
    if not times or not observations:
        return []
    rows: NDArray = np.asarray(observations, dtype=float)[:, :2]
    steps = np.arange(times[-1] + 1)[: len(plan.get("executed") or []) or None]
    path = np.stack([np.interp(steps, times, rows[:, k]) for k in (0, 1)], axis=1)
    return path.round(3).tolist()
