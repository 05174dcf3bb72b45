"""Which data of a Pyro program are rows that its parameters are learned from."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from probgen.data.checks import bounds, check_support, on_host, on_the_line
from probgen.data.fixed import plain as as_given
from probgen.data.grey import is_grey, loosened
from probgen.engine import drawable
from probgen.engine.prediction import FAULTS
from probgen.engine.pyro.games.unpaired import PyroUnpaired
from probgen.engine.pyro.learnable import PyroImplicit, PyroLearnable
from probgen.engine.pyro.programs.data import innermost
from probgen.engine.pyro.programs.edges import is_point
from probgen.engine.pyro.programs.looks import FEW, identities, looked, refuse_batch_norm, sample_nodes
from probgen.engine.pyro.programs.parameters import Learned
from probgen.engine.pyro.programs.sites import is_masked, is_weighed
from probgen.engine.pyro.programs.types import is_lifted, is_mixed
from probgen.engine.pyro.rows import Learning, PyroRows, _batch, are_bits, data_of
from probgen.engine.pyro.targets import as_tensor, is_array, plain
from probgen.programs.completable import KNOWN, VALUE
from probgen.programs.pinned import innermost_pin, pinned
from probgen.target import Site, Variable


def rows_of(program: Callable[..., Any], data: Mapping[str, Any], precision: str) -> PyroRows | None:
    """The target of learning, where the program has parameters, and the first axis of all its sites counts rows of data; else None.

    Arrays that have as many rows are inputs, of which it gets the same rows.
    """
    arrays = {k: as_tensor(v, precision) for k, v in data.items() if is_array(v)}
    static = {k: plain(v) for k, v in data.items() if k not in arrays}
    for count, _ in Counter(len(v) for v in arrays.values() if v.ndim).most_common():
        found = _rows_with(program, arrays, static, precision, count) if count else None
        if found:
            return found
    counts = [n for n in dict.fromkeys(len(v) for v in arrays.values() if v.ndim) if n > 1]
    if len(counts) != 2:
        return None
    found = _rows_with(program, arrays, static, precision, *counts)  # a map between rows that differ in number
    return found if isinstance(found, PyroUnpaired) else None


def _rows_with(
    program: Callable[..., Any],
    arrays: Mapping[str, torch.Tensor],
    static: Mapping[str, Any],
    precision: str,
    *counts: int,
) -> PyroRows | None:
    """The same, with arrays of so many rows taken for rows."""
    sliced = [k for k, v in arrays.items() if v.ndim and len(v) in counts]
    arrays = {k: v.bool() if k in sliced and are_bits(v) else v for k, v in arrays.items()}
    some = lambda number: {  # noqa: E731
        k: _batch(v, torch.arange(number) % len(v), precision) if k in sliced else v for k, v in arrays.items()
    }
    few, more = some(FEW), some(FEW + 2)
    try:
        trace, seen = looked(program, {**static, **few}, precision)
        if not in_rows(nodes := _drawn_nodes(trace), FEW):
            return None
        points = [name for name, n in nodes.items() if n["is_observed"] and isinstance(innermost(n["fn"]), dist.Delta)]
        if (not seen.found and not points) or (len(counts) > 1 and (not points or len(nodes) > 1)):
            return None
        if not in_rows(_drawn_nodes(looked(program, {**static, **more}, precision)[0]), FEW + 2):
            return None
    except Exception as error:
        if is_mixed(error) and not is_lifted(program):  # it is run again with its tensors lifted
            raise
        return None
    sources = {
        name: next((k for k in sliced if _same(n["value"], few[k])), "")
        for name, n in nodes.items()
        if n["is_observed"]
    }
    visible = {site: k for site, k in sources.items() if k}
    if not visible:
        return None
    points = [name for name in points if name in visible]
    if not seen.found and not points:
        return None
    _check_drawn({visible[name]: (name, nodes[name]) for name in points}, few, seen)
    refuse_batch_norm(seen.roots, "draw" if points else "density")
    variables, sites = [], []
    for name, node in nodes.items():
        shape = tuple((few[visible[name]] if name in visible else node["value"]).shape[1:])
        variables.append(_variable(name, shape, node["fn"]))
        if name not in sources or name in visible:
            distribution = type(innermost(node["fn"])).__name__
            limits, source = bounds(node["fn"].support, constraints), visible.get(name, "")
            limits, weighed = limits if source else None, is_weighed(node)
            kind = "observed" if name in visible else "latent"
            site = Site(name, kind, shape, distribution=distribution, source=source, bounds=limits, weighed=weighed)
            sites.append(replace(site, masked=is_masked(node)))
    values = {k: arrays[k].cpu().numpy() for k in visible.values()}
    bits = [v.name for v in variables if v.kind == "bits" and v.name in visible]
    grey = tuple(s for s in bits if is_grey(values[visible[s]]))
    check_support(tuple(loosened(s, s.name in grey) for s in sites if s.source), values)
    rows = tuple((k, site) for site, k in visible.items())
    inputs = tuple(k for k in sliced if k not in visible.values())
    if (held := innermost_pin(program)) is not None:
        held.given(functools.partial(identities, tuple(seen.found.values())))
    structure = Learning(
        program, {**static, **{k: v for k, v in arrays.items() if k not in sliced}}, precision, rows, inputs,
        tuple(sites), tuple(v for v in variables if v.name not in sources or v.name in visible), grey,
        tuple(seen.found.values()), tuple(seen.roots), not any(_is_factor(n) for n in nodes.values()),
    )  # fmt: skip
    hidden = [v for v in structure.variables if v.name not in visible]
    is_map = points and not hidden and len(inputs) == len(rows) == 1
    if len(counts) > 1 and not is_map:
        return None
    kind = PyroUnpaired if is_map else PyroImplicit if points else PyroLearnable
    found = kind(structure, {k: arrays[k] for k in sliced}, data_of(static, arrays))
    if len(counts) == 1:  # what a map is given is no index
        found.check_indices({site: arrays[k] for k, site in found.keywords.items()} | {k: arrays[k] for k in inputs})
    return found


def _check_drawn(points: Mapping[str, tuple[str, Any]], rows: Mapping[str, torch.Tensor], seen: Any) -> None:
    """Raises ValueError for rows of another shape than is drawn without a density; points: by keyword, the site and its node."""
    for keyword, (name, node) in points.items():
        shape, drawn = tuple(rows[keyword].shape[1:]), tuple(node["fn"].shape()[1:])
        if shape != drawn:
            raise ValueError(drawable.wrong_shape(keyword, shape, name, drawn))
    if points and not seen.found:
        raise ValueError(drawable.NO_PARAMETERS.format("pyro"))


def _drawn_nodes(trace: Any) -> dict[str, Any]:
    """The sample sites of a program's trace, without those that only name what is computed."""
    return {name: n for name, n in sample_nodes(trace).items() if not is_point(n)}


