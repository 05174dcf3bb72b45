"""Neural spline flow: coupling layers whose transformer is a monotone rational-quadratic spline.

    b -> spline(b; knots(a)) on [-interval, interval], the identity outside

Durkan, Bekasov, Murray and Papamakarios 2019, arXiv:1906.04032.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class NeuralSpline(Guide):
    """Spline coupling layers, then an affine map; with a single unknown, splines without a network.

    num_layers, width: coupling layers, and hidden units of each layer's network.
    knots: inner knots of a spline; interval: its reach in sds.
    """

    learning_rate: float = 0.003
    num_layers: int = 4
    width: int = 32
    knots: int = 8
    interval: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_layers", "width", "knots", "interval")

    def jax_guide(self, key: Any, dim: int) -> Any:
        import equinox as eqx
        import jax
        from flowjax.bijections import Vmap
        from flowjax.distributions import StandardNormal
        from flowjax.flows import coupling_flow

        from probgen.inference.variational import _jax
        from probgen.nets import flows

        spline = flows.smooth_spline(self.knots, self.interval)
        if dim == 1:
            one = eqx.filter_vmap(lambda: spline, axis_size=1)()
            return _jax.flow(_jax.normal(Vmap(one, in_axes=eqx.if_array(0))))
        layers = coupling_flow(
            key, base_dist=StandardNormal((dim,)), transformer=spline, flow_layers=self.num_layers,
            nn_width=self.width, nn_activation=jax.nn.silu, invert=False,
        )  # fmt: skip
        return _jax.flow(layers)

    def torch_guide(self, dim: int) -> Any:
        import math

        from pyro.distributions.transforms import Spline, SplineCoupling

        from probgen.inference.variational import _torch

        bins, settings = self.knots + 1, {"bound": self.interval, "order": "quadratic"}
        if dim == 1:
            return _torch.Flow(1, [Spline(1, bins, **settings)], _torch.Affine(1))
        half = dim // 2
        sizes = [(dim - half) * bins, (dim - half) * bins, (dim - half) * (bins - 1)]
        slope_one = math.log(math.e - 1)  # softplus of it is one
        nets = [_torch.Net(half, self.width, sizes, lambda d: d + slope_one) for _ in range(self.num_layers)]
        return _torch.flow(dim, [SplineCoupling(dim, half, net, bins, identity=True, **settings) for net in nets])
