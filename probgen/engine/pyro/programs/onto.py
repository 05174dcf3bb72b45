"""Maps from unconstrained numbers onto the values of parameters: bijections, and where there is none Pyro's own map.

A lower Cholesky factor, as Gaussian processes of `pyro.contrib.gp` have, is read off a whole square of numbers: a map onto, without
an inverse of what lies above the diagonal. The measure of a parameter is flat in these numbers, so that no Jacobian is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Transform, biject_to, transform_to


def onto(constraint: Any) -> Any:
    """The bijection onto a constraint's values; else Pyro's map, its log-Jacobian taken as zero."""
    try:
        return biject_to(constraint)
    except NotImplementedError:
        return Flat(transform_to(constraint))


class Flat(Transform):
    """A map whose log-Jacobian is taken as zero."""

    bijective = False

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    @property
    def domain(self) -> Any:
        return self.base.domain

    @property
    def codomain(self) -> Any:
        return self.base.codomain

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x)

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return self.base.inv(y)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(x.shape[: x.dim() - self.domain.event_dim])

    def forward_shape(self, shape: Any) -> Any:
        return self.base.forward_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self.base.inverse_shape(shape)
