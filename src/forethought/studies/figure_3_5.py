"""Figure 3.5: what a model saves: learning curves of gamma-MVE, SAC, PPO, MBPO and MVE.

All agents are the same SAC but for what they do with their model (recipes ``METHOD/TASK``), PPO is
Stable-Baselines3's (``benchmarks/baselines/train_ppo.py``). A run is a part: it trains into
``--runs`` and goes on where it was if it is stopped. Every method counts environment steps from the
first random one, and is evaluated on the same ten starts with its deterministic policy.

The number of the figure is the environment steps to 90 % of the way from a random policy's return
to SAC's final one: the first evaluation that reaches it and is followed by another that does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import forethought.envs  # noqa: F401  (registers the tasks)
from forethought.config import to_json
from forethought.online import CURVE, train_online
from forethought.registry import recipes, studies
from forethought.rollout import evaluate
from forethought.snapshots import RandomPolicy
from forethought.studies.base import Part, Study, StudySettings
from forethought.studies.figure_3_5_show import markdown, plot
from forethought.studies.rows import BASELINES

RANDOM_EPISODES = 100


@dataclass(frozen=True, kw_only=True)
class Task:
    """seeds: of training, 0 to seeds - 1;  minutes: of a SAC run on one core
    often: whether agents with a model make more updates a step, so that SAC is run with as many too
    """

    seeds: int
    minutes: float
    often: bool = False


TASKS = {
    "pendulum": Task(seeds=5, minutes=0.7, often=True),
    "mountain-car": Task(seeds=5, minutes=1.3),
    "acrobot": Task(seeds=3, minutes=1.0, often=True),
    "reacher": Task(seeds=3, minutes=1.2),
}
COST = {"sac": 1.0, "sac-often": 1.0, "gamma-mve": 3.0, "mve": 2.0, "mbpo": 1.5}
"""of a run, in runs of SAC with as many updates"""
RECIPES = {"sac": "sac-small"}
"""where a method's recipe is not named as the method"""


@studies.register("figure-3-5")
def figure_3_5(baselines: Path = BASELINES) -> Study:
    """baselines: folder with PPO's curves"""
    parts, of_ppo = [], []  # PPO's come last: a missing curve must not keep the others waiting
    for task, facts in TASKS.items():
        start = partial(random_return, task=task)
        parts.append(Part(name=f"random-{task}", minutes=0.1, compute=start))
        for seed in range(facts.seeds):
            for method, cost in COST.items():
                if method == "sac-often" and not facts.often:
                    continue
                train = partial(learning_curve, method=method, task=task, run_seed=seed)
                minutes = facts.minutes * cost
                parts.append(Part(name=f"{method}-{task}-{seed}", minutes=minutes, compute=train))
            read = partial(ppo_curve, baselines=baselines, task=task, run_seed=seed)
            of_ppo.append(Part(name=f"ppo-{task}-{seed}", minutes=0.0, compute=read))
    return Study(
        title="Figure 3.5: learning curves of gamma-MVE, SAC, PPO, MBPO and MVE",
        parts=(*parts, *of_ppo),
        plot=plot,
        markdown=markdown,
    )


def random_return(settings: StudySettings, *, task: str) -> dict[str, Any]:
    """Mean return of uniformly random actions: where the way to SAC's return begins."""
    env = f"forethought/{task}-v0"
    episodes = settings.episodes or RANDOM_EPISODES
    space = gymnasium.make(env, disable_env_checker=True).action_space
    assert isinstance(space, gymnasium.spaces.Box), "the tasks have continuous actions"
    policy = RandomPolicy(np.stack([space.low, space.high]))
    result = evaluate(policy, env, episodes, settings.seed)
    returns = [episode["return"] for episode in result.episodes]
    return {"env": env, "episodes": episodes, "return": float(np.mean(returns))}


def learning_curve(
    settings: StudySettings, *, method: str, task: str, run_seed: int
) -> dict[str, Any]:
    """Train the recipe with this seed, or go on with it; its curve and what it cost."""
    experiment = recipes[f"{RECIPES.get(method, method)}/{task}"]()
    experiment = replace(experiment, train=replace(experiment.train, seed=run_seed))
    out = settings.runs / "figure-3-5" / f"{method}-{task}-{run_seed}"
    train_online(experiment, out, resume=True)
    training = json.loads((out / "training.json").read_text(encoding="utf-8"))
    record = _read_curve(out / CURVE)
    facts = {name: training[name] for name in ("steps", "train_seconds", "parameters")}
    settings_of = {"model": to_json(experiment.model), "online": to_json(experiment.online)}
    return {**record, "recipe": experiment.name, "training": facts, "settings": settings_of}


def ppo_curve(
    settings: StudySettings, *, baselines: Path, task: str, run_seed: int
) -> dict[str, Any]:
    """A curve that ``benchmarks/baselines/train_ppo.py`` has written."""
    file = baselines / f"ppo-{task}-seed{run_seed}.json"
    if not file.is_file():
        last = recipes[f"{RECIPES['sac']}/{task}"]()
        assert last.online is not None, "the recipe learns online"
        steps = last.online.random_steps + round(last.train.steps * last.online.steps_per_update)
        raise FileNotFoundError(
            f"{file} is missing; make it with\n  python benchmarks/baselines/train_ppo.py {task} "
            f"{run_seed} --steps {steps} --every {last.online.evaluate_every}\nin the environment "
            "of benchmarks/requirements-sb3.txt"
        )
    return _read_curve(file)


def _read_curve(file: Path) -> dict[str, Any]:
    """Protocol and one row [environment steps, return] an evaluation."""
    data = json.loads(file.read_text(encoding="utf-8"))
    rows = [[row["env_steps"], round(row["return"], 3)] for row in data["rows"]]
    return {"recipe": data["recipe"], "protocol": data["protocol"], "curve": rows}
