"""A neural spline flow of whole numbers: levels are boxes of a density of reals, and a second flow learns where in its box a
level lies (variational dequantisation).

    y ~ spline flow,   x = floor(levels y)
    guide:  y = (x + sigmoid(v)) / levels,   v a coupling flow that sees x

The bound is one on log P(x) in nats, of whole numbers: no noise is added to the data, and `levels` enters no figure afterwards.
With `noise="uniform"` the guide is uniform dequantisation, as of data with noise. Shapes: x: (dim,), whole numbers; y: (dim,).
Ho, Chen, Srinivas, Duan and Abbeel 2019 (arXiv:1902.00275); Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.distributions.quantised import Dequantised, Quantised
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, coupling, smooth_spline


def dequantised_spline(x=None, dim=64, levels=17, num_layers=6, width=128, depth=2, knots=8, interval=2, noise="flow"):
    flow = coupling("flow", dim, smooth_spline(knots, interval), num_layers, width, depth)
    y = numpyro.sample("y", flow)
    numpyro.sample("x", Quantised(y, levels).to_event(1), obs=x)


def guide(x, dim=64, levels=17, noise="flow", num_layers=6, width=128):
    if noise not in ("flow", "uniform"):
        raise ValueError(f"noise is {noise!r}; known: flow, uniform")
    at = (x + 0.5) / levels
    v = dist.Logistic(jnp.zeros(dim), 1.0).to_event(1)
    v = coupling("noise", dim, BoundedAffine(4.0), 4, width, 1, at) if noise == "flow" else v
    numpyro.sample("y", Dequantised(x, v, levels))


def rows(x):
    """Whole numbers, or grey from 0 to 1, which is cut into 17 levels."""
    x = np.asarray(x).reshape(len(x), -1)
    x = x if (x == np.round(x)).all() and x.max() > 1 else np.round(16 * x)
    return {"x": x.astype(int), "dim": x.shape[1], "levels": max(2, int(x.max()) + 1)}


settings = {"num_steps": 4000, "batch_size": 256, "learning_rate": 0.001}
model = Model(
    program=dequantised_spline, guide=guide, data=lambda: rows(load("digits_grey")), rows=rows, settings=settings
)
