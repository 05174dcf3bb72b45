"""Finite unknowns of a Pyro program, drawn from their exact conditional given all else, for many draws of the others at once.

    k ~ p(k | z, y)

One run of the enumerated program, vectorised over the draws of z, gives its factors; the draws are then one more plate of them, and
Pyro's forward sum and backward sampling (`pyro.infer.infer_discrete`, which runs the program once for every draw) take them all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opt_einsum import shared_intermediates
from pyro.infer.discrete import _make_ring
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.einsum.adjoint import require_backward

from probgen.engine.pyro.programs.density import Structure, Tensors

DRAWS = "\N{GREEK SMALL LETTER DELTA}"  # the symbol of the axis of draws, which is none of Pyro's
AT_ONCE = 1 << 22  # numbers that the factors of the draws of one chunk hold


@dataclass
class Factors:
    """The factors of an enumerated program at many draws of its continuous unknowns.

    terms: log densities by site, (draw, *dims); dims: their symbols, without the draws'; plates: those of the site among them.
    own: of a finite site, the symbol of its values; support: these, (levels, *event); places: of symbols of plates, their
    dimension; depths: of every site, how many dimensions its plates take.
    """

    terms: dict[str, torch.Tensor]
    dims: dict[str, str]
    plates: dict[str, frozenset[str]]
    own: dict[str, str]
    support: dict[str, torch.Tensor]
    places: dict[str, int]
    depths: dict[str, int]

    @property
    def summed(self) -> set[str]:
        return {symbol for dims in self.dims.values() for symbol in dims} - set().union(*self.plates.values())

    def packed(self, names: Iterable[str]) -> OrderedDict[frozenset, list[torch.Tensor]]:
        """Terms as Pyro's contractions take them, by their plates, the draws among these."""
        tree: OrderedDict[frozenset, list[torch.Tensor]] = OrderedDict()
        for name in names:
            term: Any = self.terms[name].clone()
            term._pyro_dims = DRAWS + self.dims[name]
            term._pyro_site = name
            tree.setdefault(self.plates[name] | {DRAWS}, []).append(term)
        return tree


def gathered(
    structure: Structure, tensors: Tensors, handler: Callable[[Any], Any], draws: Any, over: Callable[..., Any]
) -> Factors:
    """The factors of a program at draws of its continuous unknowns.

    handler: what puts one draw into the program; over: applies a function of one draw along the leading axis of `draws`.
    """
    found = Factors({}, {}, {}, {}, {}, {}, {})

    def run(draw: Any) -> dict[str, torch.Tensor]:
        trace = structure.trace(tensors, handler(draw), enumerate_finite=True)
        trace.compute_log_prob()
        trace.pack_tensors()
        for name in sites:
            _note(found, trace, name, structure.finite)
        values = {f"{name} value": trace.nodes[name]["value"] for name in structure.finite}
        return {**{name: trace.nodes[name]["packed"]["log_prob"] for name in sites}, **values}

    sites = [site.name for site in structure.sites if site.kind != "deterministic"]
    result = over(run, draws)
    for name in structure.finite:
        site = next(s for s in structure.sites if s.name == name)
        event = site.shape[len(site.shape) - structure.events[name] :]
        found.support[name] = result[f"{name} value"][0].reshape(-1, *event)
    found.terms = {name: result[name] for name in sites}
    return found


def _note(found: Factors, trace: Any, name: str, finite: frozenset[str]) -> None:
    """Keep a site's symbols, which are the same for all draws."""
    node = trace.nodes[name]
    found.dims[name] = node["packed"]["log_prob"]._pyro_dims
    frames = [f for f in node["cond_indep_stack"] if f.vectorized and f.size > 1]
    found.plates[name] = frozenset(trace.plate_to_symbol[f.name] for f in frames)
    found.depths[name] = max((-f.dim for f in node["cond_indep_stack"] if f.vectorized), default=0)
    found.places.update({trace.plate_to_symbol[f.name]: f.dim for f in frames})
    if name in finite:
        found.own[name] = node["infer"]["_dim_to_symbol"][node["infer"]["_enumerate_dim"]]


