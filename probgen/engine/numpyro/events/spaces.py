"""The space in which an event is looked for: coordinates u, what a program's values are there, and the law of u.

Of a program run forward u is its noise, N(0, 1). Of a posterior u is the unknowns, whitened by their draws, and the noise of
predictions: N(0, 1) times exp(log_weight(u)), which is 1 where the posterior is normal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from probgen import runtime
from probgen.engine.numpyro.events.tape import ran
from probgen.engine.numpyro.programs import prediction
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import PARTLY
from probgen.engine.numpyro.running.arrays import as_arrays


@dataclass
class Space:
    """dim: of u; arrays: what `one` reads, as JAX's arrays; one(arrays, u): values by name, and the log weight of u.

    anew: what is drawn anew whenever u moves; begin: points u (draw, dim) of the law, of chains one after the other; None where
    u is standard normal. names: what a draw has.
    """

    dim: int
    arrays: Any
    one: Callable[[Any, Any], tuple[dict[str, Any], Any]]
    precision: str
    names: tuple[str, ...]
    anew: tuple[str, ...] = ()
    begin: np.ndarray | None = None
    looks: dict[Any, Any] = field(default_factory=dict)

    def values(self, u: np.ndarray, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Values by name, (point, *event), and log weights, (point,), at points (point, dim)."""
        found, weight = self._ran(names, lambda values: {k: values[k] for k in names}, u)
        return {k: np.asarray(v) for k, v in found.items()}, np.asarray(weight, float)

    def scores(self, u: np.ndarray, score: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
        """A score that JAX can compile, and log weights, at points (point, dim): both (point,)."""
        found, weight = self._ran(score, lambda values: jnp.reshape(jnp.asarray(score(values), float), ()), u)
        return np.asarray(found, float), np.asarray(weight, float)

    def _ran(self, label: Any, shown: Callable[[Any], Any], u: np.ndarray) -> Any:
        with runtime.jax_scope(self.precision):
            if label not in self.looks:

                def look(arrays: Any, u: Any) -> Any:
                    values, weight = self.one(arrays, u)
                    return shown(values), weight

                self.looks[label] = jax.jit(jax.vmap(look, in_axes=(None, 0)))
            return self.looks[label](self.arrays, jnp.asarray(u, self.precision))


def forward(target: Any) -> Space:
    """The space of a program of which nothing is known but its inputs; raises Incompatible for an energy."""
    target._check_forward()
    names = tuple(site.name for site in target.sites)

    def program(target: Any) -> Callable[[], Any]:
        known = {k: v for k, v in target.arrays.items() if not k.endswith(PARTLY)}
        return FullPlates(lambda: target.structure.program(**known, **target.structure.static))

    def one(target: Any, u: Any) -> tuple[dict[str, Any], Any]:
        values, _ = ran(program(target), u, target.precision)
        return {k: values[k] for k in names}, jnp.zeros((), target.precision)

    with runtime.jax_scope(target.precision):
        tape = counted(lambda: program(target), target.precision)
    return Space(tape.used, target, one, target.precision, names, tuple(dict.fromkeys(tape.anew)))


def counted(make: Callable[[], Any], dtype: Any) -> Any:
    """A tape that says how much noise the program that `make` gives takes."""
    held: list[Any] = []

    def look() -> Any:
        values, tape = ran(make(), None, dtype)
        held.append(tape)
        return values

    jax.eval_shape(look)
    return held[-1]


def posterior(target: Any, z: np.ndarray, data: Mapping[str, Any], predicted: bool) -> Space:
    """The space of unknowns, and of what is predicted given them on data; z: draws (chain, draw, dim)."""
    draws = z.reshape(-1, z.shape[-1])
    middle = draws.mean(0)
    factor = _factor(draws - middle)
    names = tuple(k for k in target.constrain(z[:1, :1]) if k not in target.summed)
    observed = target.named("observed")
    with runtime.jax_scope(target.precision):
        latent = {k: jnp.asarray(v) for k, v in target.constrain(z[:1, :1]).items() if k in target.named("latent")}
        program = prediction.program_on(target, latent, as_arrays(data, target.precision)) if predicted else None

    def predict(values: Mapping[str, Any]) -> Callable[[], Any]:
        return handlers.substitute(program, data={k: values[k] for k in latent})

    def one(arrays: Any, u: Any) -> tuple[dict[str, Any], Any]:
        target, middle, factor = arrays
        w, e = u[: len(middle)], u[len(middle) :]
        z = middle + factor @ w
        values = target.structure.constrain(target.arrays, z)
        if program is not None:
            drawn, _ = ran(predict(values), e, target.precision)
            values = {**values, **{k: drawn[k] for k in observed}}
        return values, target.log_density(z) + 0.5 * jnp.sum(w**2)

    begin = np.linalg.solve(factor, (draws - middle).T).T
    used, anew = 0, ()
    if program is not None:
        with runtime.jax_scope(target.precision):
            tape = counted(lambda: predict({k: v[0, 0] for k, v in latent.items()}), target.precision)
        used, anew = tape.used, tuple(dict.fromkeys(tape.anew))
    arrays = (target, middle, factor)
    return Space(
        len(middle) + used, arrays, one, target.precision, (*names, *(observed if predicted else ())), anew, begin
    )


def _factor(centred: np.ndarray) -> np.ndarray:
    """The Cholesky factor of the draws' covariance, shrunk towards its diagonal where draws are few: (dim, dim)."""
    n, dim = centred.shape
    covariance = centred.T @ centred / max(n - 1, 1)
    share = min(1.0, dim / n)
    shrunk = (1 - share) * covariance + share * np.diag(np.diag(covariance))
    return np.linalg.cholesky(shrunk + 1e-12 * np.diag(np.diag(covariance)))
