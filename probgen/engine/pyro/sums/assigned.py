"""What a Pyro target whose finite unknowns are summed out says of them: draws, predictions with them, pointwise terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from probgen.engine import rows
from probgen.engine.pyro.programs import data as pyro_data
from probgen.engine.pyro.programs.density import MARKOV, Given, Structure, Unknowns
from probgen.engine.pyro.sums import assignments as pyro_assignments

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
        chunk_seed = int(np.random.SeedSequence([seed % 2**64, _SALT, i]).generate_state(1)[0])
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
        nodes = structure.trace(tensors, pyro_data.Unobserved(), zero).nodes
    shapes = {name: tuple(nodes[name]["value"].shape) for name in structure.finite if name in nodes}
    return rows.kept(target, posterior, structure.frames, shapes, MARKOV, *rows.going(target.data, data, changed))


# ---- pointwise terms ---------------------------------------------------------------------------------------------


def log_likelihood(target: Any, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Pointwise terms of the observed sites, in nats: arrays (chain, draw, *batch).

    log p(y_i | z, k, y of all others): k are finite unknowns that several observations share, at their draws; those of y_i's own
    row, or of its sequence, are summed out. Where each row has its own, this is the marginal log p(y_i | z, k); in a hidden Markov
    model the density of y_t given the rest of its sequence, as the weights of leaving it out need it (arXiv:1412.6550).
    """
    structure, tensors = target._on(data)
    (chains, count), values = target._flatten(kept(target, posterior, data))
    observed, reals = target.named("observed"), {k: v for k, v in values.items() if k not in structure.finite}
    first = {k: v[:1] for k, v in reals.items()}
    held = _shared(_enumerated(target, structure, tensors, first), structure, observed)
    if missing := held - values.keys():
        raise ValueError(rows.NOT_THEIRS.format(min(missing)))
    inner = replace(structure, finite=structure.finite - held)
    given = reals | {name: values[name] for name in held}
    weight = sum(
        term.numel()
        for term in _enumerated(target, inner, tensors, {k: v[:1] for k, v in given.items()}).terms.values()
    )
    size = max(1, pyro_assignments.AT_ONCE // weight)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in observed}
    for start in range(0, chains * count, size):
        factors = _enumerated(target, inner, tensors, {k: v[start : start + size] for k, v in given.items()})
        with torch.no_grad():
            for name in observed:
                pieces[name].append(pyro_assignments.term(factors, name).cpu().numpy())
    joined = {name: np.concatenate(found) for name, found in pieces.items()}
    return {name: value.reshape(chains, count, *value.shape[1:]) for name, value in joined.items()}


def _enumerated(target: Any, structure: Structure, tensors: Any, given: Mapping[str, torch.Tensor]) -> Any:
    return pyro_assignments.gathered(structure, tensors, Given, given, target._tensors_over_draws)


def _shared(factors: pyro_assignments.Factors, structure: Structure, observed: tuple[str, ...]) -> set[str]:
    """Finite sites that several entries of an observed one depend on; see `rows.shared`."""
    of = {symbol: name for name, symbol in factors.own.items()}
    parts = {name: {of[symbol] for symbol in dims if symbol in of} for name, dims in factors.dims.items()}
    return rows.shared(parts, observed, factors.plates, structure.finite)


# ---- what enumeration follows ------------------------------------------------------------------------------------


def check(target: Any) -> None:
    """ValueError where the factors of the enumerated program are not those of the program; once for a structure."""
    structure: Structure = target.structure
    if structure.checked:
        return
    rng, pairs = np.random.default_rng(_SALT), []
    for _ in range(rows.TRIALS):
        z = target._point(0.3 * rng.normal(size=structure.dim))
        gathered = pyro_assignments.gathered(
            structure, target.tensors, structure.unknowns, z[None], target._tensors_over_draws
        )
        values, total = pyro_assignments.anywhere(gathered, structure, rng)
        with torch.no_grad(), structure.scope():
            trace = structure.trace(target.tensors, structure.unknowns(z), Given(values))
            pairs.append((float(trace.log_prob_sum()), total))
    rows.check_factors(np.array(pairs), structure.precision)
    structure.checked = True
