"""Exponential families: sufficient statistics of NumPyro's distributions, and the member of given expected statistics.

    log p(x) = log h(x) + eta . T(x) - A(eta),   E T = dA/deta,   maximum likelihood: E T = the mean of T over the data

family = of(dist.Gamma(jnp.ones(3), 1.0))     # a family with a batch of three, as the components of a mixture
family.fitted(family.statistics(x).mean(0))   # maximum likelihood, as another Gamma

Statistics and natural parameters of one point are flat vectors (..., s); of coordinates that are independent they come
coordinate by coordinate within each statistic: all x_i, then all x_i^2. Everything here can be jitted and vmapped.
Source: Wainwright and Jordan 2008 (doi:10.1561/2200000001), section 3; Minka 2000, Estimating a Dirichlet distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import gammaln, i0e, i1e, multigammaln
from numpyro.distributions.util import clamp_probs

from probgen.distributions import normal
from probgen.distributions.special import inverse_psi, log_minus_digamma, psi, root

LOG_TWO_PI = 1.8378770664093453


@dataclass(frozen=True, eq=False)
class Family:
    """The family that a distribution belongs to, for points x (..., *event) and statistics (..., s).

    member: the NumPyro class; size: of one value's last axis, or its number of categories.
    coordinates: the shape of the independent coordinates of one point, () where the values are not independent.
    known: arguments that are not learned, as the number of trials. support: of one coordinate, a NumPyro constraint.
    """

    member: Any
    size: int = 1
    coordinates: tuple[int, ...] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    support: Any = None

    parameters: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The family's name: "normal", "gamma", ..."""
        return next(word for word, kind in FAMILIES.items() if kind is type(self))

    def statistics(self, x: Any) -> Any:
        """T(x): (..., *event) -> (..., s)."""
        x = jnp.asarray(x)
        return self._flat(self._statistics(x.astype(jnp.result_type(x, float))))

    def natural(self, d: Any) -> Any:
        """eta of a member of the family: (*batch, s)."""
        return self._flat(self._natural(self.arguments(d)))

    def log_normaliser(self, eta: Any) -> Any:
        """A(eta) in nats: (..., s) -> (...)."""
        return self._summed(self._log_normaliser(self._apart(eta)))

    def log_base(self, x: Any) -> Any:
        """log h(x) in nats: (..., *event) -> (...)."""
        x = jnp.asarray(x)
        return self._summed(self._log_base(x.astype(jnp.result_type(x, float))))

    def mean(self, d: Any) -> Any:
        """E T(x) under a member of the family: (*batch, s)."""
        return jax.grad(lambda eta: jnp.sum(self.log_normaliser(eta)))(self.natural(d))

    def fitted(self, mean: Any) -> Any:
        """The member whose expected statistics are `mean` (*batch, s), with the arguments of the instance given to `of`.

        It is the maximum of the likelihood where `mean` is the (weighted) mean of T over data. Data without spread have none:
        scales are then 0 or, by rounding, NaN, and concentrations very large.
        """
        found = self._fitted(self._apart(jnp.asarray(mean)))
        d = self.member(**{k: found[k] for k in self.names}, **self.known)
        return d.to_event(len(self.coordinates))

    def arguments(self, d: Any) -> dict[str, Any]:
        """The arrays that a member is made of, each with the whole batch shape, and those of independent coordinates."""
        bare, shape = unwrapped(d), (*d.batch_shape, *d.event_shape)
        batch = shape[: len(shape) - len(bare.event_shape)]
        found = {}
        for name in self.names:
            value, ndim = jnp.asarray(getattr(bare, name)), self.member.arg_constraints[name].event_dim
            found[name] = jnp.broadcast_to(value, (*batch, *value.shape[value.ndim - ndim :]))
        return found

    def contains(self, x: Any) -> Any:
        """Whether points lie where their density and statistics are finite: (..., *event) -> (...)."""
        inside = jnp.asarray(self.support(jnp.asarray(x)))
        inside = jnp.all(inside, axis=tuple(range(-len(self.coordinates), 0)))
        return inside & jnp.all(jnp.isfinite(self.statistics(x)), axis=-1) & jnp.isfinite(self.log_base(x))

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that are learned, as the instance given to `of` has them."""
        if self.parameters:
            return self.parameters
        return ("logits",) if self.member.__name__.endswith("Logits") else ("probs",)

    # ---- between flat vectors and coordinates

    def _flat(self, parts: Any) -> Any:
        n = len(self.coordinates)
        parts = jnp.moveaxis(parts, -1, -1 - n)
        return parts.reshape(*parts.shape[: parts.ndim - n - 1], -1)

    def _apart(self, flat: Any) -> Any:
        parts = flat.reshape(*flat.shape[:-1], -1, *self.coordinates)
        return jnp.moveaxis(parts, -1 - len(self.coordinates), -1)

    def _summed(self, terms: Any) -> Any:
        return jnp.sum(terms, axis=tuple(range(-len(self.coordinates), 0)))

    # ---- what a family says of one coordinate; its statistics are on the last axis

    def _statistics(self, x: Any) -> Any:
        raise NotImplementedError

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _log_normaliser(self, eta: Any) -> Any:
        raise NotImplementedError

    def _log_base(self, x: Any) -> Any:
        raise NotImplementedError

    def _fitted(self, mean: Any) -> dict[str, Any]:
        raise NotImplementedError


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


def unwrapped(d: Any) -> Any:
    """The distribution within `to_event`, `expand` and `mask`-free wrappers."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


