"""Layer 4: planners ask a model for a small capability and return a Plan."""
