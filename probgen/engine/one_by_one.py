"""Densities with a Fourier transform, at many points one after the other.

XLA's runtime for CPUs (jaxlib 0.10) stops at a transform of many rows whose layout in memory it has chosen itself (a failed check
of FftThunk's input layout): what is vectorised over points meets that, a transform of one point does not.
"""

from __future__ import annotations

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
