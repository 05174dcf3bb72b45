"""Sites on which nothing else depends: they sum to one whatever the rest is, so the rest has a density without them.

    p(h, v) = exp f(h) p(v | h) / Z,   sum_v p(h, v) = exp f(h) / Z

They are drawn last, by the program itself. Barren nodes of a graph: Shachter 1986 (doi:10.1287/opre.34.6.871).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen import runtime
from probgen.engine.numpyro.kinds import kind
from probgen.engine.numpyro.programs.structure import MEASURES, PARTLY
from probgen.engine.numpyro.programs.tracing import structure_of
from probgen.engine.numpyro.sums import blocking

FILLS = (0.0, 1.0, np.nan)  # of sites that are left out: nothing may change with them


class Absent(Messenger):
    """Effect handler: some sites have a constant value and no density."""

    def __init__(self, sites: tuple[str, ...], fill: float) -> None:
        super().__init__()
        self.names, self.fill = sites, fill

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.names:
            msg["value"], msg["stop"] = jnp.full(msg["fn"].shape(), self.fill), True


@dataclass(frozen=True)
class Pruned:
    """A program without some of its sites."""

    program: Callable[..., Any]
    sites: tuple[str, ...]
    fill: float = 0.0

    def __call__(self, **data: Any) -> Any:
        with Absent(self.sites, self.fill):
            return self.program(**data)

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "program")


def pruned(target: Any) -> Any:
    """The target without the sites on which no other depends; itself where there are none."""
    with runtime.jax_scope(target.precision):
        names: tuple[str, ...] = ()
        for site in reversed(target.sites):
            drawn = site.kind == "latent" and site.distribution not in MEASURES
            if drawn and site.name not in target.known and _barren(target, (*names, site.name)):
                names = (*names, site.name)
    return _without(target, names) if names else target


def _without(target: Any, names: tuple[str, ...], fill: float = 0.0) -> Any:
    s = target.structure
    program = Pruned(s.program, names, fill)
    structure = structure_of(program, target.arrays, s.static, s.precision)
    return kind(structure)(structure, target.arrays)


def _barren(target: Any, names: tuple[str, ...]) -> bool:
    """Whether the density of the other sites stays what it is, bit for bit, wherever these are; not if it cannot be had."""
    rest = tuple(v for v in target.variables if v.name not in names)
    if not rest:
        return False
    try:
        tried = [_without(target, names, fill) for fill in FILLS]
        for probe in range(blocking.PROBES):
            values = blocking.random_points(rest, probe, corners=True)
            found = np.array([float(one.joint(values)) for one in tried])
            if not (np.isfinite(found) & (found == found[0])).all():
                return False
    except (TypeError, ValueError, IndexError):  # a value that is used as an index, for one
        return False
    return True


def completed(target: Any, draws: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """All sites, some as given, (draw, *event), and the others drawn by the program run forward."""
    with runtime.jax_scope(target.precision):
        keys = jax.random.split(jax.random.key(seed), len(next(iter(draws.values()))))
        found = _completed(target, keys, {k: jnp.asarray(v, target.precision) for k, v in draws.items()})
        return {v.name: np.asarray(found[v.name]) for v in target.variables}


@jax.jit
def _completed(target: Any, keys: Any, draws: Any) -> dict[str, Any]:
    def one(key: Any, values: Any) -> dict[str, Any]:
        known = {k: v for k, v in target.data.items() if not k.endswith(PARTLY)}
        program = functools.partial(target.structure.program, **known)
        with handlers.block():
            trace = handlers.trace(handlers.seed(handlers.substitute(program, data=values), key)).get_trace()
        return {v.name: trace[v.name]["value"] for v in target.variables}

    return jax.vmap(one)(keys, draws)
