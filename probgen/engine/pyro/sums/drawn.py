"""Discrete unknowns that are not summed out but drawn by a guide: counts without a bound, or such that enumeration cannot follow.

    E_{z, k ~ q} [log p(z, k, data) - log q(z, k)]

A point holds them as plain numbers behind the continuous unknowns, and the density is that of all of them together. No algorithm
but one with a guide takes such a target: it has no gradient in k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

NEEDS_GUIDE = "{}\nOnly 'svi' with a guide that draws {} takes it: pg.fit(program, data, 'svi', guide=guide)."


def reason(sites: Any) -> str:
    """Why the first discrete unknown without a list of its values cannot be summed out; empty where all have one."""
    for site in sites:
        if site.kind == "latent" and site.discrete and not site.enumerable:
            return (
                f"Site {site.name!r} ({site.distribution}) is discrete and its support cannot be listed.\n"
                "Sum it out in the program, observe it, give it a finite support, or give a guide that draws it."
            )
    return ""


def laid_out(structure: Any, trace: Any, block: Callable[[int, int, tuple[int, ...]], Any]) -> None:
    """Put the discrete unknowns of a trace behind the others, as numbers of the flat point: nothing is summed out any more."""
    for site in structure.sites:
        if site.kind != "latent" or not site.discrete:
            continue
        start, shape = structure.dim, tuple(site.shape)
        structure.drawn[site.name] = trace.nodes[site.name]["value"].dtype
        structure.blocks[site.name] = block(start, start + int(torch.Size(shape).numel()), shape)
    structure.finite = frozenset()


def instead(structure: Any, tensors: Any, why: str, block: Any) -> Any:
    """The structure whose discrete unknowns are drawn, though their values could be listed; why: what summing them out fails at."""
    found = replace(structure, blocks=dict(structure.blocks), drawn={}, dtypes={}, gradients={}, unlisted=why)
    z = torch.zeros(structure.dim, dtype=getattr(torch, structure.precision), device=structure.device)
    with structure.scope(), torch.no_grad():
        trace = structure.trace(tensors, structure.unknowns(z))
    laid_out(found, trace, block)
    return found


def put(
    msg: Any, give: Callable[[str, tuple[int, ...]], torch.Tensor], drawn: Mapping[str, torch.dtype], indices: Any
) -> None:
    """Give a discrete unknown its value from the point, with the rows of a minibatch where it stands in such a plate."""
    shape, batch_dims = list(msg["fn"].shape()), len(msg["fn"].batch_shape)
    frames = [f for f in msg["cond_indep_stack"] if f.vectorized and f.name in indices]
    for frame in frames:
        shape[batch_dims + frame.dim] = frame.full_size
    value = give(msg["name"], tuple(shape))
    for frame in frames:
        value = value.index_select(batch_dims + frame.dim, indices[frame.name])
    msg["value"], msg["done"] = value.to(drawn[msg["name"]]), True
