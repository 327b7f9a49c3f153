"""The batched maze dynamics against MuJoCo, step by step and over whole paths."""

import numpy as np
import pytest
import torch

from forethought.envs.maze import MazeEnv
from forethought.envs.maze_dynamics import MazeDynamics
from forethought.envs.maze_layout import LAYOUTS


def compare(layout: str, n_paths: int, n_steps: int, hold: int, seed: int):
    """Random pushes, each held for a while: largest difference of the state after one step from
    MuJoCo's state, (paths, steps), and of the position along the whole path, (paths, steps)."""
    envs, dynamics = [MazeEnv(layout) for _ in range(n_paths)], MazeDynamics(layout)
    generator = np.random.default_rng(seed)
    for index, env in enumerate(envs):
        env.reset(seed=index)
    truth = running = torch.tensor(np.stack([env.get_state() for env in envs]))
    one_step, path = np.zeros((2, n_paths, n_steps))
    for step in range(n_steps):
        if step % hold == 0:
            action = torch.tensor(generator.uniform(-1, 1, (n_paths, 2)))
        both = dynamics.step(torch.cat([truth, running]), torch.cat([action, action]))
        single, running = both.chunk(2)
        for env, push in zip(envs, action.numpy(), strict=True):
            env.step(push)
        truth = torch.tensor(np.stack([env.get_state() for env in envs]))
        one_step[:, step] = (single - truth).abs().amax(dim=1)
        path[:, step] = (running - truth)[:, :2].abs().amax(dim=1)
    return one_step, path


def test_free_space_is_mujocos_to_rounding():
    """In a cell's middle, speeds up to the limit and beyond, pushes beyond the bounds."""
    env, dynamics = MazeEnv("large"), MazeDynamics("large")
    generator = np.random.default_rng(0)
    for _ in range(200):
        cell = np.array(env.layout.free_cells()[generator.integers(30)]) - 0.2
        state = np.concatenate([cell + generator.uniform(-0.3, 0.3, 2), generator.normal(0, 4, 2)])
        action = generator.uniform(-1.5, 1.5, 2)
        env.set_state(state)
        env.step(action)
        found = dynamics.step(torch.tensor(state[None]), torch.tensor(action[None]))[0]
        np.testing.assert_allclose(found.numpy(), env.get_state(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_contacts_are_mujocos_but_at_seams_of_boxes(layout):
    """3,000 random steps: all but a few in a thousand agree to 1e-6; where they do not, the
    position after the step is still within 0.05; half of the paths agree throughout."""
    one_step, path = compare(layout, n_paths=15, n_steps=200, hold=10, seed=0)
    assert (one_step > 1e-6).mean() < 0.004
    assert one_step.max() * 0.01 < 0.05, "a step's position differs by dt times its velocity"
    assert np.median(path[:, -1]) < 1e-6


def test_no_ball_leaves_its_corridor():
    """Held pushes for 300 steps, single precision as in planning: centers stay in free cells."""
    dynamics = MazeDynamics("large")
    generator = torch.Generator().manual_seed(0)
    cells = torch.tensor(dynamics.layout.free_cells(), dtype=torch.float32)
    state = torch.cat([cells, torch.zeros(len(cells), 2)], dim=1).repeat(4, 1)
    for step in range(300):
        if step % 20 == 0:
            action = 2 * torch.rand(len(state), 2, generator=generator) - 1
        state = dynamics.step(state, action)
    assert dynamics.layout.is_free(state[:, :2].numpy()).all()
    assert float(state[:, 2:].abs().max()) <= 5.2264


def test_a_ball_does_not_depend_on_its_neighbors():
    dynamics = MazeDynamics("umaze")
    generator = torch.Generator().manual_seed(0)
    state = torch.cat([1 + 2 * torch.rand(37, 2, generator=generator), torch.zeros(37, 2)], dim=1)
    action = 2 * torch.rand(37, 2, generator=generator) - 1
    together = dynamics.step(state, action)
    alone = torch.cat([dynamics.step(state[i : i + 1], action[i : i + 1]) for i in range(37)])
    assert torch.equal(together, alone)


def test_unknown_layout_names_the_known():
    with pytest.raises(ValueError, match="medium"):
        MazeDynamics("medum")
