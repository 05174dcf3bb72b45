"""Effect handlers about a NumPyro program: whole plates, marks of loops, free parameters, shapes of data."""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
from numpyro import primitives
from numpyro.primitives import Messenger

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
