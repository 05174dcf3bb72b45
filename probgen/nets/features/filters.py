"""Responses of a picture to filters at several scales, and their correlations: a texture's summary.

    f_l = relu(K * x_l),   x_0 = x,   x_l: means of 2 by 2 pixels of x_{l-1}
    G_l = 1 / pixels sum_pixels f_l f_l'

Pictures are read on a torus, so that no pixel is nearer to an edge than another. Gatys, Ecker and Bethge 2015 (arXiv:1505.07376);
that filters at random see about as much as learned ones: Ustyuzhaninov, Brendel, Gatys and Bethge 2016 (arXiv:1606.00021).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAYOUT = ("NHWC", "HWIO", "NHWC")


def filters_at_random(num_channels: int, side: int = 5, num_filters: int = 32, seed: int = 0) -> np.ndarray:
    """Normal filters without a mean, of length one, (side, side, channel, filter): an even brightness or colour answers nothing."""
    k = np.random.default_rng(seed).normal(size=(side, side, num_channels, num_filters))
    k -= k.mean((0, 1), keepdims=True)
    return k / np.sqrt((k**2).sum((0, 1, 2)))


def halved(x: Any) -> Any:
    """Means of 2 by 2 pixels, (h, w, c) -> (h // 2, w // 2, c); an odd row or column at the end is left out."""
    h, w, c = x.shape[0] // 2, x.shape[1] // 2, x.shape[2]
    return x[: 2 * h, : 2 * w].reshape(h, 2, w, 2, c).mean((1, 3))


def coarse(x: Any, num_halvings: int) -> Any:
    """A picture (height, width) or (height, width, channel), halved so often: (h, w, channel)."""
    x = _with_channel(x)
    for _ in range(num_halvings):
        x = halved(x)
    return x


def correlations(x: Any, filters: Any, num_scales: int) -> Any:
    """G of every scale, (scale, filter, filter), of a picture (height, width) or (height, width, channel).

    filters: (side, side, channel, filter), of odd side.
    """
    found, x, edge = [], _with_channel(x), (filters.shape[0] // 2,) * 2
    for _ in range(num_scales):
        whole = jnp.pad(x, (edge, edge, (0, 0)), "wrap")[None]
        seen = jax.lax.conv_general_dilated(whole, filters.astype(x.dtype), (1, 1), "VALID", dimension_numbers=LAYOUT)
        f = jnp.maximum(seen, 0).reshape(-1, filters.shape[-1])
        found.append(f.T @ f / len(f))
        x = halved(x)
    return jnp.stack(found)


def check_pictures(filters: Any, num_scales: int, **pictures: Any) -> None:
    """ValueError, naming the picture, where one is too small for the filters at the last scale, or has other channels."""
    if filters.ndim != 4 or filters.shape[0] != filters.shape[1] or filters.shape[0] % 2 == 0:
        raise ValueError(f"filters have shape {filters.shape}; expected (side, side, channel, filter), of an odd side.")
    for name, x in pictures.items():
        if (channels := 1 if x.ndim == 2 else x.shape[-1]) != filters.shape[2]:
            raise ValueError(f"{name} has {channels} channels and the filters {filters.shape[2]}; expected as many.")
        least = filters.shape[0] * 2 ** (num_scales - 1)
        if min(x.shape[:2]) < max(least, 2**num_scales):
            raise ValueError(
                f"{name} is {x.shape[0]} by {x.shape[1]} pixels; filters of {filters.shape[0]} see {least} pixels at scale "
                f"{num_scales}.\nPass a larger picture, or fewer scales."
            )


def _with_channel(x: Any) -> Any:
    return x.reshape(*x.shape[:2], -1)
