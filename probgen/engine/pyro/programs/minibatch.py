"""Minibatches of Pyro programs: finite unknowns of their rows summed out, and programs that only run on a minibatch.

A plate of n rows of which b are looked at counts each n / b times. Where a row has a finite unknown k, that is

    n / b  sum over rows of  log sum over k of  p(k) p(y | k)

and not the sum over k of a power of the densities, which Pyro's evaluator of a trace makes of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.subsample_messenger import _Subsample

from probgen.target import Site

Plates = Mapping[str, tuple[int, int]]

MOST = 32  # minibatches that stand for the whole data
ACROSS = (
    "Finite unknowns are shared by the rows of the minibatch plate {!r}: minibatches give no estimate of their sum.\n"
    "Use minibatch=False, or leave out subsample_size."
)
TOO_MANY = (
    "The program makes arrays of the size of its minibatches ({}), so that it does not run on its whole data, which would be {} "
    "minibatches.\nMake arrays of the size of the plate's indices: torch.ones(len(i)) in `with pyro.plate(...) as i`."
)
LOCAL = (
    "The program makes arrays of the size of its minibatches, and has the unknown {!r} in such a plate.\n"
    "Make arrays of the size of the plate's indices: torch.ones(len(i)) in `with pyro.plate(...) as i`."
)


def log_prob(trace: Any, evaluator: Any, plates: Plates) -> torch.Tensor:
    """The log density of an enumerated trace on a minibatch of the plates, scaled to all rows: ()."""
    trace.compute_log_prob()
    trace.pack_tensors()
    nodes = {k: n for k, n in trace.nodes.items() if n["type"] == "sample" and not isinstance(n["fn"], _Subsample)}
    total: Any = 0.0
    for names, dims in _components({k: set(_dims(n)) & evaluator._enum_dims for k, n in nodes.items()}):
        scales = {k: _scale(nodes[k], plates) for k in names}
        if len(set(scales.values())) > 1:
            inside = next(f.name for k in names for f in nodes[k]["cond_indep_stack"] if f.name in plates)
            raise ValueError(ACROSS.format(inside))
        scale, factors = next(iter(scales.values())), OrderedDict()
        for k in names:
            term = nodes[k]["packed"]["log_prob"]
            part = term / scale
            part._pyro_dims = term._pyro_dims
            factors.setdefault(evaluator.ordering[k], []).append(part)
        with shared_intermediates() as cache:
            total = total + scale * contract_to_tensor(factors, dims, cache=cache)
    return total


def _dims(node: Any) -> str:
    return getattr(node["packed"]["log_prob"], "_pyro_dims", "")


def _scale(node: Any, plates: Plates) -> float:
    """How often a site's rows count."""
    frames = [plates[f.name] for f in node["cond_indep_stack"] if f.name in plates]
    return math.prod(size / batch for size, batch in frames)


def _components(dims: Mapping[str, set[str]]) -> Iterator[tuple[list[str], set[str]]]:
    """Sites that finite unknowns connect, and the symbols of these; every other site by itself."""
    left = dict(dims)
    while left:
        first = next(iter(left))
        names, found = [first], set(left.pop(first))
        while more := [k for k, own in left.items() if own & found]:
            for k in more:
                names.append(k)
                found |= left.pop(k)
        yield [k for k in dims if k in names], found


# ---- programs that do not run on all rows at once ------------------------------------------------------------------


def cover(plates: Plates, device: Any) -> list[tuple[torch.Tensor, ...]]:
    """Minibatches over which the mean of estimates is the density of all data: every row is in as many of them.

    Raises ValueError where that takes more than a few.
    """
    counts = [size // math.gcd(size, batch) for size, batch in plates.values()]
    if math.prod(counts) > MOST:
        raise ValueError(TOO_MANY.format(", ".join(str(b) for _, b in plates.values()), math.prod(counts)))
    each = [
        [(torch.arange(batch, device=device) + start * batch) % size for start in range(count)]
        for (size, batch), count in zip(plates.values(), counts, strict=True)
    ]
    return list(product(*each))


def on_all_rows(sites: Sequence[Site], trace: Any, plates: Plates) -> tuple[Site, ...]:
    """The sites with their shapes on all rows, without what is computed for a minibatch; raises ValueError for its unknowns."""
    found = []
    for site in sites:
        node = trace.nodes[site.name]
        frames = [f for f in node["cond_indep_stack"] if f.name in plates and f.vectorized]
        if frames and site.kind == "latent" and not site.discrete:
            raise ValueError(LOCAL.format(site.name))
        shape = list(site.shape)
        for f in frames:
            shape[len(shape) - node["fn"].event_dim + f.dim] = f.full_size
        if not (frames and site.kind == "deterministic"):
            found.append(replace(site, shape=tuple(shape)))
    return tuple(found)


class Whole:
    """Values of sites on all rows, put together from minibatches."""

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}

    def put(self, name: str, node: Any, value: torch.Tensor, rows: Mapping[str, torch.Tensor], event_dim: int) -> None:
        """Take a site's value on a minibatch, (*batch, *event)."""
        frames = [f for f in node["cond_indep_stack"] if f.name in rows and f.vectorized]
        if not frames:
            self.values.setdefault(name, value)
            return
        if len(frames) > 1:
            raise ValueError(f"Site {name!r} stands in several minibatch plates; leave out their subsample_size.")
        (frame,) = frames
        axis = value.dim() - event_dim + frame.dim
        value = value.expand(*value.shape[:axis], len(rows[frame.name]), *value.shape[axis + 1 :])
        if name not in self.values:
            shape = (*value.shape[:axis], frame.full_size, *value.shape[axis + 1 :])
            self.values[name] = value.new_zeros(shape)
        self.values[name] = self.values[name].index_copy(axis, rows[frame.name], value)
