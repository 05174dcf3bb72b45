"""NumPyro distributions within others that only say their shape or mask them: what is innermost, and changes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution

WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)


def innermost(fn: Any) -> Any:
    """A distribution without what only says its shape, or masks it."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def changed(fn: Any, change: Callable[[Any], Any]) -> Any:
    """The distribution with the innermost one changed; itself where the change gives the same one back."""
    if not isinstance(fn, WRAPPERS):
        return change(fn)
    inner = changed(fn.base_dist, change)
    if inner is fn.base_dist:
        return fn
    fn = copy.copy(fn)
    fn.base_dist = inner
    return fn


def as_kind(fn: Any, kind: type) -> Any:
    """The same distribution as one of another class, which has the same attributes."""
    fn = copy.copy(fn)
    fn.__class__ = kind
    return fn
