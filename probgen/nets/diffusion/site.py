"""The distribution of a point whose denoiser, or velocity, is known: noise that the probability flow moves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import AffineTransform

from probgen.nets.diffusion.denoiser import Denoiser
from probgen.nets.diffusion.flow import ContinuousFlow, ProbabilityFlow, Solver
from probgen.nets.flows import fitting


def diffused(
    denoiser: Denoiser, shape: tuple[int, ...], centre: Any = 0.0, spread: Any = 1.0, solver: Solver | None = None
) -> Distribution:
    """x = centre + spread y, y where the probability flow of a denoiser takes noise: events of a shape.

    The noise is N(0, alpha(1)^2 + sigma(1)^2), right for y of variance one. centre, spread: numbers, or arrays that fill up to the
    shape, such as (1, *shape). Raises ValueError for a denoiser whose x is of another shape.
    """
    if (found := jax.eval_shape(lambda: denoiser(jnp.zeros(shape), jnp.asarray(0.5)).mean).shape) != shape:
        raise ValueError(f"The denoiser of points of shape {shape} says points of shape {found}.")
    flow = ContinuousFlow(ProbabilityFlow(denoiser), shape, solver=solver or Solver())
    noise = dist.Normal(0, end_scale(denoiser)).expand(shape).to_event(len(shape))
    to = lambda value: jnp.broadcast_to(fitting(value, shape), shape)  # noqa: E731
    units = AffineTransform(to(centre), to(spread))
    return dist.TransformedDistribution(noise, [flow, units])


def end_scale(denoiser: Denoiser, spread: Any = 1.0) -> Any:
    """The standard deviation of z_1: ()."""
    alpha, sigma = denoiser.schedule.scales(jnp.ones(()))
    return jnp.sqrt((alpha * spread) ** 2 + sigma**2)
