"""Planar flow: u -> u + a tanh(w' u + b), layer after layer; each bends the density along one direction.

log|det| = log |1 + (1 - tanh(w' u + b)^2) w' a|, where a is constrained, w' a = m(w' a_free) > -1, so that the layer is
invertible. Layers begin as the identity, a = 0, with w and b drawn from the standard normal: the published start, all
parameters small, is a saddle that takes thousands of steps to leave.
Rezende and Mohamed 2015, arXiv:1505.05770.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide

FLOWJAX_ZERO = math.log(math.expm1(math.e - 1))  # the zero of its m(x) = -1 + log(1 + softplus(x))
PYRO_ZERO = math.log(math.e - 1)  # the zero of its m(x) = -1 + softplus(x)


@dataclass(frozen=True, kw_only=True)
class Planar(Guide):
    """Planar layers, then an affine map.

    num_layers: planar layers. They have no inverse in closed form, so that only the total gradient is there.
    """

    gradient: Literal["total"] = "total"
    num_layers: int = 16

    has_density: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_layers")

    def jax_guide(self, key: Any, dim: int) -> Any:
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        from flowjax import bijections, distributions, flows

        from probgen.inference.variational import _jax

        def begin(layer: Any) -> Any:
            if not isinstance(layer, bijections.Planar):
                return layer
            params: Any = layer.params
            w, _, b = jnp.split(100 * params, (dim, 2 * dim), axis=-1)  # drawn with an sd of 0.01
            a = FLOWJAX_ZERO * w / (w**2).sum(-1, keepdims=True)
            return eqx.tree_at(lambda node: node.params, layer, jnp.concatenate([w, a, b], axis=-1))

        base = distributions.StandardNormal((dim,))
        layers = flows.planar_flow(key, base_dist=base, flow_layers=self.num_layers, invert=False)
        return _jax.flow(jax.tree.map(begin, layers, is_leaf=lambda node: isinstance(node, bijections.Planar)))

    def torch_guide(self, dim: int) -> Any:
        from pyro.distributions import transforms

        from probgen.inference.variational import _torch

        layers = [transforms.Planar(dim) for _ in range(self.num_layers)]
        for layer in layers:
            layer.bias.data.normal_()
            w = layer.w.data.normal_()
            layer.u.data.copy_(PYRO_ZERO * w / w.square().sum())
        return _torch.flow(dim, layers)
