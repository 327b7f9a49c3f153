r"""Maze2D and Multi2D: a force-driven ball in a maze, with D4RL's exact protocol, in MuJoCo.

The ball (radius 0.1, mass 4.189) is pushed by two motors of gear 100 against a joint damping of 1.
With time step dt = 0.01 and implicit damping,

    v' = clip(v, -5, 5);   v' += dt * (100 a - v') / (mass + dt);   x' = x + dt v'

away from walls, per axis: one full action from rest gives 0.2382 units/s, and the largest velocity
that is ever seen is 5.226. Rewards are 1 for each step that ends within 0.5 of the goal, and no
episode terminates: a score counts the steps spent at the goal.

Frame. Positions are (row, col) in cells, but shifted: walls are unit boxes at index + 1 of the
world, the ball's home is at 1.2, so that the center of cell (r, c) is at (r - 0.2, c - 0.2). D4RL
puts starts and goals at the integers, 0.2 off center, and so do we.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), the mazes'
layouts, starts, goals, rewards and step limits; the thesis's Maze2D and Multi2D tasks. Departures:
no ground plane (it only touches the ball from below), and no warm start of the contact solver, so
that a step is a function of the state and the action to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, isfinite
from typing import Any, Literal

import gymnasium
import numpy as np
from mujoco import MjData, MjModel, mj_step  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import ArrayLike, NDArray

from forethought.envs.maze_layout import HOME, LAYOUTS, Layout, describe_point
from forethought.registry import did_you_mean

TIME_STEP = 0.01  # seconds an environment step
MAX_ACTION = 1.0
MAX_VELOCITY = 5.0  # units/s per axis, clipped before each step
GEAR = 100.0
DAMPING = 1.0
BALL_RADIUS = 0.1
BALL_MASS = 1000.0 * 4.0 / 3.0 * np.pi * BALL_RADIUS**3
VELOCITY_PER_ACTION = (
    TIME_STEP * GEAR / (BALL_MASS + TIME_STEP * DAMPING)
)  # 0.2382, of one full action
SPEED_LIMIT = (
    MAX_VELOCITY * BALL_MASS / (BALL_MASS + TIME_STEP * DAMPING) + VELOCITY_PER_ACTION
)  # 5.226
GOAL_RADIUS = 0.5
POSITION_NOISE = 0.1  # half width, of starts and of random goals
VELOCITY_NOISE = 0.1  # standard deviation, of starts

STEP_LIMITS = {"umaze": 300, "medium": 600, "large": 800}
# D4RL's returns of a random and of an expert policy; Multi2D is scored with the same pair.
REFERENCE_RETURNS = {"umaze": (23.85, 161.86), "medium": (13.13, 277.39), "large": (6.7, 273.99)}


class MazeEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The ball in a maze; observations (row, col, v_row, v_col), actions (2,) in [-1, 1].

    layout: a name of LAYOUTS, or a layout string (see `Layout`).
    goal: "fixed", the layout's evaluation target (Maze2D), or "random", any free cell plus
        U(-0.1, 0.1) per axis at each reset (Multi2D).
    reference_returns: the returns that score 0 and 100; kept as an attribute.

    Episodes have no end of their own: `gymnasium.make` of a registered id adds D4RL's step limit.
    Any other maze: `gymnasium.make(id, layout=text, reference_returns=None, max_episode_steps=n)`.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        layout: str,
        *,
        goal: Literal["fixed", "random"] = "fixed",
        reference_returns: tuple[float, float] | None = None,
    ) -> None:
        if goal not in ("fixed", "random"):
            raise ValueError(f"goal is {goal!r}; use 'fixed' (Maze2D) or 'random' (Multi2D)")
        self.layout = _find_layout(layout)
        self.goal_rule = goal
        self.reference_returns = reference_returns
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-MAX_ACTION, MAX_ACTION, (2,), np.float32)
        self._model = MjModel.from_xml_string(_describe_model(self.layout))
        self._data = MjData(self._model)
        # Views of the simulator's memory, kept because each attribute of MjData makes a new one.
        self._qpos, self._qvel, self._ctrl = self._data.qpos, self._data.qvel, self._data.ctrl
        self._free = np.array(self.layout.free_cells(), dtype=np.float64)
        self._set_goal(self.layout.target)

    @property
    def goal(self) -> NDArray[np.float64]:
        """The goal's position (row, col): a copy, (2,)."""
        return np.array(self._goal)

    @property
    def goal_observation(self) -> NDArray[np.float32]:
        """The goal as an observation at rest: (row, col, 0, 0)."""
        return np.array([*self._goal, 0.0, 0.0], dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a start and a goal by D4RL's rules, or take them from the options.

        options: "start", an exact (row, col) at rest or (row, col, v_row, v_col); "goal", an exact
            (row, col). They hold for this episode only.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"start", "goal"})
        if unknown:
            raise ValueError(f"unknown reset options {unknown}; known are 'start' and 'goal'")
        start, goal = options.get("start"), options.get("goal")
        if start is None:
            velocity = self.np_random.normal(0.0, VELOCITY_NOISE, 2)
            state = np.concatenate([self._draw_position(), velocity])
        else:
            state = self._check_point("start", start, sizes=(2, 4))
            state = np.concatenate([state, np.zeros(4 - state.size)])
        if goal is not None:
            self._set_goal(self._check_point("goal", goal, sizes=(2,)))
        else:
            self._set_goal(
                self._draw_position() if self.goal_rule == "random" else self.layout.target
            )
        self.set_state(state)
        distance = np.linalg.norm(state[:2] - self.goal)
        return state.astype(np.float32), {"success": bool(distance <= GOAL_RADIUS)}

    def step(
        self, action: NDArray[np.float32] | Sequence[float]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the ball for one time step; the reward is for the state reached.

        Plain floats throughout: NumPy on arrays of two numbers would cost more than the simulator.
        """
        push_row, push_col = np.asarray(action).tolist()
        if not (isfinite(push_row) and isfinite(push_col)):
            raise ValueError(f"action {describe_point(action)} is not finite")
        self._ctrl[0], self._ctrl[1] = push_row, push_col  # MuJoCo clips these to its ctrlrange
        v_row, v_col = self._qvel.tolist()
        if not (-MAX_VELOCITY <= v_row <= MAX_VELOCITY and -MAX_VELOCITY <= v_col <= MAX_VELOCITY):
            self._qvel[0] = min(max(v_row, -MAX_VELOCITY), MAX_VELOCITY)
            self._qvel[1] = min(max(v_col, -MAX_VELOCITY), MAX_VELOCITY)
        mj_step(self._model, self._data)
        observation = np.empty(4, np.float32)
        observation[0], observation[1] = row, col = self._qpos.tolist()
        observation[2], observation[3] = self._qvel.tolist()
        goal_row, goal_col = self._goal
        success = hypot(row - goal_row, col - goal_col) <= GOAL_RADIUS
        return observation, float(success), False, False, {"success": success}

    def get_state(self) -> NDArray[np.float64]:
        """The full state (row, col, v_row, v_col): (4,), in double precision."""
        return np.concatenate([self._qpos, self._qvel])

    def set_state(self, state: ArrayLike) -> None:
        """Move the ball to a state (row, col, v_row, v_col); the goal stays."""
        state = np.asarray(state, dtype=np.float64)
        if state.shape != (4,):
            raise ValueError(
                f"state has shape {state.shape}; expected row, col, v_row, v_col: (4,)"
            )
        self._qpos[:], self._qvel[:] = state[:2], state[2:]

    def _set_goal(self, goal: Sequence[float] | NDArray) -> None:
        self._goal = (float(goal[0]), float(goal[1]))

    def _draw_position(self) -> NDArray[np.float64]:
        cell = self._free[self.np_random.integers(len(self._free))]
        return cell + self.np_random.uniform(-POSITION_NOISE, POSITION_NOISE, 2)

    def _check_point(
        self, name: str, value: ArrayLike, sizes: tuple[int, ...]
    ) -> NDArray[np.float64]:
        point = np.asarray(value, dtype=np.float64)
        if point.ndim != 1 or point.size not in sizes or not np.all(np.isfinite(point)):
            raise ValueError(f"{name} is {value!r}; expected {sizes} finite numbers, row first")
        self.layout.cell_of(point[:2], name)  # refuses walls and the outside
        return point


def _find_layout(layout: str) -> Layout:
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    if "#" in layout:
        return Layout.parse(layout)
    hint = did_you_mean(layout, list(LAYOUTS), kind="layout")
    raise ValueError(f"{hint} A layout string of '#', 'O' and 'G' works too.")


def _describe_model(layout: Layout) -> str:
    """D4RL's simulation as MJCF: the ball on two sliders, one unit box for each wall."""
    boxes = "\n".join(
        f'<geom type="box" pos="{row + 1} {col + 1} 0" size=".5 .5 .2"/>'
        for row, col in np.argwhere(layout.walls)
    )
    return f"""
<mujoco>
  <option timestep="{TIME_STEP}" gravity="0 0 0" iterations="20" integrator="Euler">
    <flag warmstart="disable"/>
  </option>
  <default>
    <joint type="slide" damping="{DAMPING}"/>
    <geom friction=".5 .1 .1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
    <motor gear="{GEAR}" ctrllimited="true" ctrlrange="{-MAX_ACTION} {MAX_ACTION}"/>
  </default>
  <worldbody>
    {boxes}
    <body pos="{HOME} {HOME} 0">
      <geom type="sphere" size="{BALL_RADIUS}" contype="1"/>
      <joint name="row" axis="1 0 0"/>
      <joint name="col" axis="0 1 0"/>
    </body>
  </worldbody>
  <actuator><motor joint="row"/><motor joint="col"/></actuator>
</mujoco>"""
