"""Versions that a result depends on."""

from __future__ import annotations

import contextlib
import functools


@functools.cache
def own() -> str:
    """The version of probgen itself."""
    from importlib.metadata import version

    return version("probgen")


def versions() -> dict[str, str]:
    """Versions of probgen, Python and the packages that a result depends on, as this process found them first."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    """The same; reading them takes a twentieth of a fit of eight schools."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("probgen", "jax", "numpyro", "torch", "pyro-ppl", "numpy", "arviz-stats"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