# ---- families with closed forms ----------------------------------------------------------------------------------


class Normal(Family):
    parameters = ("loc", "scale")

    def _statistics(self, x: Any) -> Any:
        return jnp.stack([x, x**2], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        precision = arguments["scale"] ** -2.0
        return jnp.stack([arguments["loc"] * precision, -0.5 * precision], -1)

    def _log_normaliser(self, eta: Any) -> Any:
        return -(eta[..., 0] ** 2) / (4 * eta[..., 1]) - 0.5 * jnp.log(-2 * eta[..., 1])

    def _log_base(self, x: Any) -> Any:
        return jnp.full_like(x, -0.5 * LOG_TWO_PI)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return {"loc": mean[..., 0], "scale": jnp.sqrt(mean[..., 1] - mean[..., 0] ** 2)}


class LogNormal(Normal):
    def _statistics(self, x: Any) -> Any:
        return super()._statistics(jnp.log(x))

    def _log_base(self, x: Any) -> Any:
        return -jnp.log(x) - 0.5 * LOG_TWO_PI


class HalfNormal(Family):
    parameters = ("scale",)

    def _statistics(self, x: Any) -> Any:
        return x[..., None] ** 2

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return -0.5 * arguments["scale"][..., None] ** -2.0

    def _log_normaliser(self, eta: Any) -> Any:
        return -0.5 * jnp.log(-2 * eta[..., 0])

    def _log_base(self, x: Any) -> Any:
        return jnp.full_like(x, 0.5 * (jnp.log(4.0) - LOG_TWO_PI))

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return {"scale": jnp.sqrt(mean[..., 0])}


class MultivariateNormal(Family):
    """T = (x, x x'), the matrix row by row."""

    parameters = ("loc", "scale_tril")

    def _statistics(self, x: Any) -> Any:
        outer = x[..., :, None] * x[..., None, :]
        return jnp.concatenate([x, outer.reshape(*x.shape[:-1], -1)], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        precision = _inverse(arguments["scale_tril"])
        loc = arguments["loc"]
        return _joined((precision @ loc[..., None])[..., 0], -0.5 * precision)

    def _log_normaliser(self, eta: Any) -> Any:
        linear, square = self._parts(eta)
        root = jnp.linalg.cholesky(-2 * square)
        scaled = lax.linalg.triangular_solve(root, linear[..., None], left_side=True, lower=True)
        return 0.5 * jnp.sum(scaled**2, axis=(-2, -1)) - _log_diagonal(root)

    def _log_base(self, x: Any) -> Any:
        return jnp.full_like(x[..., 0], -0.5 * self.size * LOG_TWO_PI)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        loc, square = self._parts(mean)
        return {"loc": loc, "scale_tril": jnp.linalg.cholesky(square - loc[..., :, None] * loc[..., None, :])}

    def _parts(self, flat: Any) -> tuple[Any, Any]:
        d = self.size
        return flat[..., :d], flat[..., d:].reshape(*flat.shape[:-1], d, d)


class Poisson(Family):
    parameters = ("rate",)

    def _statistics(self, x: Any) -> Any:
        return x[..., None]

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return jnp.log(arguments["rate"])[..., None]

    def _log_normaliser(self, eta: Any) -> Any:
        return jnp.exp(eta[..., 0])

    def _log_base(self, x: Any) -> Any:
        return -gammaln(x + 1)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return {"rate": mean[..., 0]}


class Exponential(Family):
    parameters = ("rate",)

    def _statistics(self, x: Any) -> Any:
        return x[..., None]

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return -arguments["rate"][..., None]

    def _log_normaliser(self, eta: Any) -> Any:
        return -jnp.log(-eta[..., 0])

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return {"rate": 1 / mean[..., 0]}


class Geometric(Family):
    """Failures before the first success."""

    def _statistics(self, x: Any) -> Any:
        return x[..., None]

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return -jax.nn.softplus(_logits(arguments))[..., None]

    def _log_normaliser(self, eta: Any) -> Any:
        return -jnp.log(-jnp.expm1(eta[..., 0]))

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        probs = 1 / (1 + mean[..., 0])
        return {"probs": probs, "logits": _logits({"probs": probs})}


class Binomial(Family):
    def _statistics(self, x: Any) -> Any:
        return x[..., None]

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return _logits(arguments)[..., None]

    def _log_normaliser(self, eta: Any) -> Any:
        return self._trials * jax.nn.softplus(eta[..., 0])

    def _log_base(self, x: Any) -> Any:
        n = self._trials
        return gammaln(n + 1.0) - gammaln(x + 1) - gammaln(n - x + 1)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        probs = mean[..., 0] / self._trials
        return {"probs": probs, "logits": _logits({"probs": probs})}

    @property
    def _trials(self) -> Any:
        return jnp.asarray(self.known.get("total_count", 1))


class Bernoulli(Binomial):
    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)


class Multinomial(Family):
    """T = the counts; eta = the log probabilities, one more than there have to be."""

    def _statistics(self, x: Any) -> Any:
        return x

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        logits = arguments["logits"] if "logits" in arguments else jnp.log(clamp_probs(arguments["probs"]))
        return jax.nn.log_softmax(logits)

    def _log_normaliser(self, eta: Any) -> Any:
        return jnp.asarray(self.known.get("total_count", 1)) * jax.nn.logsumexp(eta, axis=-1)

    def _log_base(self, x: Any) -> Any:
        return gammaln(jnp.asarray(self.known["total_count"]) + 1.0) - jnp.sum(gammaln(x + 1), axis=-1)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        probs = mean / jnp.sum(mean, axis=-1, keepdims=True)
        return {"probs": probs, "logits": jnp.log(clamp_probs(probs))}


class Categorical(Multinomial):
    """T = one bit a category."""

    def _statistics(self, x: Any) -> Any:
        return (x[..., None] == jnp.arange(self.size)).astype(x.dtype)

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)


