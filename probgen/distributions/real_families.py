"""Families of real numbers, vectors, matrices and angles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln, i0e, i1e, multigammaln

from probgen.distributions.family import (
    LOG_TWO_PI,
    Family,
    _concentrations,
    _inverse,
    _joined,
    _log_diagonal,
    _log_positive,
)
from probgen.distributions.special import log_minus_digamma, root


class Normal(Family):
    name = "normal"

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
    name = "lognormal"

    def _statistics(self, x: Any) -> Any:
        return super()._statistics(jnp.log(x))

    def _log_base(self, x: Any) -> Any:
        return -jnp.log(x) - 0.5 * LOG_TWO_PI


class HalfNormal(Family):
    name = "halfnormal"

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

    name = "multivariate_normal"

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


class Exponential(Family):
    name = "exponential"

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


class Gamma(Family):
    """T = (log x, x), eta = (concentration - 1, -rate)."""

    name = "gamma"

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

    name = "inverse_gamma"

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

    name = "dirichlet"

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

    name = "beta"

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

    name = "wishart"

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

    name = "von_mises"

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
