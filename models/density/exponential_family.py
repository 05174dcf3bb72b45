"""An exponential family, chosen by its name: independent coordinates, or one vector, matrix or category.

    p(x) = h(x) exp(eta . T(x) - A(eta)),   maximum likelihood: E T = the mean of T(x) over the rows

T, eta and A are those of `probgen.distributions.families`, whose `fitted` gives the answer of maximum likelihood directly.
Shapes: x: (dim,), or () where dim is 0; of "dirichlet" (dim,), a point of the simplex; of "wishart" (dim, dim), positive
definite; of "categorical" (), one of 0 ... dim - 1. A parameter is called as in NumPyro, and has the shape of x but for the
matrix of "multivariate_normal" and "wishart", scale_tril (dim, dim). Barndorff-Nielsen 1978.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from probgen.model import Model

positive, unit, real = constraints.positive, constraints.unit_interval, constraints.real
SCALARS = {  # the distribution of one coordinate; of each parameter where it begins, and its constraint
    "normal": (dist.Normal, {"loc": (0.0, real), "scale": (1.0, positive)}),
    "lognormal": (dist.LogNormal, {"loc": (0.0, real), "scale": (1.0, positive)}),
    "halfnormal": (dist.HalfNormal, {"scale": (1.0, positive)}),
    "exponential": (dist.Exponential, {"rate": (1.0, positive)}),
    "gamma": (dist.Gamma, {"concentration": (1.0, positive), "rate": (1.0, positive)}),
    "inverse_gamma": (dist.InverseGamma, {"concentration": (2.0, positive), "rate": (1.0, positive)}),
    "beta": (dist.Beta, {"concentration1": (1.0, positive), "concentration0": (1.0, positive)}),
    "von_mises": (dist.VonMises, {"loc": (0.0, real), "concentration": (1.0, positive)}),
    "bernoulli": (dist.BernoulliProbs, {"probs": (0.5, unit)}),
    "geometric": (dist.GeometricProbs, {"probs": (0.5, unit)}),
    "poisson": (dist.Poisson, {"rate": (1.0, positive)}),
}
KNOWN = (*SCALARS, "multivariate_normal", "dirichlet", "wishart", "categorical")


def exponential_family(x=None, family="gamma", dim=1):
    numpyro.sample("x", member(family, dim), obs=x)


def member(family, dim):
    """The distribution of a name, its arguments the program's parameters."""
    if family not in KNOWN:
        raise ValueError(f"family is {family!r}; known: {', '.join(KNOWN)}")
    if family in SCALARS:
        kind, arguments = SCALARS[family]
        shape = (dim,) if dim else ()
        found = {k: numpyro.param(k, jnp.full(shape, x), constraint=c) for k, (x, c) in arguments.items()}
        return kind(**found).to_event(len(shape))
    if dim < 2:
        raise ValueError(f"dim is {dim}; {family} needs 2 or more")
    if family == "categorical":
        return dist.CategoricalProbs(numpyro.param("probs", jnp.full(dim, 1 / dim), constraint=constraints.simplex))
    if family == "dirichlet":
        return dist.Dirichlet(numpyro.param("concentration", jnp.ones(dim), constraint=positive))
    scale_tril = numpyro.param("scale_tril", jnp.eye(dim), constraint=constraints.lower_cholesky)
    if family == "multivariate_normal":
        return dist.MultivariateNormal(numpyro.param("loc", jnp.zeros(dim)), scale_tril=scale_tril)
    above = constraints.greater_than(dim - 1.0)
    return dist.Wishart(
        numpyro.param("concentration", jnp.full((), dim + 1.0), constraint=above), scale_tril=scale_tril
    )


def rows(x):
    """A gamma distribution a coordinate, of rows of positive numbers."""
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


def flowers():
    """Lengths and widths of iris flowers' sepals and petals in cm, (150, 4): Anderson 1936, as scikit-learn has them."""
    from sklearn.datasets import load_iris

    found: Any = load_iris()
    return found.data


model = Model(program=exponential_family, data=lambda: rows(flowers()), rows=rows)
