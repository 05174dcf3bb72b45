"""The Hopfield network: units that are all connected, and that remember patterns as minima of the energy.

    log p(x) = beta * sum_{i<j} W_ij s_i s_j - log Z,   s = 2 x - 1 in {-1, +1}^N

W is symmetric and without a diagonal by construction: only what stands above it is read. Hebb's rule stores patterns s^1 to
s^P as W = (1 / N) sum_p s^p s^p'; up to P of about 0.138 N they are recalled, at large beta. W can be learned from rows of
patterns, or be given. Shapes: x: (unit,), W: (unit, unit).
Hopfield 1982 (doi:10.1073/pnas.79.8.2554); Amit, Gutfreund and Sompolinsky 1985 (doi:10.1103/PhysRevLett.55.1530).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro

from probgen.measures import bits
from probgen.model import Model


def hopfield(x=None, W=None, num_units=100, beta=1.0):
    weights: Any = numpyro.param("W", jnp.zeros((num_units, num_units))) if W is None else W
    s = 2 * numpyro.sample("x", bits(num_units), obs=x) - 1
    numpyro.factor("energy", beta * s @ jnp.triu(weights, 1) @ s)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "num_units": x.shape[1]}


def patterns():
    return rows(np.random.default_rng(0).integers(0, 2, (8, 100)).astype(float))


model = Model(program=hopfield, data=patterns, rows=rows)
