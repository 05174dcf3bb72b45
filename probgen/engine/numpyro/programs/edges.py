"""NumPyro distributions at the edges of their supports, where gradients or geometry fail though the density is fine.

Six cases, each an exact change of how the same density is written:

- a count of 0 at a rate of 0 (an exposure of 0) has log probability 0, but a gradient of 0 / 0;
- an angle has no ends: unknown angles come from a point of the plane, not from an interval whose ends are far apart;
- `obs_mask` makes an unknown of every entry, also of those that are observed, where its density is flat and has no mass:
  there it gets N(0, 1) in unconstrained space, on which nothing else depends, and shows what is observed;
- the tails that censored rows weigh, and that truncated densities are divided by, keep their digits however far out (`tails`);
- probabilities of 0 and 1 are what they say, not clipped (`counts`);
- a multivariate normal is differentiated in closed form, which takes five sixths to a sixth of the time.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import sum_rightmost
from numpyro.primitives import Messenger

from probgen.distributions.normal import OfMatrix
from probgen.engine.numpyro.events import counts, tails
from probgen.engine.numpyro.events.poisson import Poisson
from probgen.engine.numpyro.wrapped import as_kind, changed, with_parts
from probgen.machine import accelerator

OBSERVED, UNOBSERVED = "_observed", "_unobserved"  # endings of the two sites that NumPyro makes of one with obs_mask
RADIAL = 0.25  # sd of the log radius of the point behind an angle


_Circular: Any = type(constraints.circular)


class _OnCircle(_Circular):
    """Angles between -pi and pi, of which both ends are one point."""


on_circle = _OnCircle()


class Angle(Transform):
    """The angle of a point of the plane: (..., 2) -> (...).

    Radius and angle are independent, and log r is normal around 0, so that no point comes near the centre, where a known
    angle is a wedge without width: with that density h of the radius, p(angle) h(r) / r dz = p(angle) d(angle) h(r) dr.
    """

    domain: Any = constraints.real_vector
    codomain: Any = on_circle

    def __call__(self, x: Any) -> Any:
        return jnp.arctan2(x[..., 1], x[..., 0])

    def _inverse(self, y: Any) -> Any:
        return jnp.stack([jnp.cos(y), jnp.sin(y)], axis=-1)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        log_r = 0.5 * jnp.log(jnp.sum(x**2, axis=-1))
        return -0.5 * (log_r / RADIAL) ** 2 - 2 * log_r - jnp.log(RADIAL * jnp.sqrt(2 * jnp.pi))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:-1]

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, 2)

    def tree_flatten(self) -> Any:
        return (), ((), {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Angle)


@biject_to.register(_OnCircle)
def _(constraint: Any) -> Angle:
    return Angle()


def is_angle(support: Any) -> bool:
    """Whether a support is the circle, or a product of circles."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.circular or isinstance(support, _OnCircle)


class Edges(Messenger):
    """Effect handler: distributions as they can be sampled and differentiated at their edges."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and isinstance(msg["fn"], dist.Distribution):
            msg["fn"] = _edged(msg["fn"], not msg["is_observed"])
            if not msg["is_observed"] and _is_filler(msg):
                msg["fn"] = Filled(msg["fn"].base_dist, msg["fn"]._mask)


class Shown(Messenger):
    """Effect handler, outside of what gives values: unknowns of observed entries show what is observed."""

    def __init__(self, fn: Any) -> None:
        super().__init__(fn)
        self.observed: dict[str, Any] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if msg["is_observed"] and msg["name"].endswith(OBSERVED):
            self.observed[msg["name"].removesuffix(OBSERVED)] = msg["value"]
        elif isinstance(msg["fn"], Filled) and msg["value"] is not None:
            known = self.observed.get(msg["name"].removesuffix(UNOBSERVED))
            if known is not None:
                msg["value"] = jnp.where(msg["fn"].missing(msg["value"]), msg["value"], known)


def _is_filler(msg: dict[str, Any]) -> bool:
    fn = msg["fn"]
    return (
        msg["name"].endswith(UNOBSERVED)
        and isinstance(fn, dist.MaskedDistribution)
        and not isinstance(fn, Filled)
        and not isinstance(fn._mask, bool)
        and not fn.support.is_discrete
    )


class Filled(dist.MaskedDistribution):
    """A masked distribution that is not flat where it is masked, but N(0, 1) in unconstrained space."""

    def missing(self, value: Any) -> Any:
        """Where entries are unknown, broadcastable to the value."""
        return jnp.reshape(self._mask, jnp.shape(self._mask) + (1,) * self.event_dim)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        transform = biject_to(self.support)
        z = transform.inv(value)
        normal = sum_rightmost(-0.5 * (z**2 + jnp.log(2 * jnp.pi)), transform.domain.event_dim)
        aside = sum_rightmost(normal, jnp.ndim(normal) - jnp.ndim(value) + self.event_dim)
        return jnp.where(self._mask, self.base_dist.log_prob(value), aside)  # NumPyro masks the log-Jacobian, too


def _edged(fn: Any, latent: bool) -> Any:
    """The distribution with the innermost one written as its edge needs it; itself where nothing is to be changed."""

    def written(fn: Any) -> Any:
        fn = with_parts(fn, lambda part: _edged(part, False))
        if latent and is_angle(fn.support) and not isinstance(fn.support, _OnCircle):
            return as_kind(fn, _angular(type(fn)))
        edged = _EDGED.get(type(fn))
        return fn if edged is None or (edged is OfMatrix and accelerator()) else as_kind(fn, edged)

    return changed(fn, written)


@functools.cache
def _angular(kind: type) -> type:
    """The class with the circle as its support, under its own name."""
    support = on_circle
    if isinstance(kind.support, constraints.independent):
        support = constraints.independent(on_circle, kind.support.reinterpreted_batch_ndims)
    return type(kind.__name__, (kind,), {"support": support})


class _Multinomial(dist.MultinomialProbs):
    """A category without probability that is never seen counts nothing."""

    def log_prob(self, value: Any) -> Any:
        own: Any = self.probs
        probs = jnp.where(jnp.asarray(value) == 0, 1.0, own)
        return as_kind(_with(self, probs), dist.MultinomialProbs).log_prob(value)


def _with(fn: Any, probs: Any) -> Any:
    fn = copy.copy(fn)
    fn.probs = probs
    return fn


_Multinomial.__name__ = "MultinomialProbs"
_EDGED = {
    dist.Poisson: Poisson,
    dist.MultinomialProbs: _Multinomial,
    dist.MultivariateNormal: OfMatrix,
    **tails.KINDS,
    **counts.KINDS,
}
