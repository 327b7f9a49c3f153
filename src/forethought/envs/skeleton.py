"""Bodies of Gymnasium's planar MuJoCo tasks as sticks, for pictures without a renderer.

Hopper, Walker2d and HalfCheetah observe all positions but the first, how far they have come, and
all velocities. The first position is the integral of its velocity; MuJoCo's kinematics place the
limbs. Every capsule becomes the line between its two ends, seen from the side.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from numpy.typing import NDArray

Array = NDArray[np.float64]

CAPSULE = 3  # mjGEOM_CAPSULE


class Skeleton:
    """The sticks of a registered task; ``names`` are those of the model file, the torso's first."""

    def __init__(self, env_id: str) -> None:
        env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
        if not isinstance(env, MujocoEnv) or env.model.nq != env.model.nv:
            raise ValueError(
                f"{env_id} has no planar body to draw; use one of Gymnasium's MuJoCo tasks whose "
                "positions are a place, a height and angles, such as forethought/hopper-v0"
            )
        self._env = env
        self._geoms = np.flatnonzero(env.model.geom_type == CAPSULE)
        self.names = tuple(env.model.geom(int(geom)).name for geom in self._geoms)
        self.step_seconds = float(env.dt)

    def positions(self, observations: Array) -> Array:
        """(T, n) all positions in m and rad, for observations (T, 2 n - 1) of successive steps; the
        way begins at 0."""
        n = self._env.model.nq
        if observations.ndim != 2 or observations.shape[1] != 2 * n - 1:
            raise ValueError(
                f"observations have shape {observations.shape}; this body's are (T, {2 * n - 1})"
            )
        speed = observations[:, n - 1].astype(np.float64)
        way = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        return np.column_stack([way * self.step_seconds, observations[:, : n - 1]])

    def sticks(self, positions: Array) -> Array:
        """(T, sticks, 2, 2): both ends (way, height) in m of every stick."""
        found, env = [], self._env
        still = np.zeros(env.model.nv)
        for row in positions:
            env.set_state(row, still)
            center = env.data.geom_xpos[self._geoms]
            axis = env.data.geom_xmat[self._geoms].reshape(-1, 3, 3)[:, :, 2]
            half = axis * env.model.geom_size[self._geoms, 1:2]
            found.append(np.stack([center - half, center + half], axis=1)[:, :, [0, 2]])
        return np.stack(found)
