"""One plan, executed once, with all that led to it: the content of plan.json.

For every denoising step the file holds what the sampler had (the noisy tau^i of Algorithm 5) and
what the model made of it (its estimate of tau^0), for every candidate; then each candidate's
value, the chosen plan, the path it imagines at every environment step, the path the simulator
took, and where the two part: by the clock where the controller follows it (``by_clock``), else by
the distance from the planned path. `forethought.viewer` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forethought.controllers import PursuePath
from forethought.data.splines import interpolate
from forethought.envs.maze import MazeEnv
from forethought.evaluation import rounded
from forethought.figures import parting_step
from forethought.policy import PlanningPolicy
from forethought.types import Plan, Trajectory

MAX_CANDIDATES = 32
MAX_FRAMES = 33  # denoising steps kept; more are thinned out evenly


def execute_plan(
    env: gymnasium.Env, policy: PlanningPolicy, options: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """One maze episode between ``options``' start and goal: everything plan.json holds but the
    recipe. ``env`` must be a `MazeEnv`; positions are (row, col) in its frame."""
    observation, _ = env.reset(seed=seed, options=dict(options))
    maze = env.unwrapped
    assert isinstance(maze, MazeEnv), "checked by the caller"
    recorder = _Recorder()
    policy.reset(1, [seed])
    policy.planner.on_step = recorder
    goal = torch.from_numpy(maze.goal_observation)[None]
    executed, done, success = [observation[:2]], False, False
    while not done:
        action = policy(torch.from_numpy(observation)[None], goal)[0].numpy()
        policy.planner.on_step = None  # the first plan only
        observation, _, terminated, truncated, info = env.step(np.clip(action, -1, 1))
        executed.append(observation[:2])
        done, success = terminated or truncated, info["success"]
    plan = policy.first_plans[0]
    assert plan is not None, "an episode has at least one step"
    arrival = int(plan.stats["arrival"][0])
    # the simulator runs for the whole episode; as long again as the plan takes is worth showing
    path = np.asarray(executed[: 2 * arrival])
    imagined = interpolate(plan.trajectory)[0, : len(path), :2].numpy()
    by_clock = not isinstance(policy.controller, PursuePath)
    return {
        "kind": "plan",
        "layout": "\n".join(maze.layout.rows),
        "start": rounded(options["start"]),
        "goal": rounded(options["goal"]),
        "arrival": arrival,
        "seconds": plan.stats["seconds"],
        "times": plan.trajectory.times.tolist(),
        "observations": rounded(plan.trajectory.observations[0]),
        **candidates_and_denoising(plan, recorder.steps),
        "imagined": rounded(imagined),
        "executed": rounded(path),
        "by_clock": by_clock,
        "parting": parting_step(path, imagined, by_clock=by_clock),
        "success": bool(success),
    }


class _Recorder:
    """Keeps the positions that a sampler goes through: (level, samples, estimates), each
    (candidates, horizon, 2); samples are None where the sampler does not show them."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, NDArray | None, NDArray]] = []

    def __call__(
        self, level: int, estimate: Trajectory, sample: Trajectory | None = None, /
    ) -> None:
        samples = None if sample is None else _positions(sample.observations)
        self.steps.append((level, samples, _positions(estimate.observations)))


def candidates_and_denoising(
    plan: Plan, steps: list[tuple[int, NDArray | None, NDArray]]
) -> dict[str, Any]:
    """Candidates by falling value (at most 32), the chosen one, and their way from the noise.

    plan: of one environment;  steps: what the sampler went through, as `_Recorder` keeps it
    A denoising step holds the noisy samples at its level and the estimates that led there; the
    first has no estimates, the last is the finished candidates at level -1.
    """
    drawn = plan.trajectory if plan.candidates is None else plan.candidates[0]
    final = _positions(drawn.observations)
    values = _values(plan, len(final))
    # stable, so that equals stay in the order they were drawn in; the rest of them is not kept
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    chosen = np.abs(final - _positions(plan.trajectory.observations)).sum(axis=(1, 2)).argmin()
    if chosen not in order:
        order[-1] = chosen
    candidates = [
        {"drawn": int(index), "value": round(float(value), 3) if math.isfinite(value) else None}
        for index, value in zip(order, values[order], strict=True)
    ]
    frames = _frames(steps, final)
    shown = np.unique(np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(int))
    frames = [frames[index] for index in shown]
    return {
        "chosen": order.tolist().index(chosen),
        "candidates": candidates,
        "denoising": [
            {"level": frame["level"]}
            | {name: rounded(frame[name][order]) for name in frame if name != "level"}
            for frame in frames
        ],
        "strip": [
            {
                "level": frame["level"],
                "positions": rounded(frame.get("samples", frame.get("estimates"))[chosen]),
            }
            for frame in frames
        ],
    }


def _frames(
    steps: list[tuple[int, NDArray | None, NDArray]], final: NDArray
) -> list[dict[str, Any]]:
    """What is known at each slider position; samplers that draw in several rounds show the last."""
    steps = [step for step in steps if step[2].shape == final.shape]
    frames: list[dict[str, Any]] = []
    for index, (level, samples, _) in enumerate(steps):
        if samples is not None and samples.shape == final.shape:
            before = {"estimates": steps[index - 1][2]} if index else {}
            frames.append({"level": level, "samples": samples, **before})
        elif index:
            frames.append({"level": level, "estimates": steps[index - 1][2]})
    last = {"estimates": steps[-1][2]} if steps else {}
    return [*frames, {"level": -1, "samples": final, **last}]


def _values(plan: Plan, count: int) -> NDArray:
    """(candidates,) values; NaN where the planner tells none."""
    values = plan.stats.get("values")
    if isinstance(values, Tensor) and values.shape == (1, count):
        return values[0].numpy().astype(np.float64)
    if plan.value is not None and count == 1:
        return plan.value.numpy().astype(np.float64)
    return np.full(count, np.nan)


def _positions(observations: Tensor) -> NDArray:
    return observations[..., :2].numpy()
