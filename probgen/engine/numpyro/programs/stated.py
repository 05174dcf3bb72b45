"""NumPyro programs with state that changes as they run (`numpyro.mutable`): running means of batch normalisation.

The state's arrays stand among the program's parameters, without a gradient. After a step of learning a run of guide and program
says what they are next, as NumPyro's `SVI.update` keeps `mutable_state`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen.programs.about import About

STATE = """{!r} is state that changes as the program runs (numpyro.mutable, batch normalisation); no density holds it.
Learn it with a guide, pg.fit(program, data, 'svi', guide=guide), or use a network without it (layer normalisation)."""

KEYS = """{!r} is state with keys of random numbers (nnx.Dropout, nnx.Rngs), which cannot be learned.
Leave these layers out, or draw with numpyro.prng_key() in the program."""
HELD = '{!r} is state in a {}; expected a dictionary that the program changes, numpyro.mutable(name, {{"mean": 0.0}}).'

Kinds = tuple[tuple[str, tuple[str, ...]], ...]  # state sites, and the types of the arrays of each


class HasState(ValueError):
    """A program has state; kinds: see `Kinds`."""

    def __init__(self, kinds: Kinds):
        super().__init__(STATE.format(kinds[0][0]))
        self.kinds = kinds


@dataclass(frozen=True)
class Stated(About):
    """A program whose state sites are parameters of the same names."""

    program: Callable[..., Any]
    kinds: Kinds

    def __call__(self, *args: Any, **data: Any) -> Any:
        with _States(self.kinds):
            return self.program(*args, **data)

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return getattr(self.program, "base", self.program)


class _States(Messenger):
    """Effect handler: state sites become parameters. The program changes their dictionaries in place, which a trace then shows."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = dict(kinds)
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "mutable" and msg["name"] in self.kinds:
            msg["type"], msg["value"] = "param", None

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param" and msg["name"] in self.kinds and msg["value"] is not None:
            leaves, tree = jax.tree.flatten(msg["value"])
            typed = zip(leaves, self.kinds[msg["name"]], strict=True)
            msg["value"].update(jax.tree.unflatten(tree, [jax.lax.stop_gradient(_as(*each)) for each in typed]))


def _as(leaf: Any, kind: str) -> Any:
    """An array of the state in its own type: whole numbers stand as reals among the parameters."""
    return jnp.asarray(leaf) if jnp.issubdtype(kind, jnp.floating) else jnp.round(leaf).astype(kind)


def kinds_of(trace: Mapping[str, Any]) -> Kinds:
    """The state sites of a trace. Raises ValueError for state that is no dictionary of numbers, such as keys of random numbers."""
    found = []
    for name, site in trace.items():
        if site["type"] == "mutable":
            kinds = tuple(str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(site["value"]))
            if not isinstance(site["value"], dict):
                raise ValueError(HELD.format(name, type(site["value"]).__name__))
            if any(kind.startswith("key<") for kind in kinds):
                raise ValueError(KEYS.format(name))
            found.append((name, kinds))
    return tuple(found)


@functools.lru_cache(maxsize=64)
def stated(program: Callable[..., Any], kinds: Kinds) -> Stated:
    """The program with its state among its parameters: one object for one program."""
    return Stated(program, kinds)


def with_state(guide: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any]) -> Callable[..., Any]:
    """A guide with its state among its parameters; itself where it has none."""
    found: list[Kinds] = []

    def look(arrays: Mapping[str, Any]) -> None:
        started = handlers.seed(lambda: guide(**arrays, **static), jax.random.key(0))
        found.append(kinds_of(handlers.trace(started).get_trace()))

    jax.eval_shape(look, arrays)
    return stated(guide, found[0]) if found[0] else guide


def left(trace: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What a run leaves in its states."""
    return {name: trace[name]["value"] for name in names if name in trace}
