"""Device, precision, cores and the compile cache: the only place that sets them, and only for the time of a call.

But for the order of XLA's operations on a CPU, which is read once a process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Two batched LAPACK calls that XLA's CPU client runs at once wait for free threads of the pool that they occupy: with few threads
# they can wait for ever. So it runs one operation after the other, each on all threads; releases that lack the flag would
# stop at it, and get more threads, which costs a third of the speed of matrix products.
if cores() < 8 and "xla_cpu_scheduler_type" not in os.environ.get("XLA_FLAGS", ""):
    if version("jaxlib").startswith("0.10."):
        one_by_one = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one_by_one}".strip()
    else:
        os.environ.setdefault("NPROC", "8")


def accelerator() -> bool:
    """Whether JAX runs on something else than the CPU."""
    import jax

    return jax.default_backend() != "cpu"


def spread(count: int) -> Any:
    """How arrays with a leading axis of `count` chains lie on all devices, evenly, as a JAX sharding.

    None where there is one device, or where the chains do not divide among them.
    """
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.devices()
    if len(devices) == 1 or count % len(devices):
        return None
    return NamedSharding(Mesh(devices, ("chain",)), PartitionSpec("chain"))


def cache_dir() -> Path:
    """Where compiled code is kept between processes: $PROBGEN_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PROBGEN_CACHE") or Path(base) / "probgen")


@contextlib.contextmanager
def jax_scope(precision: str) -> Iterator[None]:
    """JAX in the given precision ("float32" or "float64"), in this thread, for the time of the block."""
    import jax

    with jax.enable_x64(precision == "float64"):
        yield


@contextlib.contextmanager
def compile_cache() -> Iterator[None]:
    """JAX's persistent compilation cache in `cache_dir()`, unless the user has set one; flags restored afterwards."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    flags = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {flag: getattr(jax.config, flag) for flag in flags}
    if before["jax_compilation_cache_dir"] or os.environ.get("PROBGEN_CACHE") == "":
        yield
        return
    try:
        for flag, value in zip(flags, (str(cache_dir()), 0.0, -1), strict=True):
            jax.config.update(flag, value)
        compilation_cache.reset_cache()
        yield
    finally:
        for flag, value in before.items():
            jax.config.update(flag, value)
        compilation_cache.reset_cache()


@contextlib.contextmanager
def no_compile_cache() -> Iterator[None]:
    """No persistent compilation cache: what comes out of it cannot be written down a second time."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
