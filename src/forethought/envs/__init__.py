"""Environments, registered with Gymnasium at import; reference returns are in their kwargs."""

from gymnasium import register

from forethought.envs.four_rooms import STEP_LIMIT as FOUR_ROOMS_STEPS
from forethought.envs.maze import LAYOUTS, REFERENCE_RETURNS, STEP_LIMITS
from forethought.envs.maze_reach import REACH_LIMITS
from forethought.envs.multiroom import STEP_LIMIT as MULTIROOM_STEPS

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

for _layout, _limit in REACH_LIMITS.items():
    register(
        id=f"forethought/reach-{_layout}-v0",
        entry_point="forethought.envs.maze_reach:MazeReachEnv",
        max_episode_steps=_limit,
        kwargs={"layout": _layout, "reference_returns": (0.0, 1.0)},
    )

for _dim in (2, 8, 16):
    register(
        id=f"forethought/linear-{_dim}-v0",
        entry_point="forethought.envs.linear:LinearEnv",
        max_episode_steps=50,
        kwargs={"dim": _dim},
    )

register(
    id="forethought/four-rooms-v0",
    entry_point="forethought.envs.four_rooms:FourRoomsEnv",
    max_episode_steps=FOUR_ROOMS_STEPS,
    kwargs={"reference_returns": None},
)

register(
    id="forethought/multiroom-v0",
    entry_point="forethought.envs.multiroom:MultiRoomEnv",
    max_episode_steps=MULTIROOM_STEPS,
    kwargs={"reference_returns": None},
)

# entry point, step limit (Gymnasium's), returns that score 0 and 100 (D4RL's, where it has them)
_TASKS = {
    "pendulum": ("pendulum:PendulumEnv", 200, None),
    "acrobot": ("acrobot:AcrobotEnv", 500, None),
    "mountain-car": ("mountain_car:MountainCarEnv", 999, None),
    "reacher": ("locomotion:Reacher", 50, None),
    "hopper": ("locomotion:Hopper", 1000, (-20.272305, 3234.3)),
    "walker2d": ("locomotion:Walker2d", 1000, (1.629008, 4592.3)),
    "halfcheetah": ("locomotion:HalfCheetah", 1000, (-280.178953, 12135.0)),
}
for _task, (_entry, _limit, _reference) in _TASKS.items():
    register(
        id=f"forethought/{_task}-v0",
        entry_point=f"forethought.envs.{_entry}",
        max_episode_steps=_limit,
        kwargs={"reference_returns": _reference},
    )
