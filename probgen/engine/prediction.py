"""NumPyro programs on new data: which data they are run on to predict, found by abstract runs before any draw is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.infer import init_to_uniform

from probgen import prediction
from probgen.data import check_support
from probgen.engine import indices
from probgen.engine.structure import Widened, supported

FAULTS = (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, AssertionError)
Shapes = dict[str, tuple[int, ...]]


def program_on(target: Any, latent: Mapping[str, Any], data: Mapping[str, Any]) -> Callable[[], Any]:
    """The program to draw from, on data, with nothing observed.

    latent: posterior draws (chain, draw, *shape). Data of the fit's shapes are predicted in the shapes of what was observed; of
    others, what was observed is left out where the program can do without it. Raises ValueError for data that do not fit together
    or are indices out of range.
    """
    own, observed = target.data, prediction.kept(target.sites, target.data, data)
    try:
        given, held = _data_on(target, latent, data, observed)
    except indices.OutOfRange:
        raise
    except FAULTS as error:
        works = lambda some: _data_on(target, latent, some, prediction.kept(target.sites, own, some))  # noqa: E731
        raise prediction.misfit(own, data, observed, error, works) from error
    return _free(target, given, held)


def _data_on(
    target: Any, latent: Mapping[str, Any], data: Mapping[str, Any], observed: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The data to run the program on, and which of them are held to the fit's sizes though those are not to count."""
    own = target.data
    if not prediction.resized(own, data):
        if prediction.changed(own, data):
            _shapes(target, latent, data, ())
        return dict(data), ()
    fault: Exception | None = None
    for given in prediction.freed(target.structure.program, data, observed):
        held = tuple(k for k in observed if given[k] is not None)
        try:
            found = _shapes(target, latent, given, held)
            prediction.check_spread(target.sites, own, given, found)
            if held:
                prediction.check_unmoved(found, lambda some: _shapes(target, latent, some, held), given, held)  # noqa: B023
            return given, held
        except indices.OutOfRange:
            raise
        except FAULTS as error:
            fault = error
    assert fault is not None
    raise fault


def check_likelihood(target: Any, latent: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ValueError for new data whose log likelihood the program does not give: of other sizes, indices or supports."""
    own = target.data
    if not prediction.changed(own, data):
        return
    observed = prediction.kept(target.sites, own, data)
    if prediction.resized(own, data) and observed:
        raise prediction.unlikely(own, data, observed)
    check_support(target.sites, data)
    try:
        found = _shapes(target, latent, data, (), free=False)
        prediction.check_spread(target.sites, own, data, found)
    except indices.OutOfRange:
        raise
    except FAULTS as error:
        raise prediction.misfit(own, data, (), error, lambda some: _shapes(target, latent, some, (), False)) from error


def _free(target: Any, data: Mapping[str, Any], held: Sequence[str] = ()) -> Any:
    """The program, nothing observed; in the shapes of what is observed, unless that is `held` to the fit's."""
    program = target._closed(data)
    return handlers.uncondition(program if held else Widened(program))


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
    for name, draws in latent.items():
        here = found["sites"].get(name)
        if here != tuple(draws.shape[2:]):
            raise ValueError(
                f"Site {name!r} has draws of shape {tuple(draws.shape[2:])} in the fit, and would be of shape {here}: the fit has none "
                "for new rows.\nPredict on data of the fit's size."
            )
    indices.check(indices.of(jaxpr, sorted(arrays)), arrays, sorted(good), prediction.NOTHING_OF_IT)
    if missing := [k for k in observed if k not in found["sites"]]:
        raise ValueError(f"The program has no site {missing[0]!r} on these data.")
    return {k: found["sites"][k] for k in observed}
