"""The distribution of rows whose denoiser, or velocity, is known: noise that the probability flow moves; a site of a Pyro program.

with pyro.plate("row", len(x)):
    pyro.sample("x", diffused(denoiser, x.shape[1:], centre, spread), obs=x)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from probgen.nets.torch_diffusion import flow
from probgen.nets.torch_diffusion.denoiser import Denoiser, probability_flow


class Diffused(TorchDistribution):
    """x = centre + spread y, y where the probability flow of a denoiser takes noise: batch (row,), events of a shape.

    The noise is N(0, alpha(1)^2 + sigma(1)^2), right for y of variance one. The divergence is exact up to 32 coordinates; above it
    is the mean over `num_probes` probes, drawn anew at every call. A solve that stopped early is NaN.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self, denoiser: Denoiser, shape: Any, centre: Any = 0.0, spread: Any = 1.0, solver: flow.Solver | None = None,
        num_probes: int = 8, batch: Any = (),
    ) -> None:  # fmt: skip
        self.denoiser, self.centre, self.spread = denoiser, centre, spread
        self.solver, self.num_probes = solver or flow.Solver(), num_probes
        super().__init__(torch.Size(batch), torch.Size(shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Diffused:
        same = self.denoiser, self.event_shape, self.centre, self.spread, self.solver, self.num_probes
        return Diffused(*same, batch_shape)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def end_scale(self) -> Tensor:
        """The standard deviation of z_1: ()."""
        alpha, sigma = self.denoiser.schedule.scales(torch.ones((), dtype=torch.get_default_dtype()))
        return torch.sqrt(alpha**2 + sigma**2)

    def measured(self, x: Tensor) -> Tensor:
        """Rows as the denoiser sees them: (row, *event)."""
        return (x - self.centre) / self.spread

    def unmeasured(self, y: Tensor) -> Tensor:
        """Rows of what the denoiser sees."""
        return self.centre + self.spread * y

    @property
    def log_spread(self) -> Tensor:
        """The log of how much larger a row is than what the denoiser sees: ()."""
        spread = torch.as_tensor(self.spread, dtype=torch.get_default_dtype()).abs().log()
        return spread.expand(torch.broadcast_shapes(spread.shape, (1, *self.event_shape))).sum()

    def log_prob(self, value: Tensor) -> Tensor:
        y = self.measured(value)
        probes = None if flow.is_exact(None, self.event_shape) else flow.signs(self.num_probes, y)
        velocity, first = probability_flow(self.denoiser)
        found = flow.log_prob(velocity, y, first, self.end_scale, self.solver, probes)
        return (found if probes is None else found.mean(1)) - self.log_spread

    @torch.no_grad()
    def first(self) -> Tensor:
        """Rows as the denoiser sees them, drawn: (row, *event)."""
        noise = self.end_scale * torch.randn(*self.batch_shape, *self.event_shape, dtype=torch.get_default_dtype())
        velocity, first = probability_flow(self.denoiser)
        return flow.moved(velocity, noise, 1.0, first, self.solver)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        whole = self.expand(torch.Size((math.prod((*sample_shape, *self.batch_shape)),)))
        return self.unmeasured(whole.first()).reshape(*sample_shape, *self.batch_shape, *self.event_shape)


def diffused(
    denoiser: Denoiser, shape: Any, centre: Any = 0.0, spread: Any = 1.0, solver: flow.Solver | None = None
) -> Diffused:
    """Rows of a shape where the probability flow of a denoiser takes noise; centre, spread: numbers, or arrays (1, *shape)."""
    return Diffused(denoiser, shape, centre, spread, solver)
