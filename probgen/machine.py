"""The machine: how many cores this process may use, and whether JAX has something else than a CPU."""

from __future__ import annotations

import os


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator() -> bool:
    """Whether JAX runs on something else than the CPU."""
    import jax

    return jax.default_backend() != "cpu"
