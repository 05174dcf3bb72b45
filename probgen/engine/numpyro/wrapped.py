"""NumPyro distributions within others that only say their shape or mask them: what is innermost, and changes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution

WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)
WHOLES = (
    dist.MixtureSameFamily, dist.MixtureGeneral, dist.ZeroInflatedProbs, dist.HurdleProbs,
    dist.LeftCensoredDistribution, dist.RightCensoredDistribution, dist.IntervalCensoredDistribution,
    dist.LeftTruncatedDistribution, dist.RightTruncatedDistribution, dist.TwoSidedTruncatedDistribution,
)  # fmt: skip
PARTS = ("base_dist", "_component_distribution", "_component_distributions")


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


def with_parts(fn: Any, change: Callable[[Any], Any]) -> Any:
    """A mixture, or a distribution of another one's tails or counts, with what it is made of changed; others as they are."""
    if not isinstance(fn, WHOLES):
        return fn
    own = {k: v for k in PARTS if (v := vars(fn).get(k)) is not None}
    fn = copy.copy(fn)
    vars(fn).update({k: [*map(change, v)] if isinstance(v, list | tuple) else change(v) for k, v in own.items()})
    return fn


def as_kind(fn: Any, kind: type) -> Any:
    """The same distribution as one of another class, which has the same attributes."""
    fn = copy.copy(fn)
    fn.__class__ = kind
    return fn
