"""A mixture of normal distributions: full, diagonal or tied covariances, the assignments summed out.

    w ~ Dirichlet(5, ..., 5)
    loc_k ~ N(centre, 2 spread), sorted by their first coordinate, so that components keep their names
    full, tied: C_k ~ Wishart(dim + 2, spread^2 / (dim + 2)), which keeps away from flat ones (Chung et al. 2015)
    diagonal: C_k = diag(scale_k^2), scale_k ~ HalfNormal(2 spread)
    x ~ sum_k w_k N(loc_k, C_k)

The prior is for nuts and guides; em and mle leave it out. Shapes: x: (row, dim), centre, spread: (dim,), the scales of the data;
weights: (component,), loc: (component, dim), scale: (component, dim), or scale_tril: (component, dim, dim), tied: (dim, dim).
scale_tril is the Cholesky factor of C. Diagonal with
dim 1, two components, centre 0 and spread 1 it is posteriordb's low_dim_gauss_mix. Dempster, Laird and Rubin 1977.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.scales import numbers
from probgen.distributions.normal import MultivariateNormal
from probgen.distributions.ordered import Ordered
from probgen.model import Model

COVARIANCES = ("full", "diagonal", "tied")


def gaussian_mixture(centre, spread, x=None, num_components=2, covariance="full"):
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance is {covariance!r}; known: {', '.join(COVARIANCES)}")
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, 5.0)))
    loc = numpyro.sample("loc", Ordered(dist.Normal(centre, 2 * spread).to_event(1), num_components))
    if covariance == "diagonal":
        prior = dist.HalfNormal(2 * spread).expand([num_components, len(centre)]).to_event(2)
        components = dist.Normal(loc, numpyro.sample("scale", prior)).to_event(1)
    else:
        freedom, number = len(centre) + 2, () if covariance == "tied" else (num_components,)
        prior = dist.WishartCholesky(freedom, scale_tril=jnp.diag(spread) / freedom**0.5).expand(number)
        scale_tril = numpyro.sample("scale_tril", prior.to_event(len(number)))
        components = MultivariateNormal(loc, scale_tril=scale_tril)
    mixture = dist.MixtureSameFamily(dist.Categorical(probs=weights), components)
    with numpyro.plate("row", 1 if x is None else len(x)):
        numpyro.sample("x", mixture, obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"centre": x.mean(0), "spread": x.std(0) + 1e-6, "x": x}


def scales(data):
    x = numbers(data.get("x"))
    return {} if x is None or x.ndim != 2 or not len(x) else {k: v for k, v in rows(x).items() if k != "x"}


model = Model(
    program=gaussian_mixture,
    data=lambda: {**rows(load("eight_gaussians")), "num_components": 8},
    dims={"weights": ["component"], "loc": ["component", "feature"], "scale": ["component", "feature"]},
    rows=rows,
    derived=scales,
)
