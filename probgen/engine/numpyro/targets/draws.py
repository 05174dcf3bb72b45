"""Draws of a program of one row as smooth functions of its parameters: what learners without a density use.

    x = f(noise, parameters)

Noise that no parameter moves may be of any kind, such as a class. What parameters move is drawn by a smooth function of them and
of noise (NumPyro's `has_rsample`), or, of bits, is shown at its mean. A draw without that would lack a part of its
gradient in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen.algorithm import Incompatible
from probgen.engine import drawable
from probgen.engine.numpyro import moves
from probgen.engine.numpyro.wrapped import WRAPPERS, innermost

ROWS = "rows"  # the name of the axis of a batch, for networks that look across it


def are_bits(fn: Any) -> bool:
    return isinstance(innermost(fn), dist.BernoulliProbs | dist.BernoulliLogits)


class Drawn(Messenger):
    """Effect handler: visible bits are shown at their means; its `given` values stand for other sites' draws."""

    def __init__(self, fn: Any, visible: frozenset[str], given: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.visible, self.given = visible, given

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["value"] is not None:
            return
        if msg["name"] in self.given:
            msg["value"] = self.given[msg["name"]]
        elif msg["name"] in self.visible and are_bits(msg["fn"]):
            msg["value"] = jnp.broadcast_to(msg["fn"].mean, msg["fn"].shape())


def traced(target: Any, key: Any, parameters: Any, row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The program's sites run forward for the inputs of a row: NumPyro's messages, by name."""
    inputs = {k: row[k].astype(target.arrays[k].dtype) for k in target.inputs}
    own = {k: parameters[k] for k in target.structure.parameters}
    program = lambda: target.structure.one.program(**target.structure.static, **target.rest, **inputs, **own)  # noqa: E731
    visible = frozenset(v.name for v in target.visible)
    with handlers.block():
        return handlers.trace(handlers.seed(Drawn(program, visible, given), key)).get_trace()


def simulated(target: Any, key: Any, parameters: Any, row: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The visible sites as drawn, {site: (*event)}, with the row's inputs by keyword."""
    sites = traced(target, key, parameters, row, given)
    drawn = {
        v.name: jnp.asarray(sites[v.name]["value"]).astype(target.precision) for v in target.visible
    }  # as rows are
    return drawn | {k: row[k] for k in target.inputs}


def of_rows(target: Any, key: Any, parameters: Any, rows: Mapping[str, Any], given: Any = None) -> Any:
    """The same for the inputs of many rows, a draw for each: {site: (row, *event)}; given: values (row, *event) of other sites."""
    count = len(next(iter(rows.values())))
    one = lambda k, row, given: target.simulated(k, parameters, row, given)  # noqa: E731
    return jax.vmap(one, axis_name=ROWS)(jax.random.split(key, count), dict(rows), dict(given or {}))


def check(target: Any) -> tuple[str, ...]:
    """Notes on means that stand for draws, and on what no gradient moves.

    Raises Incompatible where a draw that parameters move has no gradient, where all is an energy, where nothing is random, where
    parameters move nothing, and where a visible site is masked or scaled.
    """
    found = moves.of_program(target, traced)
    visible, notes = {v.name for v in target.visible}, []
    if weighed := [s.name for s in target.row_sites if s.masked]:
        raise Incompatible(drawable.WEIGHED.format(weighed[0]))
    for name, site in found.sites.items():
        fn = site["fn"]
        if isinstance(fn, dist.Unit):
            raise Incompatible(drawable.of_energy(name))
        if site["is_observed"]:
            raise Incompatible(drawable.OBSERVED.format(name))
        if name in visible and weighs(site):
            raise Incompatible(drawable.WEIGHED.format(name))
        if name in visible and are_bits(fn):
            notes.append(drawable.MEAN.format(name))
        elif name in found.moving and not innermost(fn).has_rsample:
            raise Incompatible(drawable.without_gradient(name, type(innermost(fn)).__name__))
    drawn = {k for k, site in found.sites.items() if _is_noise(site["fn"])}
    if not drawn and not found.random:
        raise Incompatible(drawable.without_noise(sorted(visible)))
    if same := sorted(visible - drawn - found.random):
        notes.append(drawable.SAME.format(", ".join(map(repr, same))))
    return (*notes, *drawable.moved(found.values, found.slopes, "numpyro.param"))


def _is_noise(fn: Any) -> bool:
    return not isinstance(innermost(fn), dist.Delta)


def weighs(site: Any) -> bool:
    """Whether a site's density has a mask or a scale."""
    fn, masks = site["fn"], []
    while isinstance(fn, WRAPPERS):
        masks.append(getattr(fn, "_mask", None))
        fn = fn.base_dist
    scale = site["scale"]
    scaled = scale is not None and not (isinstance(scale, int | float) and scale == 1)
    return scaled or any(m is not None and m is not True for m in masks)
