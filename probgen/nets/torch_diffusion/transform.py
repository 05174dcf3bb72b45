"""A velocity as a flow in torch: a transform of Pyro programs from noise to a point, by an ordinary differential equation.

    dx / du = v(x, u),   u from 0 (noise) to 1 (the point)

The twin of `probgen.nets.diffusion.flow.ContinuousFlow`, for rows: `dist.TransformedDistribution(noise, [ContinuousFlow(net, 2)])`.
Chen et al. 2018 (arXiv:1806.07366).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from probgen.nets.torch_diffusion import flow


class ContinuousFlow(Transform):
    """Noise to points (*batch, *event) by dx / du = v(x, u).

    velocity: (x: (row, *event), u: ()) -> (row, *event), whose gradients pass through the steps; shape: of a point.
    exact: whether the divergence is; None: up to 32 coordinates. Else it is the mean over `num_probes` probes: those of `seed`, the
    same for every point, so that log_prob is a smooth function, or, where that is None, new ones for every row and call.
    A solve that stopped early is NaN. Raises ValueError for points of another shape.
    """

    bijective = True

    def __init__(
        self, velocity: flow.Velocity, shape: int | tuple[int, ...], *, solver: flow.Solver | None = None,
        exact: bool | None = None, num_probes: int = 8, seed: int | None = 0,
    ) -> None:  # fmt: skip
        super().__init__(cache_size=1)
        self.velocity, self.shape = velocity, (shape,) if isinstance(shape, int) else tuple(shape)
        self.solver, self.exact = solver or flow.Solver(), flow.is_exact(exact, self.shape)
        self.num_probes, self.seed = num_probes, seed
        self._kept: tuple[Any, Any] = (None, None)

    @constraints.dependent_property(is_discrete=False)
    def domain(self) -> Any:
        return constraints.independent(constraints.real, len(self.shape))

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> Any:
        return constraints.independent(constraints.real, len(self.shape))

    def _rows(self, x: Tensor) -> Tensor:
        if tuple(x.shape[x.dim() - len(self.shape) :]) != self.shape:
            raise ValueError(f"This flow is of points of shape {self.shape}; got a tensor of shape {tuple(x.shape)}.")
        return x.reshape(-1, *self.shape)

    def _probes(self, rows: Tensor) -> Tensor | None:
        if self.exact:
            return None
        if self.seed is None:
            return flow.signs(self.num_probes, rows)
        generator = torch.Generator().manual_seed(self.seed)
        return flow.signs(self.num_probes, rows[:1], generator).expand(-1, *rows.shape)

    def _differentiates(self, rows: Tensor) -> bool:
        """Whether gradients are to pass: a solve that makes them where none are asked for keeps all its steps."""
        return torch.is_grad_enabled() and (
            rows.requires_grad or self.velocity(rows[:1], rows.new_zeros(())).requires_grad
        )

    def carry(self, x: Tensor, forward: bool = True) -> tuple[Tensor, Tensor]:
        """Where points (*batch, *event) arrive, and log |det| of noise to point, (*batch)."""
        rows, batch = self._rows(x), x.shape[: x.dim() - len(self.shape)]
        ends = (0.0, 1.0) if forward else (1.0, 0.0)
        with torch.set_grad_enabled(self._differentiates(rows)):
            end, volume = flow.carried(self.velocity, rows, *ends, self.solver, self._probes(rows))
        volume = volume if self.exact else volume.mean(1)
        return end.reshape(x.shape), (volume if forward else -volume).reshape(batch)

    def _call(self, x: Tensor) -> Tensor:
        rows = self._rows(x)
        if not self._differentiates(rows):  # a draw, whose density is seldom asked for
            with torch.no_grad():
                return flow.moved(self.velocity, rows, 0.0, 1.0, self.solver).reshape(x.shape)
        y, volume = self.carry(x)
        self._kept = x, volume
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, volume = self.carry(y, forward=False)
        self._kept = x, volume
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        start, volume = self._kept
        return volume if start is x else self.carry(x)[1]
