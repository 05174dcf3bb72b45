"""Block neural autoregressive flow: a monotone network whose weight matrices are block triangular.

    y_i = f_i(u_1, ..., u_i),   log|det| = sum_i log df_i/du_i,   df_i/du_i > 0 as diagonal blocks have positive weights

It is evaluated from noise to draws only, which is what a guide needs.
De Cao, Titov and Aziz 2019, arXiv:1904.04676.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class BNAF(Guide):
    """Block autoregressive networks, then an affine map.

    num_layers: networks in a row; depth: hidden layers of each; block_dim: hidden units an unknown.
    They have no inverse in closed form, so that only the total gradient is there.
    """

    learning_rate: float = 0.003
    gradient: Literal["total"] = "total"
    num_layers: int = 1
    depth: int = 1
    block_dim: int = 8

    has_density: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_layers", "depth", "block_dim")

    def jax_guide(self, key: Any, dim: int) -> Any:
        from flowjax.distributions import StandardNormal
        from flowjax.flows import block_neural_autoregressive_flow

        from probgen.inference.variational import _jax

        layers = block_neural_autoregressive_flow(
            key, base_dist=StandardNormal((dim,)), nn_depth=self.depth, nn_block_dim=self.block_dim,
            flow_layers=self.num_layers, invert=False,
        )  # fmt: skip
        return _jax.flow(layers)

    def torch_guide(self, dim: int) -> Any:
        from pyro.distributions.transforms import BlockAutoregressive

        from probgen.inference.variational import _torch

        hidden = self.depth * [self.block_dim]  # the gate makes R^n the range, as FlowJAX's leaky tanh does
        return _torch.flow(dim, [BlockAutoregressive(dim, hidden, residual="gated") for _ in range(self.num_layers)])
