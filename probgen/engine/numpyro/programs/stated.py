"""NumPyro programs with state that changes as they run (`numpyro.mutable`): running means of batch normalisation.

The state's arrays stand among the program's parameters, without a gradient. After a step of learning a run of guide and program
says what they are next, as NumPyro's `SVI.update` keeps `mutable_state`. Keys in it stay as they begin: those of `nnx.Dropout` do,
beside a count that says which draw is next.
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

KEYS = """{!r} is state with keys of random numbers that the program changes, which cannot be learned.
Keep the key as it is and count the draws beside it, jax.random.fold_in(key, count), or draw with numpyro.prng_key()."""
FORM = "{!r} is state of another form after a run of the program than before it: give all of its arrays at once, with their shapes."
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
            msg["args"] = (as_reals(msg["args"][0]),)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param" and msg["name"] in self.kinds and msg["value"] is not None:
            leaves, tree = jax.tree.flatten(msg["value"])
            begun = jax.tree.leaves(msg["begun"]) or [None] * len(leaves)  # flax_module asks first whether there is any
            typed = zip(leaves, self.kinds[msg["name"]], begun, strict=True)
            msg["value"].update(jax.tree.unflatten(tree, [jax.lax.stop_gradient(_as(*each)) for each in typed]))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key)


def as_reals(value: Any) -> Any:
    """A state as parameters hold it: zero for every key."""
    return jax.tree.map(lambda leaf: jnp.zeros(()) if _is_key(leaf) else leaf, value)


def _as(leaf: Any, kind: str, begun: Any) -> Any:
    """An array of the state in its own type: whole numbers and truth values stand as reals among the parameters, keys not."""
    if _is_key(begun):
        return begun
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(kind, jnp.floating):
        return leaf
    return (jnp.round(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf).astype(kind)


def kinds_of(trace: Mapping[str, Any]) -> Kinds:
    """The state sites of a trace. Raises ValueError for state that is no dictionary, or has keys that the program changes."""
    found = []
    for name, site in trace.items():
        if site["type"] == "mutable":
            leaves, begun = jax.tree.leaves(site["value"]), jax.tree.leaves(site["begun"])
            odd = [leaf for leaf in leaves if not isinstance(leaf, int | float) and not hasattr(leaf, "dtype")]
            if odd or not isinstance(site["value"], dict):
                raise ValueError(HELD.format(name, type((odd or [site["value"]])[0]).__name__))
            if [*map(jnp.shape, leaves)] != [*map(jnp.shape, begun)]:
                raise ValueError(FORM.format(name))
            kinds = tuple(str(jnp.result_type(leaf)) for leaf in leaves)
            pairs = zip(begun, leaves, strict=True)
            if any((_is_key(old) or _is_key(new)) and new is not old for old, new in pairs):
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
    return {name: as_reals(trace[name]["value"]) for name in names if name in trace}
