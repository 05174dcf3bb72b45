"""Learning by the maximum mean discrepancy between rows and draws, without a critic (Li et al. 2015, Dziugaite et al. 2015).

    MMD^2 = E k(x, y) - 2 E k(x, x') + E k(x', y'),   x, y data, x', y' drawn, all independent

k(x, y) is a mean over `scales` of Gaussian kernels exp(-|x - y|^2 / (2 s^2)), s in units of the median distance between rows of the
batch. The estimate has no bias (pairs of a point with itself are left out), so that it can be below zero. Gretton et al. 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._draws import FromDraws, centred, flat


@dataclass(frozen=True, kw_only=True)
class MMD(FromDraws):
    """Kernel learning by Adam.

    scales: widths of the kernels, in median distances between rows.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    scales: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or not all(s > 0 for s in self.scales):
            raise ValueError(f"scales is {self.scales}; expected numbers above 0")

    def prepare(self, target: Any) -> Any:
        rows = target.num_rows - self.held_rows(target.num_rows)
        if min(self.batch_size, rows) < 2:
            raise ValueError(
                f"mmd compares pairs of rows of a batch: batch_size is {self.batch_size}, of {rows} rows; at least 2 of each."
            )
        return super().prepare(target)

    def loss_of_draws(self, key: Any, target: Any, rival: Any, parameters: Any, batch: Any) -> Any:
        import jax.numpy as jnp

        from probgen.engine.numpyro.targets.draws import of_rows

        x, y = centred(flat(target, batch), flat(target, of_rows(target, key, parameters, batch)))
        between = _squares(x, x)
        median = jnp.sqrt(_median(between))
        return mmd_squared(between, _squares(x, y), _squares(y, y), [s * median for s in self.scales])


def _median(squares: Any) -> Any:
    """Of squared distances between different points: ()."""
    import jax.numpy as jnp

    count = len(squares)
    ranked = jnp.sort(squares.ravel())  # the first `count` are of points with themselves
    return jnp.maximum(ranked[count + (count * count - count) // 2], 1e-12)


def _squares(x: Any, y: Any) -> Any:
    """Squared distances: (x, y)."""
    import jax.numpy as jnp

    found = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return jnp.maximum(found, 0.0)


def mmd_squared(xx: Any, xy: Any, yy: Any, widths: Any) -> Any:
    """The unbiased estimate, by squared distances (row, row), the mean over kernels of these widths: ()."""
    import jax.numpy as jnp

    def mean(squares: Any, width: Any, apart: bool) -> Any:
        k, count = jnp.exp(-squares / (2 * width**2)), len(squares)
        return (k.sum() - jnp.trace(k)) / (count * (count - 1)) if apart else k.mean()

    terms = [mean(xx, s, True) - 2 * mean(xy, s, False) + mean(yy, s, True) for s in widths]
    return sum(terms) / len(terms)
