"""Exponential families: sufficient statistics of NumPyro's distributions, and the member of given expected statistics.

    log p(x) = log h(x) + eta . T(x) - A(eta),   E T = dA/deta,   maximum likelihood: E T = the mean of T over the data

family = of(dist.Gamma(jnp.ones(3), 1.0))     # a family with a batch of three, as the components of a mixture
family.fitted(family.statistics(x).mean(0))   # maximum likelihood, as another Gamma

Statistics and natural parameters of one point are flat vectors (..., s); of coordinates that are independent they come
coordinate by coordinate within each statistic: all x_i, then all x_i^2. Everything here can be jitted and vmapped.
Source: Wainwright and Jordan 2008 (doi:10.1561/2200000001), section 3; Minka 2000, Estimating a Dirichlet distribution.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from probgen.distributions import normal
from probgen.distributions.discrete_families import Bernoulli, Binomial, Categorical, Geometric, Multinomial, Poisson
from probgen.distributions.family import Family, unwrapped
from probgen.distributions.real_families import (
    Beta,
    Dirichlet,
    Exponential,
    Gamma,
    HalfNormal,
    InverseGamma,
    LogNormal,
    MultivariateNormal,
    Normal,
    VonMises,
    Wishart,
)


def of(d: Any) -> Family:
    """The family of a distribution; independent coordinates and expanded batches are seen through.

    Raises TypeError, naming the families that are known, for a distribution that is none of them.
    """
    bare = unwrapped(d)
    kind = MEMBERS.get(type(bare))
    if kind is None:
        raise TypeError(
            f"{type(bare).__name__} is not one of the exponential families that are known here: {', '.join(FAMILIES)}."
        )
    shape = (*d.batch_shape, *d.event_shape)
    end = len(shape) - len(bare.event_shape)
    known = {k: getattr(bare, k) for k in ("total_count", "total_count_max") if hasattr(bare, k)}
    sized = [jnp.shape(getattr(bare, k)) for k in ("probs", "logits") if k in bare.arg_constraints]
    size = bare.event_shape[-1] if bare.event_shape else sized[0][-1] if kind is Categorical else 1
    return kind(type(bare), size, shape[len(d.batch_shape) : end], known, bare.support)


FAMILIES: dict[str, type[Family]] = {
    kind.name: kind
    for kind in (
        Normal, LogNormal, HalfNormal, MultivariateNormal, Exponential, Gamma, InverseGamma, Beta, Dirichlet,
        Wishart, VonMises, Bernoulli, Binomial, Geometric, Poisson, Categorical, Multinomial,
    )
}  # fmt: skip


MEMBERS: dict[Any, type[Family]] = {
    dist.Normal: Normal,
    dist.LogNormal: LogNormal,
    dist.HalfNormal: HalfNormal,
    dist.MultivariateNormal: MultivariateNormal,
    normal.MultivariateNormal: MultivariateNormal,
    dist.Exponential: Exponential,
    dist.Gamma: Gamma,
    dist.InverseGamma: InverseGamma,
    dist.Beta: Beta,
    dist.Dirichlet: Dirichlet,
    dist.Wishart: Wishart,
    dist.VonMises: VonMises,
    dist.BernoulliProbs: Bernoulli,
    dist.BernoulliLogits: Bernoulli,
    dist.BinomialProbs: Binomial,
    dist.BinomialLogits: Binomial,
    dist.GeometricProbs: Geometric,
    dist.GeometricLogits: Geometric,
    dist.Poisson: Poisson,
    dist.CategoricalProbs: Categorical,
    dist.CategoricalLogits: Categorical,
    dist.MultinomialProbs: Multinomial,
    dist.MultinomialLogits: Multinomial,
}
