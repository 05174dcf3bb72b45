"""Targets of programs that say how a point arises and have no density: an observed site is `Delta(f(noise))`.

def program(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Delta(net(z), event_dim=1), obs=x)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from numpyro import handlers
from numpyro.distributions import Delta

from probgen.engine import drawable
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.parameters import initial_arrays, wrapped
from probgen.engine.numpyro.programs.structure import settings
from probgen.engine.numpyro.programs.tracing import structure_of
from probgen.engine.numpyro.targets import draws
from probgen.engine.numpyro.targets.rows import NumpyroRows, learnable
from probgen.engine.numpyro.wrapped import innermost
from probgen.target import Implicit, Site, Variable

WITHOUT_DENSITY = (Delta.__name__, "Driven")


class Wrong(ValueError):
    """Rows that do not fit the program."""


class NumpyroImplicit(NumpyroRows, Implicit):
    """Rows, and a program of one row without a density."""

    proper = True
    normalised = False

    @property
    def variables(self) -> dict[str, Variable]:
        points = [s for s in self.structure.row_sites if s.distribution in WITHOUT_DENSITY]
        return super().variables | {s.name: Variable(s.name, s.shape, "reals") for s in points}


def points_of(program: Callable[..., Any], data: Mapping[str, Any], candidates: list[str]) -> dict[str, Site]:
    """The observed sites of one row, by the keywords of their data; empty where none is a point mass."""
    found: dict[str, Site] = {}

    def look(arrays: Any) -> None:
        given = {**{k: v for k, v in data.items() if k not in arrays}, **arrays}
        with handlers.block():
            trace = handlers.trace(handlers.seed(FullPlates(lambda: program(**given)), jax.random.key(0))).get_trace()
        for name, site in trace.items():
            if site["type"] == "sample" and site["is_observed"]:
                source = next((k for k, v in arrays.items() if v is site["value"]), "")
                shape, kind = tuple(site["fn"].shape()), type(innermost(site["fn"])).__name__
                if source in candidates:
                    weighs = draws.weighs(site)
                    found[source] = Site(name, "observed", shape, distribution=kind, source=source, masked=weighs)

    jax.eval_shape(look, {k: v for k, v in data.items() if hasattr(v, "shape") and k in candidates})
    return found if any(site.distribution in WITHOUT_DENSITY for site in found.values()) else {}


def implicit(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str,
    sources: Mapping[str, Site], sliced: list[str],
) -> NumpyroImplicit:  # fmt: skip
    """The target; arrays: of all rows; sources: the sites that rows give, by keyword; sliced: what a row has a slice of.

    Raises Wrong for rows of another shape than the program draws.
    """
    for keyword, site in sources.items():
        if arrays[keyword].shape[1:] != site.shape:
            raise Wrong(drawable.wrong_shape(keyword, arrays[keyword].shape[1:], site.name, site.shape))
    inputs = [k for k in sliced if k not in sources]
    rest = {k: v[0] if k in inputs else v for k, v in arrays.items() if k not in sources}
    free = {**static, **dict.fromkeys(sources)}
    kept = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in rest.items()))
    learned = wrapped(program, settings(free), kept)
    begun = jax.eval_shape(lambda arrays, key: initial_arrays(learned, arrays, free, key), rest, jax.random.key(0))
    structure = structure_of(learned, {**rest, **begun}, free, precision)
    rows = tuple(sorted((k, s.name) for k, s in sources.items()))
    found = learnable(structure, rows, learned.parameters, tuple(inputs)).but(row_sites=tuple(sources.values()))
    if not learned.parameters:
        raise Wrong(drawable.NO_PARAMETERS.format("numpyro"))
    held = {
        k: jax.device_put(v.astype(precision) if k in sources and v.dtype.kind == "f" else v) for k, v in arrays.items()
    }
    return NumpyroImplicit(found, held)
