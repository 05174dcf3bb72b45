"""Data of Pyro programs: indices out of range and supports, looked at by plain runs, and the data that predictions are run on."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch.distributions import constraints

from probgen.data import checks
from probgen.data.inputs import OutOfRange, first, told
from probgen.target import Site

OUT = re.compile(r"out of (bounds|range)|must be (smaller than num_classes|non-negative)", re.IGNORECASE)
INDEX = re.compile(r"index (-?\d+) (?:is out|on a tensor)")
SIZE = re.compile(r"(?:size|tensor of) (\d+)")
COLUMNS = 64  # of an array whose values are looked at as indices, row by row


class Unobserved(UnconditionMessenger):
    """Nothing is observed but deterministic sites, which Pyro would draw anew, of another shape where they stand in a plate.

    A hidden Markov model without a duration is drawn as long as what was observed of it; ValueError where nothing was.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if getattr(msg["fn"], "duration", 0) is None and hasattr(msg["fn"], "_duration"):
            msg["fn"] = _lasting(msg["fn"], msg["value"], msg["name"])
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


def _lasting(fn: Any, value: Any, name: str) -> Any:
    if value is None:
        raise ValueError(
            f"{name!r} ({type(fn).__name__}) has no duration and nothing was observed: how long is it?\n"
            "Say its duration=, a number."
        )
    fn, steps = copy.copy(fn), value.shape[-fn.event_dim]
    fn._duration, fn._event_shape = steps, torch.Size([steps, *fn.event_shape[1:]])
    return fn


class Widened(Messenger):
    """The distribution of an observed site takes the shape of its data, where no plate says it."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or msg["cond_indep_stack"] or type(msg["fn"]).__name__ == "Unit":
            return
        fn, shape = msg["fn"], tuple(msg["value"].shape)
        batch = shape[: len(shape) - fn.event_dim]
        if batch != tuple(fn.batch_shape):
            msg["fn"] = fn.expand(batch)


def bounds_of(node: Any) -> Any:
    """The bounds of an observed site's support on the line, where they are plain numbers and nothing is masked."""
    if node["mask"] is not None or "Masked" in type(node["fn"]).__name__:
        return None
    with suppress(NotImplementedError, AttributeError):
        return checks.bounds(node["fn"].support, constraints)
    return None


def source_of(value: Any, arrays: Sequence[str], tensors: Sequence[torch.Tensor]) -> str:
    """The keyword whose tensor a value is; nothing where it is none."""
    base = getattr(value, "_base", None)
    held = (value, base) if base is not None and base.numel() == value.numel() and value.is_contiguous() else (value,)
    return next((k for k, v in zip(arrays, tensors, strict=True) if any(v is x for x in held)), "")


def check(structure: Any, tensors: Sequence[torch.Tensor]) -> None:
    """Raise OutOfRange or ValueError for data that are indices out of range in a program, or observed outside a support.

    The program is run once, if any data are whole numbers, as indices and counts are. Where that fails in another way it is left to
    the search for a starting point.
    """
    data = dict(zip(structure.arrays, (t.cpu().numpy() for t in tensors), strict=True))
    checks.check_support(tuple(s for s in structure.sites if s.source in data), data)
    if not any((v == np.rint(v)).all() for v in data.values()):
        return
    z = torch.full((structure.dim,), 0.1, dtype=getattr(torch, structure.precision), device=structure.device)
    try:
        with structure.scope(), torch.no_grad(), in_words(data):
            nodes = structure.trace(tensors, structure.unknowns(z)).nodes
    except OutOfRange:
        raise
    except (ArithmeticError, ValueError, RuntimeError):
        return
    for name, node in nodes.items():
        if node["type"] == "sample" and node["is_observed"] and node["mask"] is None:
            _check_observed(name, node)


def check_first(trace: Any, arrays: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
    """Raise ValueError for data outside the support of the site that they are observed at, before Pyro computes densities."""
    data = dict(zip(arrays, (t.cpu().numpy() for t in tensors), strict=True))
    for name, node in trace.nodes.items():
        if node["type"] == "sample" and node["is_observed"] and (source := source_of(node["value"], arrays, tensors)):
            shape, kind = tuple(node["value"].shape), type(innermost(node["fn"])).__name__
            site = Site(name, "observed", shape, distribution=kind, source=source, bounds=bounds_of(node))
            checks.check_support((site,), data)
            if node["mask"] is None:
                _check_observed(name, node)


def innermost(fn: Any) -> Any:
    """A distribution without its wrappers (`to_event`, `mask`, `expand`)."""
    while isinstance(fn, dist.Independent | dist.MaskedDistribution | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def extremes(rows: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Rows that hold the smallest and the largest value of every column of whole numbers: indices are in range if theirs are."""
    found = [np.zeros(1, int)]
    for name in names:
        values = np.asarray(rows[name].cpu() if hasattr(rows[name], "cpu") else rows[name])
        flat = values.reshape(len(values), -1)
        if flat.shape[1] and flat.shape[1] <= COLUMNS and (flat == np.rint(flat)).all():
            found += [flat.argmin(0), flat.argmax(0)]
    return np.unique(np.concatenate(found))


def _check_observed(name: str, node: Any) -> None:
    """Raise OutOfRange for counts outside a support whose bounds are tensors, as the number of trials."""
    with suppress(NotImplementedError, AttributeError):
        if not node["fn"].support.is_discrete:
            return
        good = node["fn"].support.check(node["value"]).cpu().numpy()
        if not good.all():
            raise OutOfRange(
                f"The value observed at site {name!r} lies outside the support of its distribution, first at index "
                f"{first(~good)}.\nCorrect the data, or the bounds that the program computes from them."
            )


@contextmanager
def in_words(data: Mapping[str, Any], what: str = "") -> Iterator[None]:
    """Torch's errors about indices in the user's words; what: said behind them."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if not OUT.search(str(error)):
            raise
        fault = str(error).partition("\nTrace Shapes")[0]
        raise OutOfRange(_words(fault, data, what)) from error


def _words(fault: str, data: Mapping[str, Any], what: str) -> str:
    """Which data hold the index that torch names; several may."""
    held = {k: np.asarray(v) for k, v in data.items() if getattr(v, "dtype", None) is not None}
    whole = {k: v for k, v in held.items() if v.size and (v == np.rint(v)).all()}
    value, size = INDEX.search(fault), SIZE.search(fault)
    if not (value and size):
        which = ", ".join(f"{k} (from {v.min():g} to {v.max():g})" for k, v in whole.items()) or "of the program"
        return f"An index is out of range{what}: {which}.\n{fault}"
    index, length = int(value.group(1)), int(size.group(1))
    holders = {k: v for k, v in whole.items() if (v == index).any()}
    if len(holders) != 1:
        source = f", from {' or '.join(holders)}," if holders else ""
        return f"An index{source} is {index}, of {length} entries, 0 to {length - 1}{what}.\nCorrect it, or clip it in the program."
    return told(index, length, holders, holders, what)
