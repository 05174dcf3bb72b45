"""A logistic distribution cut into levels, for Pyro; `discretised` has the same for NumPyro."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.nn.functional import logsigmoid


class DiscretisedLogistic(TorchDistribution):
    """Integers 0 ... levels - 1: the mass of a logistic between half-integers, the outer levels with its tails.

    p(k) = sigma((k + 1/2 - loc) / scale) - sigma((k - 1/2 - loc) / scale)

    loc: (*batch,), in levels; scale: (*batch,), above 0. Kingma et al. 2016 (arXiv:1606.04934).
    """

    arg_constraints: Any = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, loc: Any, scale: Any, levels: int = 256, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(torch.as_tensor(loc), torch.as_tensor(scale))
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> torch.Tensor:
        """The logistic's centre, within the levels."""
        return self.loc.clamp(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretisedLogistic:
        del _instance
        return DiscretisedLogistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels, False)

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        values = torch.arange(self.levels, dtype=self.loc.dtype).reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        u = torch.rand(torch.Size(sample_shape) + self.batch_shape, dtype=self.loc.dtype, device=self.loc.device)
        u = u.clamp(1e-7, 1 - 1e-7)
        return (self.loc + self.scale * (u.log() - (-u).log1p())).round().clamp(0, self.levels - 1)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)) between the lowest and the highest level."""
        low, high = value <= 0, value >= self.levels - 1
        zero = torch.zeros_like(self.loc)
        below = torch.where(high, zero, logsigmoid((value + 0.5 - self.loc) / self.scale))
        above = torch.where(low, zero, logsigmoid((self.loc - value + 0.5) / self.scale))
        return below + above + torch.where(low | high, zero, (-torch.expm1(-1 / self.scale)).log())
