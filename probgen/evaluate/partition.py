"""The constant of a learned energy, and the log probabilities of data: exact where states can be counted, else estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.algorithm import closest
from probgen.data.whole_numbers import generator
from probgen.fitted import FittedParameters, LogProb
from probgen.target import Conditional, Continuous

METHODS = ("auto", "enumeration", "quadrature", "ais")
SETTINGS = (
    "num_chains", "num_islands", "num_temperatures", "num_pilot", "num_burn", "reverse",
    "low", "high", "num",
)  # fmt: skip


def log_z(fit: FittedParameters, method: str = "auto", **settings: Any) -> LogProb:
    """log Z of a learned model, computed once for the same settings; see `LearnedFit.log_z`."""
    key = repr((method, sorted(settings.items())))
    if key not in fit.constants:
        fit.constants[key] = _log_z(fit, method, settings)
    return fit.constants[key]


def _log_z(fit: FittedParameters, method: str, settings: Mapping[str, Any]) -> LogProb:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
    if unknown := [k for k in settings if k not in SETTINGS]:
        raise TypeError(
            f"Unknown setting {unknown[0]!r} of log_z.{closest(unknown[0], SETTINGS)} Known: {', '.join(SETTINGS)}."
        )
    if fit.target.proper and method == "auto":
        given = f", given {' and '.join(fit.target.inputs)}" if fit.target.inputs else ""
        return LogProb(0.0, 0.0, f"exact: the program is a probability{given}")
    target, rows = core(fit)
    if isinstance(target, Conditional):
        return _of_units(target, rows, method, fit.seed, settings)
    assert isinstance(target, Continuous)
    from probgen.evaluate import ais, quadrature

    if method == "quadrature" or (method == "auto" and target.dim <= 2):
        points = _extreme(target, rows)
        low, high = points.min(0), points.max(0)
        room = 2.0 * (high - low)
        return quadrature.log_z_by_quadrature(
            target, **{"low": low - room, "high": high + room, "num": 801, **settings}
        )
    if method == "enumeration":
        raise ValueError(
            "A real unknown cannot be enumerated; use method='quadrature' in one or two dimensions, else 'ais'."
        )
    return ais.log_z(target, rows, seed=fit.seed, **settings)


def _extreme(target: Any, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows in which a number is least or greatest, as points of the target: (point, dim)."""
    flat = np.concatenate([np.asarray(v, float).reshape(len(v), -1) for v in rows.values()], axis=1)
    ends = sorted({*flat.argmin(0).tolist(), *flat.argmax(0).tolist()})
    return np.array([target.unconstrain({k: np.asarray(v)[i] for k, v in rows.items()}) for i in ends], float)


def core(fit: FittedParameters) -> tuple[Any, Mapping[str, np.ndarray]]:
    """What has the constant of a learned model, without the sites on which no other depends; and rows of it to begin at."""
    target, rows = fit.condition(), fit._rows({})
    found: Any = target.pruned() if isinstance(target, Conditional) else target
    bits = isinstance(found, Conditional) and all(v.kind == "bits" for v in found.variables)
    if found is target or not bits:  # rows of others are not known
        return target, rows
    inferred = _inferred(fit, rows)
    return found, {v.name: inferred[v.name] for v in found.variables}


def _inferred(fit: FittedParameters, rows: Mapping[str, np.ndarray], count: int = 5000) -> dict[str, np.ndarray]:
    """Hidden bits of some rows, drawn from their mean-field posterior."""
    import jax
    import jax.numpy as jnp

    from probgen import runtime
    from probgen.engine.numpyro.sums import free_energy

    target: Any = fit.target
    rng = generator(fit.seed)
    picked = rng.permutation(len(next(iter(rows.values()))))[:count]
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v) for k, v in fit.answer.items()}
        given = {k: jnp.asarray(v[picked], target.precision) for k, v in rows.items()}
        means = jax.jit(lambda rows: free_energy.means(target, parameters, rows))(given)
    return {k: (rng.random(v.shape) < np.asarray(v)).astype(float) for k, v in means.items()}


def _of_units(target: Any, rows: Any, method: str, seed: int, settings: Mapping[str, Any]) -> LogProb:
    """Of bits, levels and reals that can be drawn given the rest."""
    from probgen.engine.numpyro.sums.exact import TooLarge
    from probgen.evaluate import ais, energy

    if method == "enumeration" and settings:
        raise TypeError(f"{next(iter(settings))!r} is a setting of other methods; enumeration has none.")
    target = target.blocked(evaluate=True)
    if method == "quadrature":
        raise ValueError("Quadrature is for real unknowns alone; use method='enumeration' or 'ais'.")
    if method != "ais":
        try:
            return energy.log_z(target)
        except TooLarge:
            if method == "enumeration":
                raise
    return ais.log_z(target, rows, seed=seed, **settings)


def log_prob(fit: FittedParameters, rows: Mapping[str, np.ndarray], method: str = "auto", **settings: Any) -> LogProb:
    """log p of rows: (row,)."""
    from probgen.engine.numpyro.sums import free_energy
    from probgen.evaluate.energy import free_energies

    constant = log_z(fit, method, **settings)
    target: Any = fit.target
    if target.hidden and target.engine == "numpyro":
        target = target if target.structure.blocks else target.blocked(evaluate=True)
        if not free_energy.exact(target):
            how = f"{free_energy.SAMPLES} draws from mean field" if free_energy.evaluated(target) else "mean field"
            constant = constant._replace(kind=f"lower bound by {how}; its constant {constant.kind}")
    return LogProb(-free_energies(target, fit.answer, rows) - constant.value, constant.stderr, constant.kind)
