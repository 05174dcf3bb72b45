"""Inverse autoregressive flow: z_i = u_i exp(s_i(u_<i)) + t_i(u_<i), so that drawing takes one pass.

log|det| = sum_i s_i. Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling 2016, arXiv:1606.04934, with the masked
networks of Germain, Gregor, Murray and Larochelle 2015, arXiv:1502.03509.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class IAF(Guide):
    """Inverse autoregressive layers, then an affine map.

    num_layers, width: layers, and hidden units of each layer's network; bound: |s| stays below this.
    gradient: "path" inverts the flow, at a cost that grows with the number of unknowns.
    """

    learning_rate: float = 0.003
    num_layers: int = 4
    width: int = 32
    bound: float = 2.0

    smallest: ClassVar[int] = 2
    invert: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_layers", "width", "bound")

    def jax_guide(self, key: Any, dim: int) -> Any:
        import jax
        from flowjax.distributions import StandardNormal
        from flowjax.flows import masked_autoregressive_flow

        from probgen.inference.variational import _jax
        from probgen.nets import flows

        layers = masked_autoregressive_flow(
            key, base_dist=StandardNormal((dim,)), transformer=flows.BoundedAffine(self.bound),
            flow_layers=self.num_layers, nn_width=max(self.width, dim), nn_activation=jax.nn.silu, invert=self.invert,
        )  # fmt: skip
        return _jax.flow(layers)

    def torch_guide(self, dim: int) -> Any:
        import torch
        from pyro.distributions.transforms import AffineAutoregressive
        from pyro.nn import AutoRegressiveNN

        from probgen.inference.variational import _torch

        hidden = [max(self.width, dim)]
        order: Any = torch.arange(dim)
        nets = [
            AutoRegressiveNN(dim, hidden, permutation=order, nonlinearity=torch.nn.SiLU())
            for _ in range(self.num_layers)
        ]
        for net in nets:
            _torch.calm(net.layers[-1])
        limits: dict[str, Any] = {"log_scale_min_clip": -self.bound, "log_scale_max_clip": self.bound}
        return _torch.flow(dim, [AffineAutoregressive(net, **limits) for net in nets], self.invert)
