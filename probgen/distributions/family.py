"""What a family of distributions is: sufficient statistics and how parameters follow from their means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions.util import clamp_probs

from probgen.distributions.special import inverse_psi, psi, root

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

    name: ClassVar[str]  # "normal", "gamma", ...
    parameters: ClassVar[tuple[str, ...]] = ()

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


def unwrapped(d: Any) -> Any:
    """The distribution within `to_event`, `expand` and `mask`-free wrappers."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d
