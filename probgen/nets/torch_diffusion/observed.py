"""Rows as a denoiser sees them, and the distribution of a row about what it believes: the twin of `nets.diffusion.observed`.

Reals are measured from their centre in units of their spread. Whole numbers 0 ... K - 1 lie from -1 to 1, and what is left of the
noise gives each of them the mass between half-integers.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from probgen.distributions.pyro_discretised import DiscretisedNormal


def measured(x: Tensor, whole: int = 0, centre: Any = 0.0, spread: Any = 1.0) -> Tensor:
    """Rows as a denoiser sees them: (row, *event); whole: how many levels a coordinate has, 0 for reals."""
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return 2 * x / (whole - 1) - 1 if whole else (x - centre) / spread


def observed(
    mean: Tensor, scale: Tensor, whole: int = 0, centre: Any = 0.0, spread: Any = 1.0
) -> dist.TorchDistribution:
    """The distribution of rows whose measured coordinates are normal: mean (row, *event), scale ()."""
    events = mean.dim() - 1
    if whole:
        half = (whole - 1) / 2
        return DiscretisedNormal(half * (1 + mean), half * scale, whole).to_event(events)
    return dist.Normal(centre + spread * mean, torch.as_tensor(spread) * scale).to_event(events)
