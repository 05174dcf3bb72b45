"""A program of many independent rows as one of a single row, whose unknowns are parameters.

    numpyro.sample("loc", dist.Normal(0, 1))                    ->  numpyro.param("loc", ..., constraint=constraints.real)
    with numpyro.plate("row", len(x)): numpyro.sample("x", ...)  ->  numpyro.sample("x", ...)

So learners of parameters take the programs that samplers take: the prior is left out, its support stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution
from numpyro.primitives import Messenger

from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import Structure, biject
from probgen.engine.numpyro.programs.tracing import structure_of
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.programs.about import About

TOLERANCE = 1e-3  # of the log density of two rows against the sum of theirs


class First(Distribution):
    """A distribution of one row of a batch of one: batch shape (1, ...) without its first axis."""

    pytree_data_fields = ("rows",)

    def __init__(self, rows: Distribution, *, validate_args: bool | None = None):
        self.rows = rows
        super().__init__(rows.batch_shape[1:], rows.event_shape, validate_args=validate_args)

    @property
    def bare(self) -> Distribution:
        """The distribution of one row, where the plate has only repeated it."""
        return self.rows.base_dist if isinstance(self.rows, ExpandedDistribution) else self.rows

    @property
    def support(self) -> Any:
        return self.rows.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jnp.squeeze(self.rows.sample(key, sample_shape), len(sample_shape))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        at = value.ndim - self.event_dim - len(self.batch_shape)
        return jnp.squeeze(self.rows.log_prob(jnp.expand_dims(value, at)), at)


class Likelihood(Messenger):
    """Effect handler: unknowns become parameters, rows lose their axis."""

    def __init__(self, fn: Any, values: Mapping[str, Any], sites: tuple[str, ...]):
        self.values = list(values.values())  # batches of one, and what they hold
        self.sites = sites  # names of sites of rows
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if msg["name"] in self.sites:
            held = [one for batch, one in self.values if batch is msg["value"]]
            msg["fn"], msg["cond_indep_stack"] = First(msg["fn"]), []
            msg["value"] = held[0] if held else msg["value"]
        elif not msg["is_observed"]:
            prior = msg["fn"]
            start = lambda *_, **__: prior.sample(numpyro.prng_key())  # noqa: E731
            msg.update(
                type="param",
                fn=start,
                args=(None,),
                kwargs={"constraint": prior.support},
                scale=None,
                cond_indep_stack=[],
            )

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.sites:
            msg["value"] = msg["value"][None]


@dataclass(frozen=True)
class OneRow(About):
    """The program of one row. rows: keywords of observed rows and their sites; inputs: keywords of which a row has a slice."""

    program: Callable[..., Any]
    rows: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]

    def __call__(self, **data: Any) -> Any:
        names = [k for k, _ in self.rows] + list(self.inputs)
        given = {k: data[k] for k in names if data.get(k) is not None}
        batches = {k: (v[None], v) for k, v in given.items()}
        closed = functools.partial(self.program, **{**data, **{k: batch for k, (batch, _) in batches.items()}})
        return Likelihood(closed, batches, tuple(site for _, site in self.rows))()


def one_row(target: NumpyroTarget) -> OneRow | None:
    """The program of one row of a target's data; None where its rows are not independent given its unknowns."""
    structure: Structure = target.structure
    program, static, precision = structure.program, dict(structure.static), structure.precision
    arrays = {k: np.asarray(v) for k, v in target.arrays.items()}
    observed = {s.source: s.name for s in structure.sites if s.kind == "observed" and s.source}
    if not observed or len(observed) != len(_observed(structure)):
        return None
    counts = {len(arrays[k]) if arrays[k].ndim else 0 for k in observed}
    if len(counts) > 1 or 0 in counts:
        return None
    shared = [k for k in arrays if k not in observed]
    by_row = tuple(k for k in shared if arrays[k].ndim and len(arrays[k]) in counts)
    for inputs in [(), by_row] if by_row else [()]:
        sliced = [*observed, *inputs]
        some = lambda rows, sliced=sliced: {k: v[rows] if k in sliced else v for k, v in arrays.items()}  # noqa: E731
        try:
            one, two = (structure_of(program, some(slice(n)), static, precision) for n in (1, 2))
            if one.dim == two.dim == structure.dim and _additive(one, two, some):
                return OneRow(program, tuple(sorted(observed.items())), inputs)
        except Exception:
            continue
    return None


def _additive(one: Any, two: Any, some: Callable[[slice], dict[str, Any]]) -> bool:
    """Whether the log likelihood of two rows is the sum of theirs, at a point in general position."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=one.dim))
    first, second, both = (
        _log_likelihood(s, some(slice(*ends)), z) for s, ends in ((one, (1,)), (one, (1, 2)), (two, (2,)))
    )
    return bool(abs(first + second - both) <= TOLERANCE * (1 + abs(both)))


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(structure: Any, arrays: Mapping[str, Any], z: Any) -> Any:
    """The log density of the observed sites at a point."""
    values = structure.unravel(z)
    program = handlers.substitute(FullPlates(structure.closed(arrays)), substitute_fn=functools.partial(biject, values))
    trace = handlers.trace(program).get_trace()
    return sum(jnp.sum(trace[k]["fn"].log_prob(trace[k]["value"])) for k in _observed(structure))


def _observed(structure: Structure) -> list[str]:
    return [site.name for site in structure.sites if site.kind == "observed"]
