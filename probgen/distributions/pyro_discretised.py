"""A logistic and a normal distribution cut into levels, for Pyro; NumPyro has the same in files of their own."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.nn.functional import logsigmoid
from torch.special import log_ndtr


class Discretised(TorchDistribution):
    """Integers 0 ... levels - 1: the mass of loc + scale e between half-integers, the outer levels with its tails.

    loc: (*batch,), in levels; scale: (*batch,), above 0. A kind says how e is drawn, `noise`, and its `log_prob`.
    """

    arg_constraints: Any = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, loc: Any, scale: Any, levels: int = 256, validate_args: bool | None = None) -> None:
        if levels < 2:
            raise ValueError(f"levels is {levels}; expected 2 or more.")
        self.loc, self.scale = torch.broadcast_tensors(torch.as_tensor(loc), torch.as_tensor(scale))
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> torch.Tensor:
        """The centre, within the levels."""
        return self.loc.clamp(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Discretised:
        del _instance
        return type(self)(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels, False)

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        values = torch.arange(self.levels, dtype=self.loc.dtype).reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        noise = self.noise(torch.empty(shape, dtype=self.loc.dtype, device=self.loc.device))
        return (self.loc + self.scale * noise).round().clamp(0, self.levels - 1)

    @staticmethod
    def noise(like: torch.Tensor) -> torch.Tensor:
        """Draws of e, of the shape, type and device of an array."""
        raise NotImplementedError


class DiscretisedLogistic(Discretised):
    """p(k) = sigma((k + 1/2 - loc) / scale) - sigma((k - 1/2 - loc) / scale). Kingma et al. 2016 (arXiv:1606.04934)."""

    @staticmethod
    def noise(like: torch.Tensor) -> torch.Tensor:
        u = torch.rand_like(like).clamp(1e-7, 1 - 1e-7)
        return u.log() - (-u).log1p()

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)) between the lowest and the highest level."""
        low, high = value <= 0, value >= self.levels - 1
        zero = torch.zeros_like(self.loc)
        below = torch.where(high, zero, logsigmoid((value + 0.5 - self.loc) / self.scale))
        above = torch.where(low, zero, logsigmoid((self.loc - value + 0.5) / self.scale))
        return below + above + torch.where(low | high, zero, (-torch.expm1(-1 / self.scale)).log())


class DiscretisedNormal(Discretised):
    """p(k) = Phi((k + 1/2 - loc) / scale) - Phi((k - 1/2 - loc) / scale), DDPM's decoder. Ho et al. 2020 (arXiv:2006.11239)."""

    @staticmethod
    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(like)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """log (Phi(b) - Phi(a)), on the side of the mean where both are small."""
        right = value > self.loc
        near = torch.where(right, self.loc - value, value - self.loc)
        high, low = (near + 0.5) / self.scale, (near - 0.5) / self.scale
        bottom, top = value <= 0, value >= self.levels - 1
        all_below = torch.where(right, top, bottom)  # the tail beyond is the level's too
        all_above = torch.where(right, bottom, top)
        above = torch.where(all_above, 0.0, log_ndtr(high))
        apart = torch.where(all_below, -1.0, log_ndtr(low) - above).clamp(max=-1e-30)
        return above + torch.where(all_below, 0.0, torch.log(-torch.expm1(apart)))
