"""NumPyro programs on new data: which data they are run on to predict, found by abstract runs before any draw is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.infer import init_to_uniform

from probgen.engine import prediction
from probgen.engine.numpyro.programs import indices
from probgen.engine.numpyro.programs.messengers import SCAN, Widened, freed
from probgen.engine.numpyro.programs.tracing import supported

Shapes = dict[str, tuple[int, ...]]


def program_on(target: Any, latent: Mapping[str, Any], data: Mapping[str, Any]) -> Callable[[], Any]:
    """The program to draw from, on data, with nothing observed; see `probgen.engine.prediction`.

    latent: posterior draws (chain, draw, *shape).
    """
    shapes_on = lambda some, held: _shapes(target, latent, some, held)  # noqa: E731
    return _free(target, *prediction.data_on(target.structure.program, target.sites, target.data, data, shapes_on))


def check_likelihood(target: Any, latent: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ValueError for new data whose log likelihood the program does not give: of other sizes, indices or supports."""
    shapes_on = lambda some: _shapes(target, latent, some, (), free=False)  # noqa: E731
    prediction.check_likelihood(target.structure.program, target.sites, target.data, data, shapes_on)


def _free(target: Any, data: Mapping[str, Any], held: Sequence[str] = ()) -> Any:
    """The program, nothing observed; in the shapes of what is observed, unless that is `held` to the fit's."""
    program = target._closed(data)
    return freed(program if held else Widened(program))


def _shapes(
    target: Any, latent: Mapping[str, Any], data: Mapping[str, Any], held: Sequence[str], free: bool = True
) -> Shapes:
    """The shapes of observed sites on data: an abstract run, with a look at indices, supports and the shapes of unknowns.

    free: whether nothing is observed in that run.
    """
    arrays = {k: v for k, v in data.items() if isinstance(v, np.ndarray)}
    observed = target.named("observed")
    found: dict[str, Shapes] = {}

    def look(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = {**data, **arrays}
        program = _free(target, given, held) if free else target._closed(given)
        started = handlers.substitute(handlers.seed(program, jax.random.key(0)), substitute_fn=init_to_uniform)
        trace = handlers.trace(started).get_trace()
        found["sites"] = {k: tuple(site["value"].shape) for k, site in trace.items() if site["type"] == "sample"}
        return {} if free else supported(trace, {s.name for s in target.sites if s.bounds})

    jaxpr, good = jax.make_jaxpr(look, return_shape=True)(arrays)
    series = {k for k, plates in target.structure.plates if SCAN in plates and k in target.structure.finite}
    for name, draws in latent.items():
        here = found["sites"].get(name)
        if name in series:  # goes on from its last state, see `rows`
            continue
        if here != tuple(draws.shape[2:]):
            raise ValueError(
                f"Site {name!r} has draws of shape {tuple(draws.shape[2:])} in the fit, and would be of shape {here}: "
                "the fit has none for others.\nPredict on data that give it the fit's shape: as many groups, where there is one "
                "for each, or as many rows. Say how many groups by an argument of the program, not by the largest that is there."
            )
    indices.check(indices.of(jaxpr, sorted(arrays)), arrays, sorted(good), prediction.NOTHING_OF_IT)
    if missing := [k for k in observed if k not in found["sites"]]:
        raise ValueError(f"The program has no site {missing[0]!r} on these data.")
    return {k: found["sites"][k] for k in observed}
