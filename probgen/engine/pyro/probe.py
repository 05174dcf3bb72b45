"""Numbers that tell one Pyro program from another; see `probgen.engine.numpyro.probe`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from probgen.engine.pyro.games.critics import as_reals
from probgen.engine.pyro.learnable import PyroImplicit
from probgen.engine.pyro.noise.completing import PyroPoint
from probgen.engine.pyro.noise.diffused import Diffusing
from probgen.engine.pyro.programs.density import Structure, scoped
from probgen.engine.pyro.programs.looks import FEW, log_prob
from probgen.engine.pyro.rows import PyroRows

POINTS = 2


def probe(target: Any) -> dict[str, list[float]]:
    """Of every sample site its log density, in nats, and of every deterministic one its mean, at each point; by the site's name."""
    if isinstance(target, PyroPoint):
        found = [target.probed(i) for i in range(POINTS)]
        return {k: [one[k] for one in found] for k in found[0]}
    with torch.no_grad():
        of = _of_rows if isinstance(target, PyroRows) else _of_all
        found = [of(target, i) for i in range(POINTS)]
    return {k: [one[k] for one in found] for k in found[0]}


def _of_all(target: Any, seed: int) -> dict[str, float]:
    """Of a program on its data, its continuous unknowns at an unconstrained point, the others drawn."""
    base = getattr(target, "base", target)  # of a point of a learned program
    if not isinstance(base.structure, Structure):
        return _of_rows(base, seed)
    structure = base.structure
    z = torch.as_tensor(
        np.random.default_rng([11, seed]).normal(size=structure.dim), dtype=getattr(torch, base.precision)
    )
    with structure.scope(seed):
        trace = structure.trace(base.tensors, structure.unknowns(z.to(structure.device)))
        trace.compute_log_prob()
    found = {}
    for site in base.sites:
        node = trace.nodes[site.name]
        said = node["value"].double().mean() if site.kind == "deterministic" else node["log_prob_sum"]
        found[site.name] = float(said)
    return found


def _of_rows(target: Any, seed: int) -> dict[str, float]:
    """Of a program of rows, its guide and its critic at initial parameters, on a few rows; draws of one without a density."""
    values = target.initial(seed)
    rows = target.batch((seed + torch.arange(FEW * target.pack)) % target.num_rows)
    with target.running(values, seed):
        if isinstance(target, Diffusing):
            return target.probed(rows) | {f"parameter {k}": float(v.double().abs().mean()) for k, v in values.items()}
        if issubclass(type(target), PyroImplicit):
            found = {k: float(v.double().abs().mean()) for k, v in target.simulated(rows).items()}
        else:
            found = {k: float(log_prob(n).sum()) for k, n in target.told(rows).items()}
        if hasattr(target, "guided"):
            found |= {f"the guide's {k}": float(log_prob(n).sum()) for k, n in target.guided(rows).items()}
        if getattr(target, "unpaired", False):
            found[f"draws {target.given}"] = float(
                target.back(rows[target.keywords[target.made]]).double().abs().mean()
            )
    if getattr(target, "unpaired", False):
        with scoped(target.precision):
            for k, own in target.critics_initial(seed).items():
                x = as_reals(target, rows)[target.keywords.get(k, k)]
                found[f"the critic of {k}"] = float(target.said(k, own, x).double().sum())
    if target.opponent is not None:
        with scoped(target.precision), target.judging(target.critic_initial(seed)):
            found["the critic"] = float(target.logits(as_reals(target, rows)).double().sum())
    return found | {f"parameter {k}": float(v.double().abs().mean()) for k, v in values.items()}
