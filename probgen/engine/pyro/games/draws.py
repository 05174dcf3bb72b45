"""Draws of a Pyro program of a batch of rows as smooth functions of its parameters: what learners without a density use.

    x = f(noise, parameters)

Noise that no parameter moves may be of any kind, such as a class. What parameters move is drawn by a smooth function of them and
of noise (Pyro's `has_rsample`), or, of bits, is shown at its mean. A draw without that would lack a part of its gradient in
silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Distribution, Transform, TransformedDistribution
from torch.nn import Module

from probgen.algorithm import Incompatible
from probgen.engine import drawable
from probgen.engine.pyro.programs.data import innermost
from probgen.engine.pyro.programs.looks import FEW

MANY = 64  # rows by which gradients are judged
READS = """The program's distributions depend on the very data that they are of, so that it cannot be run forward.
Give what it is conditioned on under another name: such data are inputs of the rows."""


def are_bits(fn: Any) -> bool:
    return isinstance(innermost(fn), dist.Bernoulli)


def is_noise(msg: Any) -> bool:
    """Whether a message is of a site that is drawn, not of a plate or of what is computed."""
    return not isinstance(msg["fn"], _Subsample) and not msg["infer"].get("_deterministic")


class Drawn(Messenger):
    """Visible sites are drawn, bits shown at their means; `given` values stand for other sites' draws.

    values: of the visible sites; told: the message of every site, in order.
    """

    def __init__(self, visible: frozenset[str], given: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.visible, self.given = visible, given
        self.told: dict[str, Any] = {}

    @property
    def values(self) -> dict[str, torch.Tensor]:
        return {k: self.told[k]["value"] for k in self.visible}

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if name in self.visible:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False
            if are_bits(fn):
                msg["value"], msg["done"] = fn.mean.expand(fn.shape()), True
        if name in self.given and not msg["is_observed"]:
            msg["value"], msg["done"] = _of_shape(name, self.given[name], tuple(fn.shape())), True

    def _pyro_post_sample(self, msg: Any) -> None:
        if is_noise(msg):
            self.told[msg["name"]] = msg


def _of_shape(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(value.shape) != shape:
        raise ValueError(
            f"Site {name!r} is given a value of shape {tuple(value.shape)}; the program has {shape} there."
        )
    return value


def run(target: Any, rows: Mapping[str, Any], given: Mapping[str, torch.Tensor]) -> Drawn:
    """The program run forward for the inputs of rows, inside its scope."""
    count = len(next(iter(rows.values())))
    arrays = target.stand_ins(count) | {k: rows[k] for k in target.inputs}
    with Drawn(frozenset(v.name for v in target.visible), given) as drawn:
        target.structure.program(**{**target.structure.static, **target._named(arrays)})
    return drawn


def of_rows(target: Any, rows: Mapping[str, Any], given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The visible sites as drawn, {site: (row, *event)}, with the rows' inputs by keyword."""
    return run(target, rows, given).values | {k: rows[k] for k in target.inputs}


def check(target: Any) -> tuple[str, ...]:
    """Notes on means that stand for draws. Raises Incompatible where a draw that parameters move has no gradient, where all is an
    energy, where the program reads the rows that it draws, where nothing is random, or where parameters move nothing."""
    visible = [v.name for v in target.visible]
    begun = target.initial(0)
    leaves = {k: v.requires_grad_() for k, v in begun.items()}
    rows = target.batch(torch.arange(FEW) % target.num_rows)
    with target.running(leaves, 0), torch.enable_grad():
        sites = run(target, rows, {}).told
    notes = [note for name, msg in sites.items() for note in _judged(name, msg, name in visible)]
    if not any(not isinstance(innermost(msg["fn"]), dist.Delta) for msg in sites.values()):
        raise Incompatible(drawable.without_noise(visible))
    if target.reads_rows({k: v.detach().numpy() for k, v in begun.items()}):
        raise Incompatible(READS)
    keywords = {site: k for k, site in target.keywords.items()}
    for v in target.visible:
        if tuple(sites[v.name]["value"].shape[1:]) != v.shape:
            drawn = tuple(sites[v.name]["value"].shape[1:])
            raise Incompatible(drawable.wrong_shape(keywords[v.name], v.shape, v.name, drawn))
    return (*notes, *_moved(target, leaves, visible))


def _moved(target: Any, leaves: Mapping[str, torch.Tensor], visible: list[str]) -> tuple[str, ...]:
    """Notes on sites that no parameter moves; Incompatible where none moves any, and where gradients are zero or not finite."""
    rows, names = target.batch(torch.arange(MANY) % target.num_rows), list(leaves)
    values, slopes = {}, {}
    with target.running(leaves, 1), torch.enable_grad():
        drawn = run(target, rows, {}).values
        for site in visible:
            value = drawn[site]
            values[site], slopes[site] = (names, []) if value.requires_grad else ([], [])
            if value.requires_grad:
                found = torch.autograd.grad(
                    (value * torch.randn_like(value)).sum(),
                    [leaves[k] for k in names],
                    retain_graph=True,
                    allow_unused=True,
                )
                known = {k: g for k, g in zip(names, found, strict=True) if g is not None}
                if bad := [k for k, g in known.items() if not g.isfinite().all()]:
                    raise Incompatible(drawable.not_finite(site, bad[0]))
                slopes[site] = names if any(g.any() for g in known.values()) else []
    return drawable.moved(values, slopes, "pyro.module or pyro.param")


def _judged(name: str, msg: Any, is_visible: bool) -> tuple[str, ...]:
    """A note on one site; Incompatible where its draw has no gradient or is none."""
    fn = innermost(msg["fn"])
    if isinstance(fn, dist.Unit):
        raise Incompatible(drawable.of_energy(name))
    if msg["is_observed"]:
        raise Incompatible(drawable.OBSERVED.format(name))
    if is_visible and _weighs(msg):
        raise Incompatible(drawable.WEIGHED.format(name))
    if is_visible and are_bits(fn):
        return (drawable.MEAN.format(name),)
    if not fn.has_rsample and is_moved(fn):
        raise Incompatible(drawable.without_gradient(name, type(fn).__name__))
    return ()


def _weighs(msg: Any) -> bool:
    """Whether a site's density has a mask or a scale."""
    fn, masks = msg["fn"], [msg["mask"]]
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        masks.append(getattr(fn, "_mask", None))
        fn = fn.base_dist
    scale = msg["scale"]
    return any(m is not None and m is not True for m in masks) or isinstance(scale, torch.Tensor) or scale != 1


def is_moved(thing: Any, depth: int = 0) -> bool:
    """Whether a distribution, or another nest of tensors, depends on what is differentiated."""
    if isinstance(thing, torch.Tensor):
        return thing.requires_grad
    if isinstance(thing, dict | list | tuple):
        parts: Any = thing.values() if isinstance(thing, dict) else thing
    elif isinstance(thing, Distribution | Transform | Module):
        parts = vars(thing).values()
    else:
        return False
    return depth < 8 and any(is_moved(part, depth + 1) for part in parts)
