"""What a Pyro target whose finite unknowns are summed out says of them: draws, predictions with them, pointwise terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch.fx.experimental.proxy_tensor import make_fx

from probgen.engine import pyro_assignments, rows
from probgen.engine.pyro_density import MARKOV, Given, Structure, Unknowns

_SALT = 0x5EED  # of the seeds, which no kernel has


def summed(target: Any) -> tuple[str, ...]:
    """Finite unknowns, and deterministic sites that depend on them, which all are where that cannot be traced."""
    structure: Structure = target.structure
    if structure.reached is None:
        names = [site.name for site in structure.sites if site.kind == "deterministic"]
        try:
            found = _dependent(target, names) if names else []
        except Exception:  # such as control flow that the values decide
            found = names
        structure.reached = (*sorted(structure.finite), *found)
    return structure.reached


def _dependent(target: Any, names: list[str]) -> list[str]:
    """Deterministic sites through which a finite unknown reaches an output of the program, by the nodes of its graph."""
    structure: Structure = target.structure
    finite = sorted(structure.finite)

    def run(*values: torch.Tensor) -> list[torch.Tensor]:
        given = Given(dict(zip(finite, values, strict=True)))
        zero = Unknowns(lambda _, shape: torch.zeros(shape, device=structure.device))
        nodes = structure.trace(target.tensors, zero, given).nodes
        return [nodes[name]["value"] for name in names]

    with torch.no_grad(), structure.scope():
        graph = make_fx(run)(*(_first_value(target, name) for name in finite)).graph
    reached = {node for node in graph.nodes if node.op == "placeholder"}
    before = -1
    while len(reached) > before:  # what is written into counts as well, and whatever reads it afterwards
        before = len(reached)
        for node in graph.nodes:
            if any(source in reached for source in node.all_input_nodes):
                reached.add(node)
                if str(node.target).partition(".")[2].partition(".")[0].endswith("_"):
                    reached.add(node.all_input_nodes[0])
    (output,) = [node for node in graph.nodes if node.op == "output"]
    return [name for name, node in zip(names, output.args[0], strict=True) if node in reached]


def _first_value(target: Any, name: str) -> torch.Tensor:
    structure: Structure = target.structure
    shape = next(site.shape for site in structure.sites if site.name == name)
    return torch.ones(shape, dtype=structure.dtypes[name], device=structure.device)


# ---- draws -------------------------------------------------------------------------------------------------------


def drawn(target: Any, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """All latent and deterministic sites at draws (chain, draw, dim); see `Continuous.drawn`."""
    structure: Structure = target.structure
    chains, count, dim = draws.shape
    points = target._point(draws.reshape(-1, dim))
    finite = _finite(target, points, seed)

    def sites(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values = {name: given[name] for name in structure.finite}
        nodes = structure.trace(target.tensors, structure.unknowns(given[" z"]), Given(values)).nodes
        return {s.name: nodes[s.name]["value"] for s in structure.sites if s.kind in ("latent", "deterministic")}

    found = target._over_draws(sites, {**finite, " z": points}, 0)
    found = {k: _whole(v) if k in structure.finite else v for k, v in found.items()}
    return {k: v.reshape(chains, count, *v.shape[1:]) for k, v in found.items()}


def _whole(values: np.ndarray) -> np.ndarray:
    """Values of a finite support as integers, where they are whole."""
    return values.astype(np.int32) if (values == np.round(values)).all() else values


def _finite(target: Any, points: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Draws of the finite sites at points (point, dim), a chunk at a time: (point, *shape)."""
    structure: Structure = target.structure
    shapes = {s.name: s.shape for s in structure.sites if s.name in structure.finite}

    def factors(z: torch.Tensor) -> pyro_assignments.Factors:
        return pyro_assignments.gathered(structure, target.tensors, structure.unknowns, z, target._tensors_over_draws)

    size = max(1, pyro_assignments.AT_ONCE // sum(term.numel() for term in factors(points[:1]).terms.values()))
    pieces = []
    for i, start in enumerate(range(0, len(points), size)):
        gathered = factors(points[start : start + size])
        chunk_seed = int(np.random.SeedSequence([seed, _SALT, i]).generate_state(1)[0])
        with torch.no_grad(), structure.scope(chunk_seed):
            pieces.append(pyro_assignments.drawn(gathered, shapes))
    return {name: torch.cat([piece[name] for piece in pieces]) for name in shapes}


# ---- predictions -------------------------------------------------------------------------------------------------


def kept(target: Any, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The posterior without the finite unknowns of rows that are not the fit's own; see `probgen.engine.rows`."""
    changed = rows.changed(target.data, data, set(target.data))
    if not changed:
        return dict(posterior)
    structure, tensors = target._on(data)
    with torch.no_grad(), structure.scope():
        zero = Unknowns(lambda _, shape: torch.zeros(shape, device=structure.device))
        nodes = structure.trace(tensors, poutine.uncondition(), zero).nodes
    shapes = {name: tuple(nodes[name]["value"].shape) for name in structure.finite if name in nodes}
    goes_on = rows.longer(target.data, data, changed)
    return rows.kept(target, posterior, structure.frames, shapes, MARKOV, goes_on)
