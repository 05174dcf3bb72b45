"""The structure of a Pyro program, found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.subsample_messenger import _Subsample

from probgen.data.dims import aligned
from probgen.engine.pyro.graph import LinAlgError
from probgen.engine.pyro.programs import edges as pyro_edges
from probgen.engine.pyro.programs import given as pyro_given
from probgen.engine.pyro.programs import minibatch as pyro_minibatch
from probgen.engine.pyro.programs.data import bounds_of, check_first, innermost, source_of
from probgen.engine.pyro.programs.density import (
    MARKOV,
    Block,
    Minibatch,
    Structure,
    Tensors,
    Unknowns,
    scoped,
    whole_plates,
)
from probgen.engine.pyro.programs.sites import is_discrete, is_enumerable, is_masked, is_weighed
from probgen.engine.pyro.programs.types import is_lifted, lifting
from probgen.engine.pyro.sums import drawn as pyro_drawn
from probgen.target import Site

# How far from zero points lie at which the first trace is tried, in case the program's own arithmetic fails at one, or data lie
# outside of supports that depend on unknowns.
_TRIES = (0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0)


def examine(
    program: Callable[..., Any], arrays: tuple[str, ...], static: dict[str, Any], tensors: Tensors, precision: str
) -> Structure:
    """Trace a program once, with validation as the caller has it, and lay out its unknowns.

    Raises ValueError for an unknown that has neither a bijection nor a finite support, and for misshapen observations.
    """
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), torch.device("cpu"))
    structure = Structure(program, arrays, static, precision, device)
    lift = lifting(getattr(torch, precision)) if is_lifted(program) else nullcontext()
    with scoped(precision, validate=None, params=structure.params), lift:
        trace, shapes = _first_trace_at_all(structure, tensors)
        held = lambda node: source_of(node["value"], arrays, tensors) if node["is_observed"] else ""  # noqa: E731
        structure.sites = tuple(_site(node, structure.plates, held(node)) for node in _sample_nodes(trace))
        _refuse(trace, structure.sites)
        if structure.tiles:
            structure.sites = pyro_minibatch.on_all_rows(structure.sites, trace, structure.plates)
        start = 0
        for name, shape in shapes.items():
            structure.blocks[name] = Block(start, start + int(np.prod(shape)), shape)
            start = structure.blocks[name].stop
        structure.frames = {node["name"]: _frames(node) for node in _sample_nodes(trace)}
        structure.axes = {node["name"]: _axes(node) for node in _sample_nodes(trace)}
        structure.finite = frozenset(site.name for site in structure.sites if site.kind == "latent" and site.discrete)
        if structure.finite:
            _list_or_draw(structure, tensors, trace)
    return structure


def _list_or_draw(structure: Structure, tensors: Tensors, trace: Any) -> None:
    """Make ready to sum the finite sites out; where that cannot be, say why, and give them places in the point."""
    structure.unlisted = pyro_drawn.reason(structure.sites)
    if not structure.unlisted:
        try:
            _prepare_enumeration(structure, tensors, trace)
        except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
            structure.unlisted = str(error)
    if structure.unlisted:
        structure.dtypes.clear()
        pyro_drawn.laid_out(structure, trace, Block)


def _first_trace_at_all(structure: Structure, tensors: Tensors) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The first trace on all rows; on a minibatch, where the program runs on nothing else."""
    try:
        return _first_trace(structure, tensors)
    except (ValueError, RuntimeError) as error:
        if not structure.plates:
            raise
        first = error
    if pyro_given.is_given(structure, tensors, Minibatch):
        structure.given = dict(structure.plates)
        structure.plates.clear()
        return _first_trace(structure, tensors)
    try:
        structure.tiles = [tuple(torch.arange(b).to(structure.device) for _, b in structure.plates.values())]
        found = _first_trace(structure, tensors)
    except (ValueError, RuntimeError):
        raise first from None
    structure.tiles = pyro_minibatch.cover(structure.plates, structure.device)
    return found


