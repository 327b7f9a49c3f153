"""Layer 4: guides, functions (trajectory in environment units, noise level) -> (batch,), higher is
better.

A guide is any such function; write yours in metres and seconds. ``weighted_sum`` adds several up
(thesis Section 5.3: the logarithms of perturbations h add).
"""

from __future__ import annotations

from torch import Tensor

from forethought.types import Guide, Trajectory


def weighted_sum(*terms: tuple[float, Guide]) -> Guide:
    """One guide of pairs: ``weighted_sum((1.0, reach(goal)), (0.5, avoid(disc, 0.3)))``."""
    if not terms:
        raise ValueError("weighted_sum needs at least one (weight, guide) pair")

    def guide(trajectory: Trajectory, level: Tensor) -> Tensor:
        values = [weight * term(trajectory, level) for weight, term in terms]
        return sum(values[1:], start=values[0])

    return guide
