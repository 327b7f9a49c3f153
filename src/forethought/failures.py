"""Why an episode in a maze failed, measured on the path that was taken.

An episode fails if it is not at its goal at its last step. Either it had arrived and left again, or
it never arrived; then it stands still (at a wall, which it usually pushes against, or in the open),
or it is still under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.data.episodes import Episode
from forethought.envs.maze import BALL_RADIUS
from forethought.envs.maze_layout import Layout

STILL_STEPS = 100  # of the end, a second
STILL_WITHIN = 0.5  # cells: an episode that ends within this of its last steps stands still
TOUCH = 0.03  # cells between ball and wall that count as contact


def cause_of_failure(episode: Episode, layout: Layout) -> dict[str, Any] | None:
    """Why a maze episode failed; None if it did not, or has no goal to fail to reach.

    cause: "arrived and left", "stuck at a wall", "stands still" or "still under way"
    text: the same with the numbers behind it;  distance: cells from the goal at the end
    """
    successes = episode.successes
    if successes is None or episode.goal is None or (len(successes) and successes[-1]):
        return None
    path, steps = episode.observations[:, :2].astype(np.float64), len(episode)
    distance = float(np.hypot(*(path[-1] - episode.goal[:2])))
    end = f"ends {distance:.1f} cells from the goal"
    if successes.any():
        arrived, left = int(successes.argmax()) + 1, int(np.flatnonzero(successes)[-1]) + 2
        text = f"arrived at step {arrived}, left for good at step {left}; {end}"
        return {"cause": "arrived and left", "text": text, "distance": distance}
    late = path[-STILL_STEPS:]
    if np.hypot(*(late - path[-1]).T).max() > STILL_WITHIN:
        nearest = float(np.hypot(*(path - episode.goal[:2]).T).min())
        text = f"still under way after {steps} steps, never within {nearest:.1f} cells; {end}"
        return {"cause": "still under way", "text": text, "distance": distance}
    moved = np.hypot(*(path - path[-1]).T) > STILL_WITHIN
    since = int(np.flatnonzero(moved).max(initial=-1)) + 1
    touching = touches_wall(late, layout).mean()
    cause = "stuck at a wall" if touching > 0 else "stands still"
    text = f"{cause} from step {since}, in contact for {touching:.0%} of the last second; {end}"
    if not touching:
        text = f"{cause} from step {since}, clear of the walls; {end}"
    return {"cause": cause, "text": text, "distance": distance}


def causes_of_failure(episodes: Sequence[Episode], layout: Layout) -> dict[str, int]:
    """How many of the episodes failed of each cause; {} if none did."""
    found = (cause_of_failure(episode, layout) for episode in episodes)
    return dict(Counter(cause["cause"] for cause in found if cause is not None))


def touches_wall(points: NDArray, layout: Layout) -> NDArray[np.bool_]:
    """Whether a ball with its center at points (n, 2) is in contact with a wall: (n,)."""
    reach = BALL_RADIUS + TOUCH
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rim = points[:, None] + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(~layout.is_free(rim).all(axis=1))


def failed_examples(
    episodes: Sequence[Episode],
    imagined: Sequence[NDArray | None],
    layout: Layout,
    most: int,
) -> list[dict[str, Any]]:
    """The first ``most`` failed episodes: seed, ends, paths every other step, cause.

    imagined: the first plan of every episode, (steps, 2 or more), as far as known
    """
    examples = []
    for episode, plan in zip(episodes, imagined, strict=True):
        cause = cause_of_failure(episode, layout)
        if cause is None or episode.goal is None:
            continue
        examples.append(
            {
                "seed": episode.seed,
                "start": _rounded(episode.observations[0, :2]),
                "goal": _rounded(episode.goal[:2]),
                "executed": _rounded(episode.observations[::2, :2]),
                "imagined": None if plan is None else _rounded(plan[::2, :2]),
                "success": False,
                **cause,
            }
        )
        if len(examples) == most:
            break
    return examples


def _rounded(array: NDArray) -> list:
    return np.round(array.astype(np.float64), 3).tolist()
