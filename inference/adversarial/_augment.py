"""Random changes of pictures that can be differentiated, the same of a batch's rows and of its draws.

Translation: by up to an eighth of each side, zeros moving in. Cutout: a square of half the sides, anywhere, is zero. Source:
Zhao et al. 2020, Differentiable augmentation for data-efficient GAN training.
Shapes: (row, height, width) or (row, height, width, channel).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def changed(key: Any, points: Any, sites: tuple[str, ...], kind: str) -> Any:
    """Points {site: (row, *event)} with their pictures changed; the same key changes every batch alike."""
    if kind == "none":
        return points
    found = dict(points)
    for name in sites:
        x = points[name]
        if x.ndim < 3:
            continue
        keys = jax.random.split(key, len(x))
        found[name] = jax.vmap(lambda k, picture: _picture(k, picture, kind))(keys, x)
    return found


def _picture(key: Any, x: Any, kind: str) -> Any:
    k_shift, k_cut = jax.random.split(key)
    x = _translated(k_shift, x) if kind in ("translation", "both") else x
    return _cut(k_cut, x) if kind in ("cutout", "both") else x


def _translated(key: Any, x: Any) -> Any:
    margins = [max(1, side // 8) for side in x.shape[:2]]
    padded = jnp.pad(x, [(m, m) for m in margins] + [(0, 0)] * (x.ndim - 2))
    starts = [jax.random.randint(k, (), 0, 2 * m + 1) for k, m in zip(jax.random.split(key), margins, strict=True)]
    return jax.lax.dynamic_slice(padded, [*starts, *(0,) * (x.ndim - 2)], x.shape)


def _cut(key: Any, x: Any) -> Any:
    outside = jnp.zeros(x.shape[:2], bool)
    for axis, k in enumerate(jax.random.split(key)):
        side = x.shape[axis]
        centre = jax.random.randint(k, (), 0, side)
        far = jnp.abs(jnp.arange(side) - centre) > side // 4
        outside = outside | (far[:, None] if axis == 0 else far[None, :])
    return x * outside.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