# ---- families whose fit is a root in one unknown -----------------------------------------------------------------


class Gamma(Family):
    """T = (log x, x), eta = (concentration - 1, -rate)."""

    parameters = ("concentration", "rate")

    def _statistics(self, x: Any) -> Any:
        return jnp.stack([jnp.log(x), x], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return jnp.stack([arguments["concentration"] - 1, -arguments["rate"]], -1)

    def _log_normaliser(self, eta: Any) -> Any:
        a = eta[..., 0] + 1
        return gammaln(a) - a * jnp.log(-eta[..., 1])

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        """The concentration a solves log a - digamma(a) = log E x - E log x."""
        gap = jnp.log(mean[..., 1]) - mean[..., 0]
        a = root(lambda a: jnp.log(log_minus_digamma(a)) - _log_positive(gap), gap)
        return {"concentration": a, "rate": a / mean[..., 1]}


class InverseGamma(Gamma):
    """T = (log x, 1 / x), eta = (-concentration - 1, -rate): the gamma family of 1 / x."""

    def _statistics(self, x: Any) -> Any:
        return jnp.stack([jnp.log(x), 1 / x], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return jnp.stack([-arguments["concentration"] - 1, -arguments["rate"]], -1)

    def _log_normaliser(self, eta: Any) -> Any:
        return super()._log_normaliser(eta * jnp.array([-1, 1]) - jnp.array([2, 0]))

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return super()._fitted(mean * jnp.array([-1, 1]))


class Dirichlet(Family):
    """T = log x, eta = concentration - 1."""

    parameters = ("concentration",)

    def _statistics(self, x: Any) -> Any:
        return jnp.log(x)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return arguments["concentration"] - 1

    def _log_normaliser(self, eta: Any) -> Any:
        return jnp.sum(gammaln(eta + 1), axis=-1) - gammaln(jnp.sum(eta + 1, axis=-1))

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x[..., 0])

    def _fitted(self, mean: Any) -> dict[str, Any]:
        return {"concentration": _concentrations(mean)}


class Beta(Family):
    """T = (log x, log(1 - x)), eta = (concentration1, concentration0) - 1."""

    parameters = ("concentration1", "concentration0")

    def _statistics(self, x: Any) -> Any:
        return jnp.stack([jnp.log(x), jnp.log1p(-x)], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return jnp.stack([arguments["concentration1"] - 1, arguments["concentration0"] - 1], -1)

    def _log_normaliser(self, eta: Any) -> Any:
        return jnp.sum(gammaln(eta + 1), axis=-1) - gammaln(jnp.sum(eta + 1, axis=-1))

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        found = _concentrations(mean)
        return {"concentration1": found[..., 0], "concentration0": found[..., 1]}


class Wishart(Family):
    """T = (log det X, X row by row), eta = ((concentration - d - 1) / 2, -V^-1 / 2), V = L L' the scale matrix."""

    parameters = ("concentration", "scale_tril")

    def _statistics(self, x: Any) -> Any:
        return _joined(jnp.linalg.slogdet(x)[1][..., None], x)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        concentration = 0.5 * (arguments["concentration"] - self.size - 1)
        return _joined(concentration[..., None], -0.5 * _inverse(arguments["scale_tril"]))

    def _log_normaliser(self, eta: Any) -> Any:
        half, rate = self._parts(eta)
        half = half + 0.5 * (self.size + 1)
        log_det = 2 * _log_diagonal(jnp.linalg.cholesky(-rate))
        return multigammaln(half, self.size) - half * log_det

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x[..., 0, 0])

    def _fitted(self, mean: Any) -> dict[str, Any]:
        """The concentration n solves sum_i log(n / 2) - digamma((n - i) / 2) = log det E X - E log det X, i = 0 ... d - 1."""
        log_det, matrix = self._parts(mean)
        root_of_mean, lags = jnp.linalg.cholesky(matrix), jnp.arange(self.size)
        gap = 2 * _log_diagonal(root_of_mean) - log_det

        def spread(excess: Any) -> Any:  # of n above d - 1
            halves = 0.5 * (excess[..., None] + self.size - 1 - lags)
            whole = 0.5 * (excess + self.size - 1)[..., None]
            return jnp.sum(log_minus_digamma(halves) - jnp.log1p(-0.5 * lags / whole), axis=-1)

        n = root(lambda excess: jnp.log(spread(excess)) - _log_positive(gap), gap) + self.size - 1
        return {"concentration": n, "scale_tril": root_of_mean / jnp.sqrt(n)[..., None, None]}

    def _parts(self, flat: Any) -> tuple[Any, Any]:
        return flat[..., 0], flat[..., 1:].reshape(*flat.shape[:-1], self.size, self.size)


class VonMises(Family):
    """T = (cos x, sin x), eta = concentration (cos loc, sin loc)."""

    parameters = ("loc", "concentration")

    def _statistics(self, x: Any) -> Any:
        return jnp.stack([jnp.cos(x), jnp.sin(x)], -1)

    def _natural(self, arguments: Mapping[str, Any]) -> Any:
        return arguments["concentration"][..., None] * self._statistics(arguments["loc"])

    def _log_normaliser(self, eta: Any) -> Any:
        square = jnp.sum(eta**2, axis=-1)
        length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        return jnp.where(square > 0, jnp.log(i0e(length)) + length, 0.25 * square)

    def _log_base(self, x: Any) -> Any:
        return jnp.full_like(x, -LOG_TWO_PI)

    def _fitted(self, mean: Any) -> dict[str, Any]:
        """The concentration k solves I1(k) / I0(k) = |E T|."""
        length = jnp.sqrt(jnp.sum(mean**2, axis=-1))
        odds = jnp.log(length) - _log_positive(1 - length)
        k = root(lambda k: odds - jnp.log(i1e(k)) + jnp.log(i0e(k) - i1e(k)), odds)
        return {"loc": jnp.arctan2(mean[..., 1], mean[..., 0]), "concentration": k}


# ---- parts -------------------------------------------------------------------------------------------------------


def _concentrations(mean: Any) -> Any:
    """Concentrations a (..., k) of a Dirichlet with E log x_k = digamma(a_k) - digamma(sum a) = mean_k.

    For a given sum each follows by the inverse of digamma, and the sum is a root in one unknown.
    """

    def parts(total: Any) -> Any:
        return inverse_psi(psi(total)[..., None] + mean)

    total = root(lambda total: jnp.log(jnp.sum(parts(total), axis=-1)) - jnp.log(total), mean[..., 0])
    return parts(total)


def _log_positive(x: Any) -> Any:
    """log x, of the smallest number where rounding has left nothing above zero."""
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def _logits(arguments: Mapping[str, Any]) -> Any:
    if "logits" in arguments:
        return arguments["logits"]
    probs = clamp_probs(arguments["probs"])
    return jnp.log(probs) - jnp.log1p(-probs)


def _inverse(scale_tril: Any) -> Any:
    """(L L')^-1 (..., d, d)."""
    identity = jnp.broadcast_to(jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype), scale_tril.shape)
    half = lax.linalg.triangular_solve(scale_tril, identity, left_side=True, lower=True)
    return jnp.swapaxes(half, -1, -2) @ half


def _log_diagonal(matrix: Any) -> Any:
    return jnp.sum(jnp.log(jnp.diagonal(matrix, axis1=-2, axis2=-1)), axis=-1)


def _joined(vector: Any, matrix: Any) -> Any:
    return jnp.concatenate([vector, matrix.reshape(*matrix.shape[:-2], -1)], -1)


FAMILIES: dict[str, type[Family]] = {
    "normal": Normal,
    "lognormal": LogNormal,
    "halfnormal": HalfNormal,
    "multivariate_normal": MultivariateNormal,
    "exponential": Exponential,
    "gamma": Gamma,
    "inverse_gamma": InverseGamma,
    "beta": Beta,
    "dirichlet": Dirichlet,
    "wishart": Wishart,
    "von_mises": VonMises,
    "bernoulli": Bernoulli,
    "binomial": Binomial,
    "geometric": Geometric,
    "poisson": Poisson,
    "categorical": Categorical,
    "multinomial": Multinomial,
}

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
