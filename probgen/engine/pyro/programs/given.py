"""Programs whose data are a minibatch already: `with pyro.plate("rows", size, len(y)):`, which ask the plate for no indices.

Each row of the data then counts size / rows times, whatever the indices, as Pyro counts them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.poutine.subsample_messenger import _Subsample

GIVEN = "The data are {} of the {} rows of plate {!r}: each counts {:g} times, as in Pyro."
FAR = 1 << 40  # an index that no array has
HELD_NOISE = (
    "The program draws noise outside of pyro.sample, as dropout does: its density is that of one draw of it, held throughout. "
    "module.eval() turns dropout off."
)
SEEDS = 10  # of random numbers, that tell whether a density depends on them


def told(given: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Notes of plates of which the data are a minibatch."""
    return tuple(GIVEN.format(rows, size, name, size / rows) for name, (size, rows) in given.items())


def is_given(structure: Any, tensors: Sequence[torch.Tensor], minibatch: Any) -> bool:
    """Whether every plate that draws a minibatch has as many rows as the data, no unknowns, and indices that change nothing.

    minibatch: makes the handler that gives plates their indices.
    """
    lengths = {len(t) for t in tensors if t.dim()}
    if not all(rows in lengths for _, rows in structure.plates.values()):
        return False
    densities = []
    for index in (0, FAR):
        rows = {k: index + torch.arange(b, device=structure.device) for k, (_, b) in structure.plates.items()}
        torch.default_generator.manual_seed(0)
        try:
            trace = structure.trace(tensors, minibatch(rows))
            trace.compute_log_prob()
        except Exception:
            return False
        sites = [n for n in trace.nodes.values() if n["type"] == "sample" and not isinstance(n["fn"], _Subsample)]
        if any(not n["is_observed"] and any(f.name in rows for f in n["cond_indep_stack"]) for n in sites):
            return False
        densities.append([n["log_prob_sum"] for n in sites])
    return all(torch.equal(one, other) for one, other in zip(*densities, strict=True))


def held_noise(structure: Any, tensors: Sequence[torch.Tensor]) -> tuple[str, ...]:
    """What to tell of a program whose density depends on noise that it draws itself; found once for a structure."""
    if structure.noisy is None:
        structure.noisy = False
        with contextlib.suppress(Exception):  # what has no density on its data is said where one is asked for
            structure.noisy = structure.is_random and _varies(structure, tensors)
    return (HELD_NOISE,) if structure.noisy else ()


def _varies(structure: Any, tensors: Sequence[torch.Tensor]) -> bool:
    z = torch.as_tensor(np.random.default_rng(0).normal(size=structure.dim), dtype=getattr(torch, structure.precision))

    def density(seed: int) -> torch.Tensor:
        with structure.scope(seed), torch.no_grad():
            return structure.log_density(z.to(structure.device), tensors)

    return not all(torch.equal(density(0), density(seed)) for seed in range(1, SEEDS))
