"""What is sent to worker processes: the program, its data and settings, as bytes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

REMEDY = "Put it into a module that can be imported, or a file: what it reads must be there in another process."


def pickled(task: Any) -> bytes:
    """The task as bytes; TypeError for a program that cannot be sent.

    What is defined in a notebook, in __main__ or in a file that no other process could import goes as a whole.
    """
    import cloudpickle

    try:
        with _by_value(cloudpickle):
            return pickle.dumps((_wide(), cloudpickle.dumps(task)))
    except Exception as error:  # whatever an object says that cannot be pickled
        raise TypeError(
            f"The program, its data or its settings cannot be sent to worker processes: {error}.\n{REMEDY}"
        ) from error


def _wide() -> bool | None:
    """Whether JAX is in double precision here; None where it is not loaded. Arrays are read in the precision of their reader."""
    if "jax" not in sys.modules:
        return None
    from probgen import runtime

    return runtime.wide()


@contextmanager
def _by_value(cloudpickle: Any) -> Iterator[None]:
    """For the time of the block, functions of modules that another process cannot import are sent as a whole."""
    own = [m for name, m in list(sys.modules.items()) if _nowhere(name, m)]
    already = cloudpickle.list_registry_pickle_by_value()
    new = [module for module in own if module.__name__ not in already]
    for module in new:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in new:
            cloudpickle.unregister_pickle_by_value(module)


def _nowhere(name: str, module: Any) -> bool:
    """Whether a module was made of a file under a name that is no importable one, by probgen or by `runpy.run_path`."""
    return name.startswith(("probgen_file_", "<")) and getattr(module, "__name__", None) == name


def plain(data: Any) -> Any:
    """Data with JAX's arrays as NumPy's: they are read in the precision that another process has."""
    if type(data) is dict:
        return {k: plain(v) for k, v in data.items()}
    if type(data) in (list, tuple):
        each = [plain(v) for v in data]
        return each if type(data) is list else tuple(each)
    return np.asarray(data) if type(data).__module__.startswith("jaxlib") and _is_numbers(data) else data


def _is_numbers(array: Any) -> bool:
    return not str(getattr(array, "dtype", "key")).startswith("key")


def on_accelerator() -> bool:
    """Whether JAX has a plug-in for an accelerator, which is not started to ask."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return bool(importlib.metadata.entry_points(group="jax_plugins"))