def drawn(factors: Factors, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """One joint draw of the finite sites for every draw of the others: values (draw, *shape), by torch's generator."""
    tree = factors.packed(factors.terms)
    terms: list[Any] = [term for group in tree.values() for term in group]
    sizes = {symbol: n for term in terms for symbol, n in zip(term._pyro_dims, term.shape, strict=True)}
    leaves = {term._pyro_site: term for term in terms if term._pyro_site in factors.own}
    for leaf in leaves.values():
        require_backward(leaf)
        leaf._pyro_backward_result = None
    cache: dict = {}
    with shared_intermediates(cache):
        contracted = contract_tensor_tree(tree, factors.summed, ring=_make_ring(1, cache, sizes))
    for group in contracted.values():
        for term in group:
            if hasattr(term, "_pyro_backward"):
                term._pyro_backward()
    return {name: _values(factors, leaves[name], name, shape) for name, shape in shapes.items()}


def _values(factors: Factors, leaf: Any, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A site's values from what backward sampling left at its factor."""
    support, sample, count = factors.support[name], leaf._pyro_backward_result, leaf.shape[0]
    batch = shape[: len(shape) - (support.dim() - 1)]
    if sample is None or factors.own[name] not in sample._pyro_sample_dims:  # a single level
        return support[0].expand(count, *shape)
    index = sample[sample._pyro_sample_dims.index(factors.own[name])]
    dims = sample._pyro_dims[1:]
    order = sorted(range(len(dims)), key=lambda i: factors.places.get(dims[i], -np.inf))
    placed = [1] * len(batch)
    for symbol, size in zip(dims, index.shape, strict=True):
        if symbol != DRAWS:
            placed[factors.places[symbol]] = size
    index = index.permute(order).reshape(count if DRAWS in dims else 1, *placed).expand(count, *batch)
    return support[index]


def term(factors: Factors, site: str) -> torch.Tensor:
    """log p of every entry of an observed site given all other observations, finite sites summed out: (draw, *plates)."""
    own = set(factors.dims[site]) & factors.summed
    names, found = set(own), {site}
    while more := {k for k, dims in factors.dims.items() if k not in found and set(dims) & names}:
        found |= more
        names |= {symbol for k in more for symbol in factors.dims[k]} & factors.summed
    if not own:
        return _unpacked(factors, site, factors.terms[site], factors.dims[site])
    order = [k for k in factors.terms if k in found]  # the program's
    full = _log_sum(factors, order, names, site)
    return _unpacked(factors, site, full - _log_sum(factors, [k for k in order if k != site], names, site), None)


def _log_sum(factors: Factors, sites: list[str], names: set[str], site: str) -> torch.Tensor:
    """The log sum over `names` of some sites' factors, and the product over the plates that `site` lacks: (draw, *its plates)."""
    kept = [DRAWS, *sorted(factors.plates[site], key=factors.places.__getitem__)]
    total: Any = 0.0
    for group in contract_tensor_tree(factors.packed(sites), names).values():
        for part in group:
            over = tuple(i for i, symbol in enumerate(part._pyro_dims) if symbol not in kept)
            dims = [symbol for symbol in part._pyro_dims if symbol in kept]
            part = part.sum(over) if over else part
            part = part.permute([dims.index(symbol) for symbol in kept if symbol in dims])
            total = total + part.reshape(
                [part.shape[[s for s in kept if s in dims].index(s)] if s in dims else 1 for s in kept]
            )
    return total


def _unpacked(factors: Factors, site: str, value: torch.Tensor, dims: str | None) -> torch.Tensor:
    """A term with its plates at their places: (draw, *plates)."""
    kept = sorted(factors.plates[site], key=factors.places.__getitem__)
    if dims is not None:
        value = value.permute([0, *(1 + dims.index(symbol) for symbol in kept)])
    depth = factors.depths[site]
    shape = [1] * depth
    for symbol, size in zip(kept, value.shape[1:], strict=True):
        shape[factors.places[symbol]] = size
    return value.reshape(len(value), *shape)


def anywhere(factors: Factors, structure: Structure, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], float]:
    """Random values of the finite sites, and the sum of the first draw's factors there."""
    values, chosen = {}, {}
    for name, symbol in factors.own.items():
        shape, support = next(s.shape for s in structure.sites if s.name == name), factors.support[name]
        batch = shape[: len(shape) - (support.dim() - 1)]
        index = torch.from_numpy(np.asarray(rng.integers(0, len(support), batch))).to(support.device)
        values[name] = support[index]
        plates = [s for s in sorted(factors.plates[name], key=factors.places.__getitem__)]
        chosen[symbol] = (
            plates,
            torch.nn.functional.one_hot(index.reshape(_sizes(index, plates, factors)), len(support)) > 0,
        )
    total = 0.0
    for name, dims in factors.dims.items():
        term, axes = factors.terms[name][0], list(dims)
        for symbol in [s for s in dims if s in chosen]:
            plates, at = chosen[symbol]
            axes = [*(p for p in plates if p not in axes), *axes]
            shape = [at.shape[[*plates, symbol].index(s)] if s in (*plates, symbol) else 1 for s in axes]
            order = [[*plates, symbol].index(s) for s in axes if s in (*plates, symbol)]
            there = at.permute(order).reshape(shape)
            term = torch.where(there, term.reshape((1,) * (len(axes) - term.dim()) + term.shape), 0.0).sum(
                axes.index(symbol)
            )
            axes.remove(symbol)
        total += float(term.sum())
    return values, total


def _sizes(index: torch.Tensor, plates: list[str], factors: Factors) -> list[int]:
    return [index.shape[factors.places[symbol]] for symbol in plates]
