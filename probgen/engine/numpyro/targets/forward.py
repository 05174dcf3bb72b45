"""Learned programs run forward for many rows at once, and what a learned critic says of points: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen import runtime
from probgen.engine.numpyro.targets import critics
from probgen.engine.numpyro.targets.draws import ROWS
from probgen.engine.numpyro.targets.unpaired import NumpyroUnpaired
from probgen.engine.numpyro.wrapped import innermost
from probgen.target import CRITIC

CHUNK = 4096  # rows at once


class Given(Messenger):
    """Effect handler: values stand for draws of some sites; whether each lies in its support is kept in `inside`."""

    def __init__(self, fn: Any, values: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.values, self.inside = values, {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["name"] not in self.values:
            return
        support, value = msg["fn"].support, self.values[msg["name"]]
        self.inside[msg["name"]] = jnp.all(support(value))
        msg["value"] = value.astype(int) if support.is_discrete else value


def forward(
    target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any], count: int, seed: int, given: Mapping[str, Any],
    once: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """All sites run forward, parameters as learned: {site: (count, *event)}.

    rows: inputs by keyword, (count, *event); given: values (count, *event) that stand for draws of some sites. Bits are drawn.
    once: whether it is done once, so that compiling in haste pays.
    """
    run = _forward_once if once else _forward
    with runtime.jax_scope(target.precision):
        parameters = _own(target, answer)
        keys = jax.random.split(jax.random.key(seed), count)
        rows = {k: jnp.asarray(rows[k]) for k in target.inputs}
        given = {k: jnp.asarray(v, target.precision) for k, v in given.items()}
        parts = []
        for start in range(0, count, CHUNK):
            cut = lambda tree: {k: v[start : start + CHUNK] for k, v in tree.items()}  # noqa: B023, E731
            found, inside = run(target, keys[start : start + CHUNK], parameters, cut(rows), cut(given))
            _check_inside({k: np.asarray(v) for k, v in inside.items()}, given, start)
            parts.append({k: np.asarray(v) for k, v in found.items()})
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _check_inside(inside: Mapping[str, np.ndarray], given: Mapping[str, Any], start: int) -> None:
    for name, flags in inside.items():
        if not flags.all():
            at = start + int(np.argmin(flags))
            raise ValueError(
                f"{name} of row {at} is {np.asarray(given[name][at])}, outside the support of its distribution."
            )


def _many(target: Any, keys: Any, parameters: Any, rows: Any, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    def one(key: Any, row: Any, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        sites, inside = _trace(target, key, parameters, row, given)
        return {k: s["value"] for k, s in sites.items() if s["type"] in ("sample", "deterministic")}, inside

    return jax.vmap(one, axis_name=ROWS)(keys, rows, given)


_forward, _forward_once = jax.jit(_many), jax.jit(_many, compiler_options=runtime.ONCE)


def _trace(target: Any, key: Any, parameters: Any, row: Any, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The program's messages, by name, and whether given values lie in their supports."""
    inputs = {k: row[k].astype(target.arrays[k].dtype) for k in target.inputs}
    program = lambda: target.structure.one.program(**target.structure.static, **target.rest, **inputs, **parameters)  # noqa: E731
    held = Given(program, given)
    with handlers.block():
        return handlers.trace(handlers.seed(held, key)).get_trace(), held.inside


def noise(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The sites that are drawn and not shown: their shapes, and "standard normal", or the name of their distribution.

    rows: inputs of a few rows. A site is standard normal where its mean is 0 and its sd 1 at every coordinate, in every such row.
    """
    shown = {v.name for v in target.visible}
    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def moments(key: Any, parameters: Any, row: Any) -> dict[str, Any]:
        sites, _ = _trace(target, key, parameters, row, {})
        drawn = {k: s for k, s in sites.items() if s["type"] == "sample" and k not in shown}
        drawn = {k: s for k, s in drawn.items() if not isinstance(innermost(s["fn"]), dist.Delta)}
        found.update({k: (tuple(s["value"].shape), type(innermost(s["fn"])).__name__) for k, s in drawn.items()})
        normal = {k: innermost(s["fn"]) for k, s in drawn.items() if isinstance(innermost(s["fn"]), dist.Normal)}
        return {k: (jnp.asarray(fn.loc), jnp.asarray(fn.scale)) for k, fn in normal.items()}

    with runtime.jax_scope(target.precision):
        count = len(next(iter(rows.values()))) if rows else 2
        keys, rows = jax.random.split(jax.random.key(0), count), {k: jnp.asarray(v) for k, v in rows.items()}
        each = jax.jit(jax.vmap(moments, in_axes=(0, None, 0), axis_name=ROWS))
        told = each(keys, _own(target, answer), rows)
    standard = {k for k, (loc, scale) in told.items() if not np.any(loc) and np.all(np.asarray(scale) == 1)}
    return {k: (shape, "standard normal" if k in standard else word) for k, (shape, word) in found.items()}


def returned(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the guide of a map learned in both directions makes of rows, by keyword; nothing of another target."""
    if not isinstance(target, NumpyroUnpaired) or target.structure.guide is None:
        return {}
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(answer[k], target.precision) for k in target.structure.guide.parameters}
        x = jnp.asarray(rows[target.made], target.precision)
        parts = [np.asarray(_back(target, parameters, x[i : i + CHUNK])) for i in range(0, len(x), CHUNK)]
    return {target.given: np.concatenate(parts)}


_back = jax.jit(NumpyroUnpaired.back)


def judged(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> np.ndarray:
    """The learned critic's logits of points, sites and inputs by name, (row, *event): (row,), or (row / pack,)."""
    with runtime.jax_scope(target.precision):
        critic = {k.removesuffix(CRITIC): jnp.asarray(v) for k, v in answer.items() if k.endswith(CRITIC)}
        points = {v.name: jnp.asarray(rows[v.name], target.precision) for v in target.visible}
        points |= {k: jnp.asarray(rows[k], target.arrays[k].dtype) for k in target.inputs}
        return np.asarray(_logits(target, critic, points))


_logits = jax.jit(critics.logits)


def pack(target: Any) -> int:
    """How many rows the critic judges at once; 0 where there is none."""
    return target.structure.pack if target.structure.opponent is not None else 0


def _own(target: Any, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {k: jnp.asarray(answer[k], target.precision) for k in target.structure.parameters}
