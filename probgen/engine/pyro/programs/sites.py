"""What a sample site of a Pyro trace is: unknown, discrete, of which support."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Transform, biject_to

from probgen.engine.pyro.programs import edges as pyro_edges
from probgen.engine.pyro.programs.data import innermost
from probgen.engine.pyro.programs.onto import onto

FLAT = "PointMeasure"  # the measure of parameters that are learned beside unknowns, see `whole`


def is_latent(msg: Any) -> bool:
    """Whether a sample site is an unknown: neither observed, nor a plate's indices, nor a point mass."""
    return not (msg["is_observed"] or isinstance(msg["fn"], _Subsample) or isinstance(innermost(msg["fn"]), dist.Delta))


def is_discrete(fn: Any) -> bool:
    """Whether a distribution's support is countable."""
    try:
        return bool(fn.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def is_enumerable(fn: Any) -> bool:
    """Whether Pyro can list a distribution's support."""
    try:
        return bool(fn.has_enumerate_support) and fn.enumerate_support(expand=False) is not None
    except NotImplementedError:
        return False


def is_weighed(msg: Any) -> bool:
    """Whether a scale of the author's, and not that of a minibatch, counts a site's density other than once.

    One that is a tensor does, whatever its numbers: they may be data, and the same structure serves others.
    """
    scale, frames = msg["scale"], msg["cond_indep_stack"]
    sized = any(isinstance(size, torch.Tensor) for f in frames for size in (f.size, f.full_size))
    if isinstance(scale, torch.Tensor) and (scale.dim() or not sized):
        return True
    times = math.prod(float(f.full_size) / float(f.size) for f in frames if f.size and f.full_size)
    return not math.isclose(float(scale), times, rel_tol=1e-6)


def is_masked(msg: Any) -> bool:
    """Whether a mask may leave out some of a site."""
    return msg["mask"] is not None or "Masked" in type(msg["fn"]).__name__


def bijection(msg: Any) -> Transform:
    """The bijection from R^n to the support of a site; ValueError that names a site without one."""
    if pyro_edges.is_angle(msg["fn"]):
        return pyro_edges.to_angles(msg["fn"])
    if type(msg["fn"]).__name__ == FLAT:
        return onto(msg["fn"].support)
    try:
        return biject_to(msg["fn"].support)
    except NotImplementedError as error:
        raise ValueError(
            f"Site {msg['name']!r} ({type(innermost(msg['fn'])).__name__}): no bijection from R^n to its support.\n"
            "Reparametrise it, or observe it."
        ) from error