def in_rows(nodes: Mapping[str, Any], count: int) -> bool:
    """Whether the first axis of every site counts rows, independent of each other."""
    return bool(nodes) and all(tuple(n["fn"].batch_shape[:1]) == (count,) for n in nodes.values())


def _same(value: Any, tensor: torch.Tensor) -> bool:
    """Whether a value is a view of a tensor's numbers."""
    return value is tensor or (value.data_ptr() == tensor.data_ptr() and value.numel() == tensor.numel())


def _is_factor(node: Any) -> bool:
    return type(innermost(node["fn"])).__name__ == "Unit"


def _variable(name: str, shape: tuple[int, ...], fn: Any) -> Variable:
    support, event = on_the_line(fn.support), fn.event_dim > 0
    if support is constraints.boolean:
        return Variable(name, shape, "bits", 2, event)
    if isinstance(support, constraints.integer_interval) and support.lower_bound == 0 and fn.has_enumerate_support:
        return Variable(name, shape, "levels", int(support.upper_bound) + 1, event)
    if support is constraints.one_hot:
        return Variable(name, shape, "one-hot", shape[-1], event)
    return Variable(name, shape, "reals" if support is constraints.real else "other", 0, event)


def has_parameters(program: Callable[..., Any], data: Mapping[str, Any]) -> bool:
    """Whether the program registers parameters."""
    held = {k: as_given(v) for k, v in on_host(data).items()}
    given = {k: as_tensor(v, "float32") if is_array(v) else plain(v) for k, v in held.items()}
    try:
        return bool(looked(program, given, "float32")[1].found)
    except FAULTS:  # what is wrong is told when the target is made
        return True


def with_parameters(
    program: Callable[..., Any], data: Mapping[str, Any], parameters: list[str], precision: str
) -> Learned:
    """The program whose named parameters are in the data."""
    rest = {k: v for k, v in data.items() if k not in parameters and not k.endswith((KNOWN, VALUE))}
    given = {k: as_tensor(v, precision) if is_array(v) else plain(v) for k, v in rest.items()}
    program = pinned(program)
    _, seen = looked(program, given, precision)
    return Learned(program, [seen.found[k] for k in parameters], seen.roots)
