"""Ask a gamma-model: where will I be, and what is it worth?

The shipped Pendulum model was trained on steps without rewards. It is asked about one swing-up at
three horizons, and values two rewards it has never seen, beside simulations of the same policy. Run
from a checkout.
"""

import torch

from forethought.checkpoint import load_model
from forethought.demo import find_pretrained
from forethought.models.gamma import estimate_value
from forethought.occupancy import sample_occupancy, simulator_of


def upright(states):
    """1 while the tip is near the top: values are discounted steps spent there."""
    return (states[..., 0] > 0.95).float()


def to_the_left(states):
    """How far left of the pivot the tip is."""
    return (-states[..., 1]).clamp(min=0)


def main():
    model = load_model(find_pretrained("gamma/pendulum-td2-all"))
    policy = load_model(find_pretrained("sac/pendulum"))
    simulator = simulator_of("forethought/pendulum-v0")
    state = torch.tensor([[2.5, 1.0]], dtype=torch.float64)  # angle from the top, velocity
    observation = torch.from_numpy(simulator.observe(state.numpy())).float()
    action = policy.explore(observation, torch.Generator().manual_seed(0))
    print("discount  reward              model  simulation")
    for discount in (0.8, 0.95, 0.99):
        noise = torch.Generator().manual_seed(0)
        drawn = model.sample(observation, action, 4_000, noise, discount=discount)
        true = sample_occupancy(
            simulator,
            policy.explore,
            state.numpy(),
            action.double().numpy(),
            discount=discount,
            n_samples=1_000,
            generator=noise,
        )
        for reward in (upright, to_the_left):
            values = [
                estimate_value(states[None], reward, discount=discount, target=discount).item()
                for states in (drawn, true)
            ]
            print(f"{discount:8g}  {reward.__name__:16}  {values[0]:7.2f}  {values[1]:10.2f}")


if __name__ == "__main__":
    main()
