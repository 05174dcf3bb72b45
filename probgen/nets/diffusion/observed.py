"""Points as a denoiser sees them, and the distribution of a point about what it believes.

Reals are measured from their centre in units of their spread. Whole numbers 0 ... K - 1 lie from -1 to 1, and what is left of the
noise gives each of them the mass between half-integers.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from probgen.distributions.discretised_normal import DiscretisedMixture, DiscretisedNormal
from probgen.nets.flows import fitting
from probgen.nets.flows import measured as in_units


def measured(x: Any, whole: int = 0, centre: Any = 0.0, spread: Any = 1.0) -> Any:
    """A point as a denoiser sees it: (*event); whole: how many levels a coordinate has, 0 for reals."""
    return 2 * x / (whole - 1) - 1 if whole else in_units(x, centre, spread)


def observed(
    mean: Any, scale: Any, log_weights: Any = None, *, whole: int = 0, centre: Any = 0.0, spread: Any = 1.0
) -> Distribution:
    """The distribution of a point whose measured coordinates are normal: mean (*event), scale ().

    log_weights: (component, *event), where they are mixtures of normals; mean and scale then, too.
    """
    if log_weights is not None:
        return _mixture(mean, scale, log_weights, whole, centre, spread)
    if whole:
        half = (whole - 1) / 2
        return DiscretisedNormal(half * (1 + mean), half * scale, whole).to_event(jnp.ndim(mean))
    centre, spread = (fitting(value, jnp.shape(mean)) for value in (centre, spread))
    return dist.Normal(centre + spread * mean, spread * scale).to_event(jnp.ndim(mean))


def _mixture(mean: Any, scale: Any, log_weights: Any, whole: int, centre: Any, spread: Any) -> Distribution:
    centre, spread = (jnp.expand_dims(fitting(a, jnp.shape(mean)[1:]), -1) for a in (centre, spread))
    mean, scale, log_weights = (jnp.moveaxis(a, 0, -1) for a in (mean, scale, log_weights))
    if whole:
        half = (whole - 1) / 2
        found: Any = DiscretisedMixture(log_weights, half * (1 + mean), half * scale, whole)
    else:
        each = dist.Normal(centre + spread * mean, spread * scale)
        found = dist.MixtureSameFamily(dist.Categorical(logits=log_weights), each)
    return found.to_event(jnp.ndim(mean) - 1)
