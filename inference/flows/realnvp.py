"""RealNVP: affine coupling layers. Half of u, a, stays; the other half moves by what networks s, t make of a,

    b -> b exp(s(a)) + t(a),   log|det| = sum s(a),

and a permutation follows each layer. Dinh, Sohl-Dickstein and Bengio 2017, arXiv:1605.08803; as a guide with path
gradients: Agrawal, Sheldon and Domke 2020, arXiv:2006.10343.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class RealNVP(Guide):
    """Affine coupling layers, then an affine map.

    num_layers, width: coupling layers, and hidden units of each layer's network.
    bound: |s| stays below this.
    """

    learning_rate: float = 0.003
    num_particles: int = 64
    num_layers: int = 8
    width: int = 32
    bound: float = 2.0

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_layers", "width", "bound")

    def jax_guide(self, key: Any, dim: int) -> Any:
        import jax
        from flowjax.distributions import StandardNormal
        from flowjax.flows import coupling_flow

        from probgen.inference.variational import _jax
        from probgen.nets import flows

        layers = coupling_flow(
            key, base_dist=StandardNormal((dim,)), transformer=flows.BoundedAffine(self.bound),
            flow_layers=self.num_layers, nn_width=self.width, nn_activation=jax.nn.silu, invert=False,
        )  # fmt: skip
        return _jax.flow(layers)

    def torch_guide(self, dim: int) -> Any:
        import torch
        from pyro.distributions.transforms import AffineCoupling

        from probgen.inference.variational import _torch

        half, bound = dim // 2, self.bound
        clamp = lambda s: bound * torch.tanh(s / bound)  # noqa: E731
        nets = [_torch.Net(half, self.width, 2 * [dim - half], clamp) for _ in range(self.num_layers)]
        return _torch.flow(dim, [AffineCoupling(half, net) for net in nets])
