"""Add an environment: a gymnasium.Env and one gymnasium.register call, nothing of ours.

``reference_returns`` in the registration's kwargs make scores normalized; a ``goal_observation``
property tells goal-conditioned policies where to go.
"""

import gymnasium
import numpy as np
import torch

from forethought.rollout import evaluate


class Runway(gymnasium.Env):
    """A cart on a line: observation (position, velocity), action = acceleration."""

    def __init__(self, reference_returns=None):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def goal_observation(self):
        return np.array([1.0, 0.0], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.1, 0.1, 2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action):
        position, velocity = self.state
        velocity += 0.1 * float(action[0])
        self.state = np.array([position + 0.1 * velocity, velocity], dtype=np.float32)
        success = abs(self.state[0] - 1.0) < 0.1
        return self.state.copy(), float(success), False, False, {"success": success}


gymnasium.register(
    "example/runway-v0", Runway, max_episode_steps=100, kwargs={"reference_returns": (0.0, 60.0)}
)


class Spring:
    """Any object with these two methods is a policy."""

    def reset(self, n_envs, seeds=None):
        return None

    def __call__(self, observation, goal=None, rows=None):
        return ((goal - observation) @ torch.tensor([[1.0], [2.0]])).clamp(-1, 1)


if __name__ == "__main__":
    result = evaluate(Spring(), "example/runway-v0", 10, seed=0)
    print(f"score {result.score['mean']:.1f}, success {result.success_rate:.0%}")
