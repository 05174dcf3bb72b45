"""Device, precision, cores and the compile cache: the only place that sets them, and only for the time of a call.

But for the order of XLA's operations on a CPU, which is read once a process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from probgen.machine import accelerator as accelerator
from probgen.machine import cores as cores

# Two batched LAPACK calls that XLA's CPU client runs at once wait for free threads of the pool that they occupy: with few threads
# they can wait for ever. So it runs one operation after the other, each on all threads; releases that lack the flag would
# stop at it, and get more threads, which costs a third of the speed of matrix products.
_FLAG = "xla_cpu_scheduler_type"


def in_a_file() -> bool:
    """Whether XLA_FLAGS names a file that XLA reads its flags from, to which none can be added."""
    return os.environ.get("XLA_FLAGS", "-").strip()[:1] not in ("", "-")


def xla_flags() -> str:
    """The flags that XLA is given, in the environment or in a file."""
    given = os.environ.get("XLA_FLAGS", "").strip()
    try:
        return Path(given).read_text() if in_a_file() else given
    except (OSError, UnicodeDecodeError):
        return given


def started() -> bool:
    """Whether JAX has begun to run in this process, which settles its devices."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def _ordered() -> bool:
    """Whether XLA runs one operation after the other in this process; asks for it where that is not too late."""
    if _FLAG in xla_flags():
        return "MEMORY_OPTIMIZED" in xla_flags()
    if not version("jaxlib").startswith("0.10."):
        if cores() < 8:
            os.environ.setdefault("NPROC", "8")
        return cores() >= 8
    late = started() or in_a_file()
    if cores() < 8 and not late:
        flag = f"--{_FLAG}=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
        os.environ["XLA_FLAGS"] = f"{xla_flags()} {flag}".strip()
    return cores() >= 8 or not late


ORDERED = _ordered()

SMALL_LOOP = 300_000  # bytes


def _join_small_loops() -> None:
    """Asks XLA for one function of a whole loop that touches few bytes; by itself it does so below 1,024 alone.

    Any other loop is run piece by piece, at some 50 ns each: a trajectory of a small posterior takes up to five times as long.
    """
    flags = xla_flags()
    if not (started() or in_a_file() or "xla_backend_extra_options" in flags):
        asked = f"--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold={SMALL_LOOP}"
        os.environ["XLA_FLAGS"] = f"{flags} {asked}".strip()


_join_small_loops()

LEVEL = "xla_backend_optimization_level"
# The emitters of fused loops that jaxlib 0.10 brought take half the time of compiling on a CPU; other releases may lack the flag.
PLAIN: dict[str, Any] = (
    {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
    if version("jaxlib").startswith("0.10.")
    else {}
)
ONCE: dict[str, Any] = {LEVEL: 1} | PLAIN  # XLA's options for code that runs for less time than it takes to compile


def spread(count: int) -> Any:
    """How arrays with a leading axis of `count` chains lie on all devices of this process, evenly, as a JAX sharding.

    None where there is one device, or where the chains do not divide among them.
    """
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        return None
    return NamedSharding(Mesh(devices, ("chain",)), PartitionSpec("chain"))


def cache_dir() -> Path:
    """Where compiled code is kept between processes: $PROBGEN_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PROBGEN_CACHE") or Path(base) / "probgen")


def keeps_code() -> bool:
    """Whether compiled code is kept between processes: not where PROBGEN_CACHE is empty, nor in the folder of another user.

    What lies there is run, so that whoever can write there can run anything as this user: the folder is closed to others.
    """
    if os.environ.get("PROBGEN_CACHE") == "":
        return False
    folder = cache_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_own(folder, writable_by_others=True):
            folder.chmod(folder.stat().st_mode & ~OTHERS)
    except OSError:
        return False
    if not is_own(folder):
        logging.getLogger("probgen").warning(
            f"{folder} is another user's: compiled code is not kept. Set PROBGEN_CACHE."
        )
        return False
    return True


OTHERS = 0o022  # the mode's bits by which others may write


def is_own(path: Path, writable_by_others: bool = False) -> bool:
    """Whether a file or folder is this user's, and one that others may not write to, unless that may be."""
    if not hasattr(os, "getuid"):  # Windows, whose user folders are closed
        return True
    found = path.stat()
    return found.st_uid == os.getuid() and (writable_by_others or not found.st_mode & OTHERS)


@contextlib.contextmanager
def in_precision(precision: str) -> Iterator[None]:
    """JAX in the given precision ("float32" or "float64"), in this thread, for the time of the block."""
    import jax

    with jax.enable_x64(precision == "float64"):
        yield


_tracing = threading.RLock()


@contextlib.contextmanager
def tracing(precision: str) -> Iterator[None]:
    """The same, in one thread at a time: NumPyro's stack of handlers is the process's, and two traces would mix."""
    with _tracing, in_precision(precision):
        yield


@contextlib.contextmanager
def jax_scope(precision: str) -> Iterator[None]:
    """`tracing`, for what is computed beside a run's chains.

    In a second thread it is computed on a pool of one thread, where LAPACK never waits; see `pools`.
    """
    import jax

    from probgen import pools

    main = threading.current_thread() is threading.main_thread()
    apart = not (main and ORDERED) and pools.possible()
    with tracing(precision), jax.default_device(pools.side()) if apart else contextlib.nullcontext():
        yield


_here = threading.local()


def one_of_several() -> bool:
    """Whether this thread fits one of several programs at once."""
    return getattr(_here, "several", False)


@contextlib.contextmanager
def several() -> Iterator[None]:
    """What this thread fits in the block is one of several fits at once, which share the cores."""
    before, _here.several = one_of_several(), True
    try:
        yield
    finally:
        _here.several = before


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
    if before["jax_compilation_cache_dir"] or not keeps_code():
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


def wide() -> bool:
    """Whether JAX is in double precision in this thread."""
    import jax

    config: Any = jax.config
    return config.jax_enable_x64


_uncached = threading.Lock()
_without: list[bool] = []  # for each block below that a thread is in, what the first of them found


@contextlib.contextmanager
def no_compile_cache() -> Iterator[None]:
    """No persistent compilation cache: what comes out of it cannot be written down a second time.

    Blocks of several threads may overlap: the first switches it off, the last restores it.
    """
    import jax

    config: Any = jax.config
    with _uncached:
        _without.append(_without[0] if _without else config.jax_enable_compilation_cache)
        _cache(False)
    try:
        yield
    finally:
        with _uncached:
            before = _without.pop()
            if not _without:
                _cache(before)


def _cache(on: bool) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", on)
    compilation_cache.reset_cache()
