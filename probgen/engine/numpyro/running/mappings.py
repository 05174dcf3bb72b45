"""Room for compiled code. Linux lets a process map so many pieces of memory (65,530 by default), and XLA maps three a kernel.

A fit of a new program maps about 3,000; at the limit LLVM ends the process. So compiled code is forgotten when half is used.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import jax

MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
SHARE = 0.5  # of the limit


def used() -> int:
    """Pieces of memory that this process maps; 0 where the system does not say."""
    try:
        return MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0


def limit() -> int:
    """How many it may map."""
    try:
        return int(LIMIT.read_text())
    except (OSError, ValueError):
        return 65_530


def relieve(*forget: Callable[[], None]) -> bool:
    """Drop compiled code where much is mapped: JAX's, and by `forget` what else keeps it. Code in use stays until its end."""
    if used() < SHARE * limit():
        return False
    for each in forget:
        each()
    jax.clear_caches()
    gc.collect()
    return True
