"""Families of counts and categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from numpyro.distributions.util import clamp_probs

from probgen.distributions.family import Family, _logits


class Poisson(Family):
    name = "poisson"

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


class Geometric(Family):
    """Failures before the first success."""

    name = "geometric"

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
    name = "binomial"

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
    name = "bernoulli"

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)


class Multinomial(Family):
    """T = the counts; eta = the log probabilities, one more than there have to be."""

    name = "multinomial"

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

    name = "categorical"

    def _statistics(self, x: Any) -> Any:
        return (x[..., None] == jnp.arange(self.size)).astype(x.dtype)

    def _log_base(self, x: Any) -> Any:
        return jnp.zeros_like(x)
