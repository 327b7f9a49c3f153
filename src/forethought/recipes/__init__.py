"""Layer 8: functions that return a complete Experiment, found by the registry."""
