"""Numbers that tell one NumPyro program from another: the log density of every site at fixed points in general position.

Site by site, because a prior's change is lost in the rounding of a large likelihood. Traced anew at every call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from probgen import runtime
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import biject
from probgen.engine.numpyro.targets.implicit import NumpyroImplicit
from probgen.engine.numpyro.targets.learnable import NumpyroLearnable
from probgen.engine.numpyro.targets.paired import NumpyroGuided

POINTS = 2
QUICKLY = {"xla_backend_optimization_level": 0}  # it runs twice


def probe(target: Any) -> dict[str, list[float]]:
    """Of every sample site its log density, in nats, and of every deterministic one its mean, at each point; by the site's name."""
    by_row = isinstance(target, NumpyroLearnable | NumpyroImplicit)
    said = _of_a_row if by_row else _of_all
    with runtime.jax_scope(target.precision):
        one = lambda arrays, seed, z: said(type(target)(target.structure, arrays), seed, z)  # noqa: E731
        of = jax.jit(one, compiler_options=QUICKLY)
        dim = 0 if by_row else target.structure.dim
        points = np.random.default_rng(11).normal(size=(POINTS, dim)).astype(target.precision)
        found = [of(target.arrays, i, z) for i, z in enumerate(points)]
    return {k: [float(one[k]) for one in found] for k in found[0]}


def _of_all(target: Any, seed: Any, z: Any) -> dict[str, Any]:
    """Of a program on its data, its continuous unknowns at the unconstrained point z, the others drawn."""
    structure = target.structure
    values, _ = structure.filled(target.arrays, z)
    closed = FullPlates(structure.closed(target.arrays))
    found = _said(handlers.substitute(closed, substitute_fn=functools.partial(biject, values)), seed)
    return found | (_of_a_guide(target, seed) if isinstance(target, NumpyroGuided) else {})


def _of_a_guide(target: Any, seed: Any) -> dict[str, Any]:
    """Of the author's guide of all unknowns, at its initial parameters."""
    with contextlib.suppress(Exception):  # a guide that is made as it learns: its name is known
        guide = target.guide_at_start(jax.random.fold_in(jax.random.key(1), seed))
        return {f"the guide's {k}": v for k, v in _said(guide, seed).items()}
    return {}


def _of_a_row(target: Any, seed: Any, z: Any) -> dict[str, Any]:
    """Of the program of one row, its guide and its critic at initial parameters; draws, where these are what is learned from."""
    parameters = target.initial(jax.random.fold_in(jax.random.key(0), seed))
    row = jax.tree.map(lambda x: x[0], target.rows(jnp.array([seed % target.num_rows])))
    inputs = {k: row[k] for k in target.inputs}
    own = {k: parameters[k] for k in target.structure.parameters}
    whole = {v.name for v in target.visible if v.kind == "levels"}
    values = {k: v.astype(int) if k in whole else v for k, v in row.items() if k not in inputs}
    shown = {v.name for v in target.visible} if isinstance(target, NumpyroImplicit) else set()
    values = {k: v for k, v in values.items() if k not in shown}  # a point mass elsewhere says nothing of where it lies
    program = lambda: target.structure.one.program(**target.structure.static, **target.rest, **inputs, **own)  # noqa: E731
    found = _said(handlers.substitute(program, data=values), seed)
    found = {k: v for k, v in found.items() if k not in shown}
    if target.structure.by_draws or target.structure.opponent is not None:
        found |= _of_draws(target, seed)
    else:
        found |= _of_companions(target, seed, parameters, row)
    return found | {f"parameter {k}": jnp.mean(jnp.abs(v)) for k, v in parameters.items()}


def _of_companions(target: Any, seed: Any, parameters: Any, row: Any) -> dict[str, Any]:
    """Of a guide and of a critic of rebuilt rows, where there are any."""
    found = {}
    if target.structure.guide is not None:
        sites = target.guided(jax.random.fold_in(jax.random.key(1), seed), parameters, row)
        found |= {f"the guide's {k}": _log_density(site) for k, site in sites.items()}
    if target.structure.critic is not None:
        found["the critic"] = sum(jnp.sum(x) for x in target.judged(parameters, row))
    return found


def _of_draws(target: Any, seed: Any) -> dict[str, Any]:
    """Of draws at initial parameters, and of what critics say of them and of rows."""
    played = target.played(jax.random.fold_in(jax.random.key(0), seed))
    found, parts = {}, played if isinstance(played, tuple) else (played,)
    for word, part in zip(("draws", "the critic of draws", "the critic of rows"), parts, strict=False):
        for path, x in jax.tree_util.tree_leaves_with_path(part):
            found[word + "".join(f" {getattr(key, 'key', key)}" for key in path)] = jnp.mean(jnp.abs(x))
    return found


def _said(program: Any, seed: Any) -> dict[str, Any]:
    with handlers.block():
        trace = handlers.trace(handlers.seed(program, jax.random.fold_in(jax.random.key(2), seed))).get_trace()
    found = {k: _log_density(site) for k, site in trace.items() if site["type"] == "sample"}
    others: Mapping[str, Any] = {k: site["value"] for k, site in trace.items() if site["type"] == "deterministic"}
    return found | {k: jnp.mean(jnp.asarray(v, float)) for k, v in others.items() if np.size(v)}


def _log_density(site: Any) -> Any:
    fn, value = site["fn"], site["value"]
    log_prob = fn.log_prob(value, site["intermediates"]) if site["intermediates"] else fn.log_prob(value)
    return jnp.sum(log_prob if site["scale"] is None else site["scale"] * log_prob)
