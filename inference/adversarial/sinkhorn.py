"""Learning by the Sinkhorn divergence between rows and draws, without a critic (Genevay et al. 2018, Feydy et al. 2019).

    S = OT(x, x') - OT(x, x) / 2 - OT(x', x') / 2,   OT the transport cost of |x - x'|^2 with entropy of weight epsilon

Near zero epsilon it is the squared Wasserstein-2 distance of the batches, near infinity the squared distance of means; without the
two last terms draws would shrink towards the mean. By ott-jax (Cuturi et al. 2022), float32.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._draws import FromDraws, centred, flat

LEAST, MOST = 0.005, 5000  # of epsilon; iterations


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(FromDraws):
    """Entropic transport of batches, by Adam.

    epsilon: weight of the entropy, in mean squared distances between the rows of a batch; at least 0.005, below which the iteration
        does not come to rest in single precision.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 0.05
    num_steps: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon >= LEAST:
            raise ValueError(f"epsilon is {self.epsilon}; it must be at least {LEAST}")

    def loss_of_draws(self, key: Any, target: Any, rival: Any, parameters: Any, batch: Any) -> Any:
        from probgen.engine.numpyro.targets.draws import of_rows

        x, y = flat(target, batch), flat(target, of_rows(target, key, parameters, batch))
        return divergence(x, y, self.epsilon)


def divergence(x: Any, y: Any, epsilon: float) -> Any:
    """The Sinkhorn divergence of points x and y, (row, coordinate): (); epsilon in mean squared distances between x."""
    import jax.numpy as jnp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt says that it is no longer maintained
        from ott.geometry.pointcloud import PointCloud
        from ott.tools.sinkhorn_divergence import sinkhorn_divergence

    x, y = centred(x, y)
    unit = 2 * jnp.sum(jnp.var(x, 0)) + 1e-12
    found, _ = sinkhorn_divergence(
        PointCloud, x, y.astype(x.dtype), epsilon=epsilon * unit, solve_kwargs={"max_iterations": MOST}
    )
    return found
