"""A NumPyro program run forward on given noise: every draw takes its part of one vector of standard normals.

The law of what is drawn is the program's own where the vector is standard normal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen.engine.numpyro.events import normals


class Tape(Messenger):
    """Effect handler: draws take their noise from `noise` (dim,), from its beginning on; None counts what they take.

    used: how much was taken; anew: what is drawn by keys.
    """

    def __init__(self, fn: Any = None, noise: Any = None, dtype: Any = "float64") -> None:
        super().__init__(fn)
        self.noise, self.dtype, self.used, self.anew = noise, dtype, 0, []

    def normals(self, shape: tuple[int, ...]) -> Any:
        """Noise of a shape."""
        begin, self.used = self.used, self.used + math.prod(shape)
        if self.noise is None:
            return jnp.zeros(shape, self.dtype)
        return self.noise[begin : self.used].reshape(shape)

    def keys(self, count: int, name: str = "") -> Any:
        """Keys that are hashes of noise: (count,)."""
        self.anew += [name] if name else []
        return jax.vmap(_hashed)(self.normals((count,)))

    def key(self, name: str = "") -> Any:
        return self.keys(1, name)[0]

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["value"] is not None or msg.get("is_observed"):
            return
        if msg["type"] == "sample":
            shape = (*(msg["kwargs"].get("sample_shape") or ()), *msg["fn"].shape())
            msg["value"] = normals.value(msg["fn"], shape, self)
        elif msg["type"] == "prng_key":
            msg["value"] = self.key("what the program draws by keys of its own")
        elif msg["type"] == "control_flow" and len(msg["args"]) == 5:
            msg["args"] = self._scanned(*msg["args"])
        elif msg["type"] == "control_flow":
            msg["kwargs"]["rng_key"] = self.key("control flow")

    def _scanned(self, f: Any, init: Any, xs: Any, length: int | None, reverse: bool) -> tuple[Any, ...]:
        """The arguments of a scan whose steps take their noise from their own part."""
        steps: int = jax.tree.leaves(xs)[0].shape[0] if length is None else length
        one = Tape(f, None, self.dtype)
        with handlers.block():
            jax.eval_shape(one, init, jax.tree.map(lambda x: x[0], xs))
        self.anew += one.anew
        return _stepped(f, self.dtype), init, (xs, self.normals((steps, one.used))), steps, reverse


def _stepped(f: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    return lambda carry, x: Tape(f, x[1], dtype)(carry, x[0])


def _hashed(noise: Any) -> Any:
    """A key of JAX, a function of one number's bits."""
    bits = jnp.ravel(jax.lax.bitcast_convert_type(noise, jnp.uint32))
    return functools.reduce(jax.random.fold_in, [bits[i] for i in range(bits.size)], jax.random.key(7))


def ran(program: Callable[[], Any], noise: Any, dtype: Any) -> tuple[dict[str, Any], Tape]:
    """The values of all sites, and the tape; program: with nothing observed but what is known."""
    tape = Tape(program, noise, dtype)
    with handlers.block():
        trace = handlers.trace(tape).get_trace()
    return {k: s["value"] for k, s in trace.items() if s["type"] in ("sample", "deterministic")}, tape