def _first_trace(structure: Structure, tensors: Tensors) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The trace at a point of small unconstrained values, with its log probabilities, and these values' shapes."""
    first: Exception | None = None
    for attempt, far in enumerate(_TRIES):
        rng, shapes = np.random.default_rng(attempt), {}

        def give(
            name: str, shape: tuple[int, ...], rng: Any = rng, shapes: dict = shapes, far: float = far
        ) -> torch.Tensor:
            shapes[name] = shape
            return torch.as_tensor(rng.uniform(-far, far, shape), dtype=torch.get_default_dtype()).to(structure.device)

        try:
            with nullcontext() if structure.tiles else whole_plates(structure.plates, structure.given):
                trace = structure.trace(tensors, Unknowns(give))
            check_first(trace, structure.arrays, tensors)
            trace.compute_log_prob()
            return trace, shapes
        except (ValueError, ArithmeticError, LinAlgError) as error:
            first = first or error
    assert first is not None
    raise first


def _frames(node: Any) -> frozenset[str]:
    """The names of a site's plates."""
    markov = {MARKOV} if node["infer"].get("_markov_depth") else set()
    return frozenset(frame.name for frame in node["cond_indep_stack"]) | markov


def _axes(node: Any) -> tuple[str | None, ...]:
    """The plate of every axis of a site's value."""
    frames = [(f.name, f.dim, f.size) for f in node["cond_indep_stack"] if f.vectorized]
    event = None if _kind(node) == "deterministic" else node["fn"].event_dim
    return aligned(tuple(node["value"].shape), frames, event)


def _sample_nodes(trace: Any) -> list[Any]:
    """The sample sites of a trace, without the indices of plates."""
    return [n for n in trace.nodes.values() if n["type"] == "sample" and not isinstance(n["fn"], _Subsample)]


def _kind(node: Any) -> str:
    """The kind of a site, in the words of `probgen.target.Site`."""
    fn = innermost(node["fn"])
    if isinstance(fn, dist.Unit):
        return "factor"
    if node["infer"].get("_deterministic") or pyro_edges.is_point(node):
        return "deterministic"
    return "observed" if node["is_observed"] else "latent"


def _site(node: Any, plates: Mapping[str, Any], source: str = "") -> Site:
    """The record of one sample site; source: the data keyword whose tensor it is observed at."""
    return Site(
        name=node["name"],
        kind=_kind(node),
        shape=tuple(node["value"].shape),
        discrete=is_discrete(node["fn"]),
        enumerable=is_discrete(node["fn"]) and is_enumerable(node["fn"]),
        subsampled=any(frame.name in plates for frame in node["cond_indep_stack"]),
        distribution=type(innermost(node["fn"])).__name__,
        source=source,
        bounds=bounds_of(node) if source else None,
        circular=_kind(node) == "latent" and pyro_edges.is_angle(node["fn"]),
        masked=is_masked(node),
        weighed=is_weighed(node),
    )


def _refuse(trace: Any, sites: Sequence[Site]) -> None:
    """ValueError for sites of which no target can be made."""
    for site in sites:
        expected = tuple(trace.nodes[site.name]["fn"].shape())
        if site.kind == "observed" and np.broadcast_shapes(site.shape, expected) != site.shape:
            raise ValueError(
                f"Observed site {site.name!r} has data of shape {site.shape}; its distribution has shape {expected}.\n"
                "They broadcast to something larger than the data: reshape the data."
            )


def _prepare_enumeration(structure: Structure, tensors: Tensors, trace: Any) -> None:
    """Make the evaluator that sums the finite sites out."""
    dims = [f.dim for node in _sample_nodes(trace) for f in node["cond_indep_stack"] if f.vectorized]
    structure.nesting = -min(dims, default=0)
    z = torch.full((structure.dim,), 0.1, device=structure.device)
    enumerated = structure.trace(tensors, structure.unknowns(z), enumerate_finite=True)
    for name in structure.finite:
        structure.dtypes[name], structure.events[name] = (
            enumerated.nodes[name]["value"].dtype,
            trace.nodes[name]["fn"].event_dim,
        )
    structure.evaluator = TraceEinsumEvaluator(enumerated, True, structure.nesting)
