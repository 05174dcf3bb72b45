"""Draws of one distribution sorted by their first coordinate: a prior under which components of a mixture keep their names."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import Distribution, biject_to, constraints
from numpyro.distributions.transforms import OrderedTransform, ParameterFreeTransform


class _SortedRows(constraints.ParameterFreeConstraint):
    """Matrices (row, coordinate) whose first column increases."""

    event_dim = 2

    def __call__(self, x: Any) -> Any:
        return jnp.all(jnp.diff(x[..., 0]) > 0, axis=-1) & jnp.all(jnp.isfinite(x), axis=(-1, -2))

    def feasible_like(self, prototype: Any) -> Any:
        first = jnp.arange(prototype.shape[-2], dtype=prototype.dtype)
        return jnp.broadcast_to(first[:, None], prototype.shape)


sorted_rows = _SortedRows()


class SortedRowsTransform(ParameterFreeTransform):
    """Real matrices to matrices whose first column increases; the other columns stay."""

    domain: Any = constraints.real_matrix
    codomain: Any = sorted_rows
    first = OrderedTransform()

    def __call__(self, x: Any) -> Any:
        return jnp.asarray(x).at[..., 0].set(self.first(x[..., 0]))

    def _inverse(self, y: Any) -> Any:
        return jnp.asarray(y).at[..., 0].set(self.first._inverse(y[..., 0]))

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        return self.first.log_abs_det_jacobian(x[..., 0], y[..., 0])


@biject_to.register(sorted_rows)
def _(constraint: Any) -> Any:
    return SortedRowsTransform()


class Ordered(Distribution):
    """`count` independent draws of a distribution of vectors, sorted by their first coordinate.

        log p(y) = log count! + sum_k log p(y_k),   y_11 < y_21 < ...

    base: event shape (dim,), no batch shape. The event has shape (count, dim).
    """

    support: Any = sorted_rows
    pytree_data_fields = ("base",)
    pytree_aux_fields = ("count",)

    def __init__(self, base: Distribution, count: int, *, validate_args: bool | None = None):
        if base.batch_shape or len(base.event_shape) != 1:
            raise ValueError(
                f"Ordered takes a distribution of vectors; this one has batch shape {base.batch_shape} and event shape "
                f"{base.event_shape}: use .to_event(1)."
            )
        if count < 1:
            raise ValueError(f"count is {count}; it must be 1 or more")
        self.base, self.count = base, count
        super().__init__((), (count, *base.event_shape), validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        draws: Any = self.base.sample(key, (*sample_shape, self.count))
        order = jnp.argsort(draws[..., 0], axis=-1)
        return jnp.take_along_axis(draws, order[..., None], axis=-2)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return math.lgamma(self.count + 1) + jnp.sum(self.base.log_prob(value), -1)
