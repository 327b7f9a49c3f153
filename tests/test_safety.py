"""Laws of the safety filter on the double integrator that it assumes."""

import pytest
import torch

from forethought.config import PursuitConfig
from forethought.controllers import PursuePath
from forethought.guides.terms import Term, keep_out, keep_out_box, reward, speed_limit
from forethought.safety import SafeController, SafetyFilter

SYSTEM = PursuitConfig(
    position=(0, 1), velocity=(2, 3), distance=1.2, speed=5.5, acceleration=0.238, step_seconds=0.01
)
DISC = keep_out((0.0, 0.0), 0.3)
BOX = keep_out_box((1.0, -0.5), (1.6, 0.5))


def push(observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """One step of the double integrator; (n, 4), (n, 2)."""
    velocity = observation[:, 2:] + SYSTEM.acceleration * action.clamp(-1, 1)
    return torch.cat([observation[:, :2] + SYSTEM.step_seconds * velocity, velocity], dim=1)


def depth_in(term: Term, observation: torch.Tensor) -> torch.Tensor:
    assert term.depth is not None, "regions have a depth"
    return term.depth(observation)


def depths(observation: torch.Tensor) -> torch.Tensor:
    return torch.maximum(depth_in(DISC, observation), depth_in(BOX, observation))


@pytest.mark.parametrize("command", ["random", "straight in", "bang-bang"])
def test_double_integrator_never_enters(command):
    generator = torch.Generator().manual_seed(0)
    safety = SafetyFilter(SYSTEM, [DISC, BOX], margin=0.0)
    observation = torch.zeros(16, 4)
    observation[:, :2] = 2 * torch.rand(16, 2, generator=generator) - 1
    observation = observation[depths(observation) < -0.01]
    for step in range(150):
        if command == "straight in":
            action = -observation[:, :2].sign()
        elif command == "random":
            action = 4 * torch.rand(len(observation), 2, generator=generator) - 2
        elif step % 30 == 0:
            action = torch.randint(-1, 2, (len(observation), 2), generator=generator).float()
        observation = push(observation, safety(observation, action))
        assert float(depths(observation).max()) <= 1e-5
    assert safety.unsafe == 0 and safety.changed > 0


def test_without_the_filter_the_same_commands_enter():
    observation = torch.tensor([[0.9, 0.0, 0.0, 0.0]])
    deepest = -1.0
    for _ in range(60):
        observation = push(observation, -observation[:, :2].sign())
        deepest = max(deepest, float(depths(observation)))
    assert deepest > 0.1


def test_actions_far_away_are_unchanged():
    safety = SafetyFilter(SYSTEM, [DISC, BOX])
    observation = torch.tensor([[4.0, 4.0, -5.0, -5.0], [-2.0, 0.0, -5.0, 3.0]])
    action = torch.tensor([[-3.0, 0.123], [0.7, -1.0]])
    torch.testing.assert_close(safety(observation, action), action, rtol=0, atol=0)
    assert safety.changed == 0


def test_a_system_that_begins_inside_comes_out_and_stays_out():
    safety = SafetyFilter(SYSTEM, [DISC])
    observation = torch.tensor([[0.2, 0.0, 0.0, 0.0]])
    inside = []
    for _ in range(200):
        observation = push(observation, safety(observation, torch.zeros(1, 2)))
        inside.append(float(depth_in(DISC, observation)))
    assert inside[-1] <= 0 and sorted(inside, reverse=True)[0] <= inside[0] + 1e-6


def test_speed_is_kept_below_a_limit():
    term = speed_limit(2.0, time_step=0.01)
    observation, fastest = torch.zeros(1, 4), 0.0
    safety = SafetyFilter(SYSTEM, [term])
    for _ in range(60):
        observation = push(observation, safety(observation, torch.tensor([[1.0, 0.6]])))
        fastest = max(fastest, float(observation[:, 2:].norm()))
    assert 1.8 < fastest <= 2.0


def test_pursuit_straight_through_a_disc_stays_out():
    controller = SafeController(PursuePath(SYSTEM), SafetyFilter(SYSTEM, [DISC]))
    observation, goal = torch.tensor([[-2.0, 0.05, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    for _ in range(200):
        observation = push(observation, controller(goal, observation))
        assert float(depth_in(DISC, observation)) <= 0
    assert float(observation[:, 2:].norm()) < 0.5  # it waits; finding a way is the planner's part


def test_what_cannot_be_filtered_is_refused():
    with pytest.raises(ValueError, match="forbids single observations"):
        SafetyFilter(SYSTEM, [reward(lambda observations: observations.sum(dim=(1, 2)))])
    with pytest.raises(ValueError, match="identify_pursuit"):
        SafetyFilter(PursuitConfig(), [DISC])
