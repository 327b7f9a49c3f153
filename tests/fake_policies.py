"""A run of an online agent without the training: untrained actors, a learning curve."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from forethought.agents.sac import SACConfig
from forethought.checkpoint import save_config, save_tensors
from forethought.online import CURVE, SNAPSHOTS
from forethought.registry import recipes
from forethought.types import Spaces

HOPPER = Spaces(observation_dim=11, action_dim=3)
STEPS = (30_000, 40_000, 100_000)


def fake_run(out: Path) -> Path:
    """A run in Hopper with a snapshot after each of ``STEPS``; falls within some steps."""
    experiment = replace(recipes["sac/hopper"](), model=SACConfig(width=8))
    save_config(out, experiment, HOPPER, dataset={"name": "online", "fingerprint": None}, seed=0)
    (out / SNAPSHOTS).mkdir()
    rows = [{"env_steps": 20_000, "return": 1.0}]  # an evaluation without a snapshot
    for seed, step in enumerate(STEPS):
        torch.manual_seed(seed)
        agent = experiment.model.build(HOPPER)
        agent.fit_ranges(torch.tensor([[-1.0] * 3, [1.0] * 3]).numpy(), None)
        name = f"{SNAPSHOTS}/step-{step:010d}.safetensors"
        save_tensors(out / name, agent.actor_state(), {})
        rows.append({"env_steps": step, "updates": step // 2, "return": 2.0, "snapshot": name})
    (out / CURVE).write_text(json.dumps({"protocol": {"episodes": 1}, "rows": rows}))
    return out
