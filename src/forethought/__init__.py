"""Generative models of trajectories, and planning with them."""

__version__ = "0.1.0"
