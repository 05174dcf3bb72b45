"""Effect handlers about a NumPyro program: whole plates, marks of loops, free parameters, shapes of data."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro import handlers, primitives
from numpyro.primitives import Messenger

from probgen.engine.numpyro.events.poisson import Poisson
from probgen.engine.numpyro.wrapped import as_kind, changed, with_parts

SCAN = " scan"  # stands for the steps of a scan where names of plates are told
MINIBATCH = """The program does not run on all rows of plate {!r} at once: its arrays have a minibatch's length, {} of {}.
Pass the data of all rows, and take the plate's indices of them, and their length."""


class FullPlates(Messenger):
    """Effect handler: plates that would draw a minibatch take their whole range.

    told: whether the error of a program whose arrays have a minibatch's length says so.
    """

    def __init__(self, fn: Any = None, told: bool = False) -> None:
        super().__init__(fn)
        self.told = told
        self.plates: dict[str, tuple[int, int]] = {}

    def __call__(self, *given: Any, **data: Any) -> Any:
        try:
            return super().__call__(*given, **data)
        except (TypeError, ValueError) as error:
            if not (self.told and self.plates):
                raise
            name, (size, part) = next(iter(self.plates.items()))
            raise ValueError(MINIBATCH.format(name, part, size)) from error

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["value"] is None:
            size, part = msg["args"][:2]
            if part not in (None, size):
                self.plates[msg["name"]] = (size, part)
            msg["args"], msg["value"] = (size, None), jnp.arange(size)


class Steps(Messenger):
    """Effect handler: marks the sites of a loop over `numpyro.contrib.funsor.markov`, as those of a scan are."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and (enumeration := sys.modules.get("numpyro.contrib.funsor.enum_messenger")):
            stack = primitives._PYRO_STACK
            if any(isinstance(handler, enumeration.LocalNamedMessenger) for handler in stack):
                msg["infer"] = {**msg["infer"], SCAN: True}


class Free(Messenger):
    """Effect handler: notes the parameters that no handler inside of it has given a value, such as `handlers.substitute`.

    keyed: whether a key of random numbers was asked for, `numpyro.prng_key()`.
    """

    def __init__(self, fn: Any = None) -> None:
        self.names: set[str] = set()
        self.keyed = False
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        self.keyed |= msg["type"] == "prng_key"
        if msg["type"] == "param" and msg["value"] is None:
            self.names.add(msg["name"])


class Widened(Messenger):
    """Effect handler: the distribution of an observed site takes the shape of its data, where no plate says it."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["is_observed"] and msg["value"] is not None and not msg["cond_indep_stack"]:
            fn, shape = msg["fn"], jnp.shape(msg["value"])
            batch = shape[: len(shape) - fn.event_dim]
            if batch != fn.batch_shape and type(fn).__name__ != "Unit":
                msg["fn"] = fn.expand(batch)


def freed(program: Any) -> Any:
    """The program with nothing observed, to be drawn from."""
    return Counted(handlers.uncondition(program))


class Counted(Messenger):
    """Effect handler: counts of large rates, and multinomials of totals that are computed from data, are drawn."""

    def process_message(self, msg: dict[str, Any]) -> None:
        drawn = msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None
        if drawn and isinstance(msg["fn"], dist.Distribution):
            msg["fn"] = changed(msg["fn"], _counted)


def _counted(fn: Any) -> Any:
    if type(fn) is dist.Poisson:
        return as_kind(fn, Poisson)
    fn = with_parts(fn, lambda part: changed(part, _counted))
    if not isinstance(fn, dist.MultinomialProbs | dist.MultinomialLogits) or fn.total_count_max is not None:
        return fn
    if not isinstance(fn.total_count, Tracer):
        return fn
    probs, fn = fn.probs, as_kind(fn, _InTurn)
    fn.probs = probs
    return fn


class _InTurn(dist.MultinomialProbs):
    """One category after the other: a binomial of what the others have left."""

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        shape, probs = sample_shape + self.batch_shape, jnp.asarray(self.probs)
        probs = jnp.moveaxis(jnp.broadcast_to(probs, shape + self.event_shape), -1, 0)
        rest = jnp.cumsum(probs[::-1], 0)[::-1]
        shares = jnp.clip(jnp.where(rest > 0, probs / jnp.where(rest > 0, rest, 1.0), 1.0), 0.0, 1.0)
        total = jnp.broadcast_to(jnp.asarray(self.total_count).astype(int), shape)

        def one(left: Any, each: Any) -> tuple[Any, Any]:
            key, share = each
            count = dist.Binomial(left, share).sample(key).astype(left.dtype)
            return left - count, count

        left, found = jax.lax.scan(one, total, (jax.random.split(key, len(probs) - 1), shares[:-1]))
        return jnp.concatenate([jnp.moveaxis(found, 0, -1), left[..., None]], -1)


_InTurn.__name__ = "MultinomialProbs"
