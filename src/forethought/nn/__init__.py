"""Layer 2: plain networks that know nothing of trajectories."""
