"""The machine: how many cores this process may use, and whether JAX has something else than a CPU."""

from __future__ import annotations

import os


def cores() -> int:
    """Processors that this process may use; at most PROBGEN_CORES, where that is set."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("PROBGEN_CORES", "")
    return min(found, int(asked)) if asked.isdecimal() and int(asked) else found


def accelerator() -> bool:
    """Whether JAX runs on something else than the CPU."""
    import jax

    return jax.default_backend() != "cpu"
