"""Programs that say types: arrays of 32 bits that a program makes or closes over, where the run is in double precision.

    scan(step, jnp.ones(2, jnp.int32), y)       with a Bernoulli in the carry, whose draws then have 64 bits

NumPyro's scans get their first carry in the run's own types, and each step's as those of the first. What cannot be lifted (a loop
of `jax.lax`, whose carry the program makes itself) runs in single precision, as NumPyro runs it, and the fit's notes say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.primitives import Messenger

from probgen import runtime
from probgen.engine.numpyro.programs import forms
from probgen.engine.numpyro.programs.messengers import Counted
from probgen.programs.pinned import Watched

WIDE = {"float32": "float64", "int32": "int64"}
NARROWED = "The program fixes types of 32 bits ({}): it runs in float32, as NumPyro runs it, and not in float64."


class Lifted(Messenger):
    """Effect handler: the carry of a scan has the run's types, and keeps them, and so has state; see `forms` for sites."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow" and msg["fn"] is scan_wrapper:
            step, carry, *rest = msg["args"]
            msg["args"] = (_keeping(step), jax.tree.map(_lifted, carry), *rest)
        elif msg["type"] == "sample" and msg["is_observed"] and msg["value"] is not None:
            forms.observe(msg)
        elif msg["type"] == "mutable":
            msg["value"] = jax.tree.map(_lifted, msg["value"])
            msg["args"], msg["begun"] = (msg["value"],), jax.tree.map(lambda leaf: leaf, msg["value"])


class Settled(Messenger):
    """Effect handler: what a program draws from a point mass is no unknown."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
            forms.settle(msg)


def _lifted(leaf: Any) -> Any:
    """A number or array of 32 bits in 64, where the run has those; keys and small types as they are."""
    kind = str(getattr(leaf, "dtype", ""))
    return jnp.asarray(leaf).astype(WIDE[kind]) if kind in WIDE and runtime.wide() else leaf


def _keeping(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, its new carry of the types of the one before where both are integers, or both are floats."""

    def kept(carry: Any, x: Any) -> Any:
        new, out = step(carry, x)
        if jax.tree.structure(new) == jax.tree.structure(carry):
            new = jax.tree.map(_as, new, carry)
        return new, out

    return kept


def _as(new: Any, old: Any) -> Any:
    there, here = (jnp.result_type(leaf) for leaf in (new, old))
    same = there != here and any(
        jnp.issubdtype(there, kind) and jnp.issubdtype(here, kind) for kind in (jnp.integer, jnp.floating)
    )
    return jnp.asarray(new).astype(here) if same else new


class Typed(Watched):
    """A program of the user's, or a guide, run with the run's types."""

    def __call__(self, *given: Any, **data: Any) -> Any:
        with Lifted():
            return super().__call__(*given, **data)


class Modelled(Typed):
    """A program of the user's, not a guide, whose draws from point masses are its parameters."""

    def __call__(self, *given: Any, **data: Any) -> Any:
        with Settled(), Counted():
            return super().__call__(*given, **data)


def of_types(error: BaseException) -> bool:
    """Whether an error may be of types that do not fit together, and not of values that are looked at."""
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
        return False
    text = str(error)
    return isinstance(error, TypeError | ValueError) and any(
        word in text for word in ("dtype", "float32", "int32", "types")
    )


def reason(error: BaseException) -> str:
    """The first line of an error that says which types."""
    lines = [line.strip() for line in str(error).splitlines() if any(word in line for word in WIDE)]
    return (lines or str(error).splitlines() or ["types"])[0].rstrip(".,")[:160]
