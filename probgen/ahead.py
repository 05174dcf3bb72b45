"""What a process will need later, loaded in a thread while it waits for XLA, which leaves Python free."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading

LATER = ("arviz_stats",)  # a second of a first verdict


@functools.cache
def load() -> None:
    """Begin to load it, once a process; an import that fails is told where it is asked for."""
    threading.Thread(target=_load, daemon=True, name="probgen-ahead").start()


def _load() -> None:
    for name in LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
