"""Networks that grow: a generator and a critic of pictures of 4, 8, 16, 32, ... pixels a side (Karras et al. 2018).

Stage k adds a block to those of stage k - 1 and fades in: with weight a, the picture is a times the new one plus 1 - a times the
old one, its pixels repeated, and the critic sees the new block's features as a share a. At 0 both are exactly the smaller networks,
at 1 the larger ones. Every block is registered under its own name, so that a stage begins where the last one ended.
Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.adversarial.conditional import doubled
from probgen.nets.adversarial.layers import TINY, Same, leak, pixel_norm
from probgen.nets.flows import registered

SMALLEST = 4  # pixels of a side at stage 0
ROWS = "rows"  # the axis of a batch, as `engine.numpyro.targets.draws` names it


def batch_spread(h: Any) -> Any:
    """The standard deviation over the rows of a batch, averaged over the entries of a row: ().

    Rows are the axis "rows"; outside of one a row is a batch of its own, and the spread 0.
    """
    try:
        mean = jax.lax.pmean(h, ROWS)
        variance = jax.lax.pmean((h - mean) ** 2, ROWS)
    except NameError:
        return jnp.zeros((), h.dtype)
    return jnp.sqrt(variance + TINY).mean()


def halved(x: Any) -> Any:
    """Means of squares of four pixels: (2 height, 2 width, n) -> (height, width, n)."""
    height, width, n = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, n).mean((1, 3))


def _faded(fade: Any, new: Any, old: Any) -> Any:
    """fade new + (1 - fade) old, and exactly one of them at 1 or 0; old: () -> array, not made where it does not count."""
    if isinstance(fade, int | float) and fade == 1:
        return new
    return fade * new + (1 - fade) * old()


def _same(name: str, num_in: int, num_out: int, side: int = 3) -> Same:
    return registered(name, lambda key: Same(num_in, num_out, side, key=key))


def grown(name: str, z: Any, stage: int, num_outputs: int, num_filters: int, fade: Any, end: Any) -> Any:
    """A picture (4 2^stage, 4 2^stage, outputs) of noise; end: what makes a picture of a block's outputs."""
    first = registered(f"{name} 0 noise", lambda key: eqx.nn.Linear(len(z), SMALLEST**2 * num_filters, key=key))
    x = pixel_norm(leak(first(pixel_norm(z)).reshape(SMALLEST, SMALLEST, -1)))
    x = pixel_norm(leak(_same(f"{name} 0", num_filters, num_filters)(x)))
    before = x
    for k in range(1, stage + 1):
        before, x = x, doubled(x)
        for part in "ab":
            x = pixel_norm(leak(_same(f"{name} {k}{part}", num_filters, num_filters)(x)))
    shown = lambda k, x: end(_same(f"{name} {k} pixels", num_filters, num_outputs, 1)(x))  # noqa: E731
    if not stage:
        return shown(0, x)
    return _faded(fade, shown(stage, x), lambda: doubled(shown(stage - 1, before)))


def judged(name: str, x: Any, stage: int, num_filters: int, fade: Any) -> Any:
    """A critic's logit of a picture (4 2^stage, 4 2^stage, channel), which looks at the spread of its batch: ()."""
    seen = lambda k, x: leak(_same(f"{name} {k} pixels", x.shape[-1], num_filters, 1)(x))  # noqa: E731
    h = seen(stage, x)
    for k in range(stage, 0, -1):
        for part in "ab":
            h = leak(_same(f"{name} {k}{part}", num_filters, num_filters)(h))
        h = halved(h)
        if k == stage:
            h = _faded(fade, h, lambda: seen(stage - 1, halved(x)))
    h = jnp.concatenate([h, jnp.broadcast_to(batch_spread(h), (*h.shape[:2], 1))], -1)
    h = leak(_same(f"{name} 0", num_filters + 1, num_filters)(h)).ravel()
    make = lambda key: eqx.nn.MLP(h.size, "scalar", num_filters, 1, eqx.nn.Lambda(leak), key=key)  # noqa: E731
    return registered(f"{name} 0 last", make)(h)
