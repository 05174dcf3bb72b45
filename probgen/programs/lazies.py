"""What defines an instance, without what its library fills in when it is asked: lazy attributes, inverses, values kept."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import weakref
from typing import Any

import numpy as np

_LAZY = ("numpyro.distributions.util", "torch.distributions.utils")  # where `lazy_property` is

_filled: dict[
    int, tuple[Any, dict[str, Any]]
] = {}  # by identity: lazy values as they were first seen; None for a user's


def defining(value: Any) -> dict[str, Any]:
    """The attributes of an instance that its user chose.

    NumPyro and torch compute some attributes of a distribution on first use, such as the logits of probabilities, and keep them
    beside its arguments; transforms keep their inverse, and what they computed last. A lazy attribute that
    the constructor was given stays, and so does one that is not what the library computes: that one was assigned.
    """
    attributes = getattr(value, "__dict__", {})
    lazy, transform = _kind(type(value))
    if transform:
        own = "" if type(value).__name__ == "_InverseTransform" else "_inv"  # that one holds what it inverts
        attributes = {k: v for k, v in attributes.items() if k != own and not k.startswith(("_cached_", "_cache_log"))}
    late = [name for name in _after_constructor(attributes) if name in lazy] if lazy else []
    if not late:
        return attributes
    computed = {name for name in late if _computed(value, name, late)}
    return {k: v for k, v in attributes.items() if k not in computed}


@functools.cache
def _kind(kind: type) -> tuple[frozenset[str], bool]:
    """The names of a class's lazy attributes, and whether it is a transform."""
    if not any(base.__module__.partition(".")[0] in ("numpyro", "torch") for base in kind.__mro__):
        return frozenset(), False
    names = {name for base in kind.__mro__ for name in vars(base)}
    transform = any(
        base.__name__ == "Transform" and base.__module__.endswith("distributions.transforms") for base in kind.__mro__
    )
    return frozenset(name for name in names if _is_lazy(inspect.getattr_static(kind, name, None))), transform


def _is_lazy(part: Any) -> bool:
    return type(part).__module__ in _LAZY and type(part).__name__ == "lazy_property"


def _after_constructor(attributes: dict[str, Any]) -> list[str]:
    """Names that came after the shape, which the constructor of every distribution sets after its arguments."""
    names = list(attributes)
    return names[names.index("_event_shape") + 1 :] if "_event_shape" in attributes else names


def _computed(value: Any, name: str, late: list[str]) -> bool:
    """Whether a lazy attribute is what the library computes of the others; it is computed again once, when first seen."""
    key, now = id(value), value.__dict__[name]
    kept = _filled.get(key)
    if kept is None or kept[0]() is not value:
        kept = _filled[key] = (weakref.ref(value, lambda _: _filled.pop(key, None)), {})
    if name not in kept[1]:
        kept[1][name] = copy.deepcopy(now) if _alike(now, _again(value, name, late)) else None
    first = kept[1][name]
    return first is not None and _alike(now, first)


def _again(value: Any, name: str, late: list[str]) -> Any:
    """A lazy attribute computed anew; None where that fails, as where two follow from each other."""
    bare = object.__new__(type(value))
    bare.__dict__.update({k: v for k, v in value.__dict__.items() if k not in late})
    jax = sys.modules.get("jax")
    with contextlib.suppress(Exception), jax.ensure_compile_time_eval() if jax else contextlib.nullcontext():
        return getattr(bare, name)
    return None


def _alike(a: Any, b: Any) -> bool:
    """Whether two arrays, or distributions of arrays, are the same but for rounding, in either precision."""
    if a is None or b is None:
        return False
    if hasattr(a, "_event_shape") and type(a) is type(b):
        one, other = defining(a), defining(b)
        return one.keys() == other.keys() and all(_alike(v, other[k]) or v is other[k] for k, v in one.items())
    with contextlib.suppress(Exception):
        one, other = (np.asarray(x.detach().cpu() if hasattr(x, "detach") else x) for x in (a, b))
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True))
    return False
