"""Add a guide: a function of a trajectory in environment units, higher is better. Nothing to
register.

Any differentiable function bends the plan while it is sampled. This one asks a maze plan to keep to
low speed, and is combined with a keep-out disc. Run from a checkout, it uses the shipped U-Maze
model.
"""

from dataclasses import replace

import torch

from forethought.checkpoint import load_model
from forethought.demo import find_pretrained
from forethought.guides import weighted_sum
from forethought.guides.obstacles import avoid
from forethought.models.base import GuidanceConfig, SamplerConfig
from forethought.planners.diffusion import DiffusionPlanner, DiffusionPlannerConfig


def drive_slowly(trajectory, level):
    """Minus the mean squared speed; observations are (row, col, v_row, v_col)."""
    return -trajectory.observations[..., 2:].square().sum(dim=-1).mean(dim=-1)


def main():
    model = load_model(find_pretrained("diffuser/maze-umaze"))
    observation = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    goal = torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    guidance = GuidanceConfig(at="clean", scale=0.02, scale_by_variance=False)
    config = DiffusionPlannerConfig(
        length=180, sampler=SamplerConfig(kind="ddim", steps=8, guidance=guidance)
    )
    disc = avoid(center=(2.0, 3.0), radius=0.2)
    for name, guide in {
        "no guide": None,
        "slow, and around the disc": weighted_sum((1.0, drive_slowly), (5.0, disc)),
    }.items():
        planner = DiffusionPlanner(model, replace(config), guide=guide)
        plan = planner.plan(observation, goal=goal, generator=torch.Generator().manual_seed(0))
        speed = plan.trajectory.observations[..., 2:].norm(dim=-1).mean()
        print(f"{name}: mean planned speed {speed:.2f} units/s")


if __name__ == "__main__":
    main()
