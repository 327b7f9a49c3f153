"""Figure 5.3 from its result file: the tables behind its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forethought.scores import mean_and_interval

MAZES = ("umaze", "medium", "large")
STITCHING = tuple(f"stitching-{seed}" for seed in range(3))  # parts, one a training seed
Parts = Mapping[str, Any]


def write_markdown(parts: Parts) -> str:
    """Tables of the parts that are there; intervals are 95 %."""
    sections = [_long_horizon(parts)] if any(long_horizon(parts, m) for m in MAZES) else []
    stitched = stitching(parts)
    sections += [_stitching(stitched)] if stitched else []
    for key, write in (
        ("horizons", _horizons),
        ("rewards", _rewards),
        ("guidance", _guidance),
    ):
        if key in parts:
            sections.append(write(parts[key]))
    return "\n\n".join(sections)


def _long_horizon(parts: Parts) -> str:
    lines = ["### (a) Long horizons: Maze2D, the same starts in a row's maze", ""]
    header = (
        "maze",
        "planner",
        "score",
        "arrives and stays",
        "control",
        "plans every",
        "samples a plan",
    )
    rows = []
    for maze in MAZES:
        part = long_horizon(parts, maze) or {"rows": {}}
        for name, row in part["rows"].items():
            protocol = row["protocol"]
            rows.append(
                (
                    maze,
                    name,
                    _number(row["score"], 1),
                    f"{row['success_rate']:.0%} of {row['n']}",
                    protocol.get("controller", "–"),
                    f"{protocol['replan_every']} steps",
                    str(protocol["candidates"]),
                )
            )
    note = (
        "\nShooting plans on the true dynamics 96 steps ahead and executes the planned actions; "
        "Diffuser has data only. sparse: the task's reward; distance: minus the straight distance."
    )
    return "\n".join(lines) + _table(header, rows) + "\n" + note


def _stitching(part: Mapping[str, Any]) -> str:
    tolerances = list(part["rows"][0]["turning"]["by_tolerance"])
    at = f"{part['tolerance']:g}"
    others = [tolerance for tolerance in tolerances if tolerance != at]
    header = (
        "receptive field",
        "feasible, turn needed",
        "by training seed",
        "feasible, no turn",
        *(f"turn needed, within {tolerance}" for tolerance in others),
        "median farthest row",
        f"path alone within {at} (added later)",
    )
    ordered = sorted(part["rows"], key=lambda row: row["receptive_field"])
    rows = [
        (
            f"{row['receptive_field']} of {part['horizon']} rows",
            _number(row["turning"], 2),
            " / ".join(f"{share:.2f}" for share in row["turning"]["by_seed"]),
            _number(row["straight"], 2),
            *(f"{row['turning']['by_tolerance'][tolerance]:.2f}" for tolerance in others),
            f"{row['turning']['median_deviation']:.2f}",
            f"{row['turning']['path_within']:.2f}",
        )
        for row in ordered
    ]
    note = (
        f"\n\nFeasible: no row farther than {at} units, the data's own spread, from its place on "
        "the one way that the data's directions and speed leave; fixed before training. "
        f"{part['protocol']['tasks']} tasks, {part['protocol']['plans_per_task']} plans each, "
        f"training seeds {', '.join(map(str, part['protocol']['seeds']))} of "
        f"{part['protocol']['training_steps']} steps; intervals over tasks."
    )
    title = "### (b) Stitching: trained on straight lines only"
    return f"{title}\n\n{_table(header, rows)}{note}"


def _horizons(part: Mapping[str, Any]) -> str:
    distances = sorted({cell["distance"] for cell in part["cells"]})
    shares = {(cell["distance"], cell["rows"]): cell for cell in part["cells"]}
    horizons = sorted({cell["rows"] for cell in part["cells"]})
    header = ("rows", *(f"{distance} cells" for distance in distances))
    rows = [(str(h), *(_number(shares[d, h], 2) for d in distances)) for h in horizons]
    title = f"### (c) One model, trained at {part['trained_rows']} rows, plans of several horizons"
    return f"{title}: share feasible\n\n" + _table(header, rows)


def _rewards(part: Mapping[str, Any]) -> str:
    header = ("reward added", "reward A", "reward B", "passes A and B", "feasible", "both at once")
    keys = ("reward_a", "reward_b", "visits_both", "feasible", "useful")
    rows = [(name, *(_number(row[key], 2) for key in keys)) for name, row in part["rows"].items()]
    title = "### (d) Rewards unseen in training (minus the path's distance from a place), and a sum"
    protocol = part["protocol"]
    note = (
        f"\n\n{protocol['tasks']} tasks, {protocol['plans_per_task']} plans each; guidance "
        f"{guidance_name(protocol['guidance'])}. “Both at once”: feasible, and passes A and B."
    )
    return f"{title}\n\n{_table(header, rows)}{note}"


def _guidance(part: Mapping[str, Any]) -> str:
    ways = [way for way in part["rows"][0] if way not in ("guidance", "any")]
    header = ("guidance", "reward", "feasible", "passes both", "both at once")
    header = (*header, *(f"both at once, {way}" for way in ways))
    rows = []
    for row in part["rows"]:
        name = "none" if row["guidance"] is None else guidance_name(row["guidance"])
        numbers = [row["any"][key] for key in ("reward", "feasible", "visits_both", "useful")]
        numbers += [row[way]["useful"] for way in ways]
        rows.append((name, *(_number(number, 2) for number in numbers)))
    protocol = part["protocol"]
    note = (
        f"\n\nTasks of their own: {protocol['tasks']}, {protocol['plans_per_task']} plans each; "
        "the last columns keep one of these plans a task. Reward: of A and B together."
    )
    title = "### (d) What guidance costs: reward A + B against feasibility"
    return f"{title}\n\n{_table(header, rows)}{note}"


def _number(value: Mapping[str, Any], digits: int) -> str:
    if value["interval"] is None:
        return f"{value['mean']:.{digits}f}"
    low, high = value["interval"]
    return f"{value['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def long_horizon(parts: Parts, maze: str) -> dict[str, Any] | None:
    """Diffuser's and the shooting planners' parts of one maze as one, as far as they are there."""
    found = [
        parts[f"{kind}-{maze}"]
        for kind in ("diffuser", "long-horizon")
        if f"{kind}-{maze}" in parts
    ]
    if not found:
        return None
    hard = found[0]["hard_start"]
    paths = {name: path for part in found for name, path in part["hard_start"]["paths"].items()}
    rows = {name: row for part in found for name, row in part["rows"].items()}
    return {"layout": found[0]["layout"], "rows": rows, "hard_start": {**hard, "paths": paths}}


def stitching(parts: Parts) -> dict[str, Any] | None:
    """All training seeds' parts as one: shares with an interval over tasks, a task's plans of all
    seeds averaged; None if no part is there."""
    found = [parts[name] for name in STITCHING if name in parts]
    if not found:
        return None
    rows = []
    for same in zip(*(part["rows"] for part in found), strict=True):
        row = dict(same[0])
        for kind in ("turning", "straight"):
            row[kind] = _pooled([one[kind] for one in same])
        rows.append(row)
    seeds = [part["protocol"]["training_seed"] for part in found]
    return {**found[0], "rows": rows, "protocol": {**found[0]["protocol"], "seeds": seeds}}


def _pooled(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_task = np.mean([seed["by_task"] for seed in seeds], axis=0)
    mean, low, high = mean_and_interval(by_task.tolist())
    return {
        "mean": mean,
        "interval": [max(low, 0.0), min(high, 1.0)],
        "by_seed": [float(np.mean(seed["by_task"])) for seed in seeds],
        "by_tolerance": {
            at: float(np.mean([seed["by_tolerance"][at] for seed in seeds]))
            for at in seeds[0]["by_tolerance"]
        },
        "median_deviation": float(np.mean([seed["median_deviation"] for seed in seeds])),
        "path_within": float(np.mean([seed["path_within"] for seed in seeds])),
    }


def guidance_name(facts: Mapping[str, Any]) -> str:
    """Settings of a ``GuidanceConfig`` in a few words."""
    parts = [f"{facts['at']} {facts['scale']:g}"]
    parts += ["x variance"] if facts["scale_by_variance"] else []
    parts += [f"{facts['inner_steps']} steps"] if facts["inner_steps"] > 1 else []
    parts += [f"to level {facts['stop_level']}"] if facts["stop_level"] else []
    return ", ".join(parts)
