"""Environments, registered with Gymnasium at import; reference returns are in their kwargs."""

from gymnasium import register

from forethought.envs.maze import LAYOUTS, REFERENCE_RETURNS, STEP_LIMITS

for _task, _goal in (("maze2d", "fixed"), ("multi2d", "random")):
    for _layout in LAYOUTS:
        register(
            id=f"forethought/{_task}-{_layout}-v0",
            entry_point="forethought.envs.maze:MazeEnv",
            max_episode_steps=STEP_LIMITS[_layout],
            kwargs={
                "layout": _layout,
                "goal": _goal,
                "reference_returns": REFERENCE_RETURNS[_layout],
            },
        )
