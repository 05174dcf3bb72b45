"""Pyro distributions at the edges of their supports: the twin of NumPyro's `edges`, which says what is changed and why."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import Transform, constraints
from torch.distributions.transforms import IndependentTransform

from probgen.engine.pyro.programs import counts

OBSERVED, UNOBSERVED = "_observed", "_unobserved"  # endings of the two sites that Pyro makes of one with obs_mask
RADIAL = 0.25  # sd of the log radius of the point behind an angle
ANGLES = ("VonMises", "SineBivariateVonMises", "SineSkewed")  # their supports say "real"
WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)
WHOLES = (*WRAPPERS, dist.ZeroInflatedDistribution, dist.MixtureSameFamily, dist.MaskedMixture)
PARTS = ("base_dist", "_mixture_distribution", "_component_distribution", "component0", "component1")


class Angle(Transform):
    """The angle of a point of the plane, whose log radius is normal around 0: (..., 2) -> (...)."""

    domain = constraints.real_vector
    codomain = constraints.real
    bijective = True

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return torch.atan2(x[..., 1], x[..., 0])

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.cos(y), torch.sin(y)], -1)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """log h(r) - log r, with h the density of the radius."""
        log_r = 0.5 * torch.log((x**2).sum(-1))
        return -0.5 * (log_r / RADIAL) ** 2 - 2 * log_r - math.log(RADIAL * math.sqrt(2 * math.pi))

    def forward_shape(self, shape: Any) -> Any:
        return shape[:-1]

    def inverse_shape(self, shape: Any) -> Any:
        return torch.Size((*shape, 2))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Angle)


def is_angle(fn: Any) -> bool:
    """Whether a distribution is one of angles."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return type(fn).__name__ in ANGLES


def to_angles(fn: Any) -> Transform:
    """The map from the plane to the support of a distribution of angles."""
    return IndependentTransform(Angle(), fn.event_dim) if fn.event_dim else Angle()


class Edges(Messenger):
    """Distributions that can be differentiated at their edges, and observations with all axes of their site."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["fn"] = _edged(msg["fn"])
        if msg["is_observed"] and isinstance(msg["value"], torch.Tensor) and not msg["infer"].get("_deterministic"):
            msg["value"] = _filled_up(msg["value"], msg["fn"])


def _filled_up(value: torch.Tensor, fn: Any) -> torch.Tensor:
    """Values (3,) of a distribution of shape (1, 3) as (1, 3), which broadcasting means; all others as they are."""
    shape, own = tuple(fn.shape()) if hasattr(fn, "batch_shape") else (), tuple(value.shape)
    extra = len(shape) - len(own)
    if extra > 0 and shape[extra:] == own and set(shape[:extra]) == {1}:
        return value.reshape(shape)
    return value


def is_point(node: Any) -> bool:
    """Whether a site only names a computed value: an unobserved Delta, or what a reparametrisation puts in a site's place."""
    fn, masked = node["fn"], False
    while isinstance(fn, WRAPPERS):
        masked |= isinstance(fn, dist.MaskedDistribution) and fn._mask is False
        fn = fn.base_dist
    if not isinstance(fn, dist.Delta):
        return False
    return not node["is_observed"] or masked or fn.v is node["value"]


def is_filler(msg: Any) -> bool:
    """Whether a site is an unknown that `obs_mask` made, of entries of which some are observed."""
    return msg["name"].endswith(UNOBSERVED) and isinstance(msg["mask"], torch.Tensor) and not msg["is_observed"]


def missing(msg: Any) -> torch.Tensor:
    """Where the entries of such a site are unknown, broadcastable to its value."""
    return msg["mask"].reshape(msg["mask"].shape + (1,) * msg["fn"].event_dim)


def filled(msg: Any, u: torch.Tensor, jacobian: torch.Tensor) -> torch.Tensor:
    """The log-Jacobian where entries are unknown, N(0, 1) of the unconstrained value u where they are observed."""
    normal = -0.5 * (u**2 + math.log(2 * math.pi))
    extra = normal.dim() - (msg["fn"].batch_shape.__len__())
    normal = normal.flatten(normal.dim() - extra).sum(-1) if extra > 0 else normal
    return torch.where(
        msg["mask"], jacobian.expand(normal.shape) if jacobian.dim() <= normal.dim() else jacobian, normal
    )


def _edged(fn: Any) -> Any:
    """The distribution with those that it is made of written as their edges need it; itself where nothing is to be changed."""
    if isinstance(fn, WHOLES):
        own = {k: vars(fn)[k] for k in PARTS if k in vars(fn)}
        parts = {k: _edged(v) for k, v in own.items()}
        if any(parts[k] is not v for k, v in own.items()):
            fn = copy.copy(fn)
            vars(fn).update(parts)
    if type(fn) is dist.Poisson and not fn.is_sparse:
        fn = copy.copy(fn)
        fn.__class__ = _Poisson
    return counts.exact(fn)


class _Poisson(dist.Poisson):
    """log p(0) = -rate has slope -1 at every rate, 0 too."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        none = value == 0
        rate = torch.where(none, torch.ones_like(self.rate), self.rate)
        return torch.where(none, -self.rate, value * rate.log() - rate - (value + 1).lgamma())


_Poisson.__name__ = "Poisson"
