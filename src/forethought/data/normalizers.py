"""Affine normalizers, held by a model as buffers so that a checkpoint alone can plan.

z = (x - shift) / scale per feature. "limits" maps the data's minimum and maximum to -1 and 1,
"gaussian" its mean and standard deviation to 0 and 1. A feature that never varies gets scale 1.
Decoding never clips.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

NormalizerKind = Literal["limits", "gaussian"]


class Normalizer(nn.Module):
    """Per-feature affine map between environment units and model units.

    dim: number of features
    kind: "limits" or "gaussian"
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, kind: NormalizerKind) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, values: np.ndarray) -> None:
        """Set the statistics from rows (n, dim) in environment units."""
        if self.kind == "limits":
            low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
            shift, scale = (high + low) / 2, (high - low) / 2
        else:
            shift, scale = (
                values.mean(axis=0, dtype=np.float64),
                values.std(axis=0, dtype=np.float64),
            )
        scale = np.where(scale > 1e-8 * (1 + np.abs(shift)), scale, 1.0)
        self.shift.copy_(torch.as_tensor(shift))
        self.scale.copy_(torch.as_tensor(scale))

    def normalize(self, values: Tensor) -> Tensor:
        """Environment units to model units, (..., dim)."""
        return (values - self.shift) / self.scale

    def denormalize(self, z_values: Tensor) -> Tensor:
        """Model units to environment units, (..., dim)."""
        return z_values * self.scale + self.shift
