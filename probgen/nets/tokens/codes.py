"""The next-token transformer as a distribution of a grid of codes, read in rows from the top.

    p(k) = prod_t p(k_t | k_<t),   k_t the code at place t of the grid, t = column + width row

Shapes: k: (height, width), whole numbers as floats.
Esser, Rombach and Ommer 2021 (arXiv:2012.09841), who learn it once the codes are at rest; here it is learned beside them.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from probgen.nets.autoregressive import Autoregressive
from probgen.nets.tokens.next_token import NextToken, next_token


class Grid(eqx.Module):
    """The conditionals of the codes of a grid, as `Autoregressive` takes them: those of its places one after the other."""

    net: NextToken
    shape: tuple[int, int] = eqx.field(static=True)

    @property
    def levels(self) -> int:
        return self.net.levels

    @property
    def orders(self) -> np.ndarray:
        return self.net.orders

    def log_prob(self, k: Any) -> Any:
        return self.net.log_prob(k.reshape(*k.shape[: k.ndim - 2], -1))

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        return self.net.complete(key, jnp.ravel(value), jnp.ravel(known)).reshape(self.shape)


def grid_of_codes(
    name: str, shape: tuple[int, int], num_codes: int, width: int, depth: int, num_heads: int
) -> Autoregressive:
    """A transformer's distribution of a grid (height, width) of codes, its parameters registered under a name."""
    return Autoregressive(Grid(next_token(name, num_codes, math.prod(shape), width, depth, num_heads), shape))
