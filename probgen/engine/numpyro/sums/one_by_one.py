"""Densities with a Fourier transform, at many points one after the other.

XLA's runtime for CPUs (jaxlib 0.10) stops at a transform of many rows whose layout in memory it has chosen itself (a failed check
of FftThunk's input layout): what is vectorised over points meets that, a transform of one point does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import sequential_vmap
from jax.extend.core import ClosedJaxpr, Jaxpr


def transforms(jaxpr: Any) -> bool:
    """Whether a jaxpr, or one inside of it, has a Fourier transform."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return any(
        equation.primitive.name == "fft" or any(map(transforms, _inside(equation.params.values())))
        for equation in jaxpr.eqns
    )


def in_densities(trace: Any) -> bool:
    """Whether the density of a site has one: of NumPyro's `CirculantNormal`, or of a distribution that is not NumPyro's."""
    for site in trace.values():
        if site["type"] == "sample" and any(map(_may_transform, _parts(site["fn"]))):
            with contextlib.suppress(Exception):  # a density that fails here says so where it is needed
                if transforms(jax.make_jaxpr(site["fn"].log_prob)(site["value"])):
                    return True
    return False


def _parts(fn: Any) -> list[Any]:
    """A distribution, those that it is made of, and its transforms."""
    base = getattr(fn, "base_dist", None)
    return [fn, *getattr(fn, "transforms", ()), *(_parts(base) if base is not None else ())]


def _may_transform(part: Any) -> bool:
    return "Circulant" in type(part).__name__ or type(part).__module__.partition(".")[0] != "numpyro"


def _inside(values: Any) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, ClosedJaxpr | Jaxpr):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _inside(value)
    return found


Density = Callable[[Any, Any], Any]  # of data and a point


def log_density(f: Density, arrays: Any, z: Any) -> Any:
    """f at z (dim,), with a gradient; of many points under `jax.vmap` one after the other."""

    @jax.custom_vjp
    def value(arrays: Any, z: Any) -> Any:
        return sequential_vmap(lambda arrays, z: f(arrays, z))(arrays, z)

    def forward(arrays: Any, z: Any) -> tuple[Any, Any]:
        return value_and_grad(f, arrays, z)

    value.defvjp(forward, lambda gradient, cotangent: (None, gradient * cotangent))
    return value(arrays, z)


def value_and_grad(f: Density, arrays: Any, z: Any) -> tuple[Any, Any]:
    """f and its gradient at z (dim,); of many points one after the other."""
    return sequential_vmap(lambda arrays, z: jax.value_and_grad(lambda z: f(arrays, z))(z))(arrays, z)
