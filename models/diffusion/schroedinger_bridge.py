"""A diffusion from rows of one kind to rows of another that are no pairs: of all with these ends the nearest to Brownian motion.

    dX = v(X, t) dt + sigma dW,   X_0 = a,   X_1 = b                the guide:  the same diffusion back, from b to a
    minimise KL(law of X || law of Brownian motion)   given X_0 ~ rows of a,  X_1 ~ rows of b

Of the pair (a, b) this is optimal transport with entropy: minimise E |a - b|^2 / 2 + sigma^2 KL(law of (a, b) || product). Small
`sigma` pairs rows that are near, large `sigma` any. Rows of a and b may differ in number, not in shape; coordinates should be
in one unit, which is that of sigma. N(0, 1) to itself at sigma = 1: the covariance of a and b is .618034.
De Bortoli et al. 2021 (arXiv:2106.01357); Shi et al. 2023 (arXiv:2303.16852). Shapes: a, b: (dim,).
"""

import numpyro

from probgen.data import load
from probgen.data.values.kinds import two_kinds
from probgen.model import Model
from probgen.nets.bridges.drift import Drift, Driven
from probgen.nets.diffusion.networks import perceptron


def schroedinger_bridge(
    a, b=None, dim=2, sigma=1.0, num_steps=50, width=128, depth=3, centre_a=0.0, centre_b=0.0, spread_a=1.0, spread_b=1.0
):  # fmt: skip
    net = perceptron("a to b", dim, width, depth)
    drift = Drift(net, sigma, centre_a, centre_b, (spread_a, spread_b))
    numpyro.sample("b", Driven(drift, a, num_steps), obs=b)


def guide(
    b, dim=2, sigma=1.0, num_steps=50, width=128, depth=3, centre_a=0.0, centre_b=0.0, spread_a=1.0, spread_b=1.0
):
    net = perceptron("b to a", dim, width, depth)
    drift = Drift(net, sigma, centre_b, centre_a, (spread_b, spread_a))
    numpyro.sample("a", Driven(drift, b, num_steps))


def rows(a, b):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return {"a": a, "b": b}


model = Model(
    program=schroedinger_bridge,
    guide=guide,
    data=lambda: rows(load("eight_gaussians"), load("two_moons")),
    rows=rows,
    derived=two_kinds("a", "b"),
)
