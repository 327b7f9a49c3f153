"""Layer 3: learners that act without planning; registered as models, found by the registry."""
