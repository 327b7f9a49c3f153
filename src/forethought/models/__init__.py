"""Layer 3: generative models of trajectories. One file per model, found by the registry."""
