"""What convolutions see in a picture, layer by layer: by which two pictures are alike though their pixels differ.

    f_l = relu(K_l * f_{l-1} + b_l),   f_0 = x,          d(x, x') = sum_l mean over places |u_l(x) - u_l(x')|^2,   u_l = f_l / |f_l|

The filters are given and fixed; |f| is the length of a place's channels. Before a layer the sides may be halved, by means or by
maxima of 2 by 2. Features are all u_l one after the other, scaled so that half the squared distance of two pictures is d / 2 times
their pixels, as a sum over pixels is. Zhang, Isola, Efros, Shechtman and Wang 2018 (LPIPS, arXiv:1801.03924), its weights all one.
Shapes: x: (height, width) or (height, width, channel), from 0 to 1; weights: (number,), all layers one after the other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TINY = 1e-8  # added to squared lengths
CENTRE, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as torchvision's nets see them


@dataclass(frozen=True)
class Layer:
    """Filters of odd side, from `num_in` to `num_out` channels, with a stride.

    halved: "", "mean" or "max", before it. scaled: whether channels are first put on the scale of ImageNet's nets.
    """

    side: int
    num_in: int
    num_out: int
    stride: int = 1
    halved: str = ""
    scaled: bool = False

    @property
    def size(self) -> int:
        """Numbers: filters (side, side, in, out), then biases (out,)."""
        return self.side**2 * self.num_in * self.num_out + self.num_out


def packed(source: str, layers: list[Layer], filters: list[np.ndarray], biases: list[np.ndarray]) -> dict[str, Any]:
    """Layers in words, with where they are from, and their numbers as one array: keywords of `features`."""
    parts = [np.ravel(part) for pair in zip(filters, biases, strict=True) for part in pair]
    words = json.dumps({"from": source, "layers": [asdict(layer) for layer in layers]})
    return {"layers": words, "weights": np.concatenate(parts).astype(np.float32)}


def source_of(layers: str) -> str:
    """Where the layers are from."""
    return json.loads(layers)["from"] if layers else ""


def features(x: Any, weights: Any, layers: str) -> Any:
    """All u_l of a picture, (feature,); none without layers."""
    known = [Layer(**layer) for layer in json.loads(layers)["layers"]] if layers else []
    parts, start, x = [], 0, x[..., None] if x.ndim == 2 else x
    pixels = x.shape[0] * x.shape[1]
    if known and known[0].num_in == 3:
        x = jnp.broadcast_to(x, (*x.shape[:2], 3))
    for layer in known:
        numbers = weights[start : start + layer.size].astype(x.dtype)
        start += layer.size
        x = (x - jnp.asarray(CENTRE, x.dtype)) / jnp.asarray(SPREAD, x.dtype) if layer.scaled else x
        x = _seen(_halved(x, layer.halved), numbers, layer)
        unit = x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + TINY)
        parts.append(jnp.ravel(unit) * (pixels / (x.shape[0] * x.shape[1])) ** 0.5)
    return jnp.concatenate(parts) if parts else jnp.zeros(0, x.dtype)


def _seen(x: Any, numbers: Any, layer: Layer) -> Any:
    """As neighbours side by side times one matrix, which is fast on a CPU; a margin of zeros."""
    (height, width, _), n, step = x.shape, layer.side, layer.stride
    x = jnp.pad(x, ((n // 2, n // 2), (n // 2, n // 2), (0, 0)))
    sides = [x[i : i + height : step, j : j + width : step] for i in range(n) for j in range(n)]
    filters, bias = numbers[: -layer.num_out].reshape(-1, layer.num_out), numbers[-layer.num_out :]
    return jax.nn.relu(jnp.concatenate(sides, -1) @ filters + bias)


def _halved(x: Any, how: str) -> Any:
    """An odd row or column at the end is left out."""
    if not how:
        return x
    h, w = x.shape[0] // 2, x.shape[1] // 2
    squares = x[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1)
    return squares.mean((1, 3)) if how == "mean" else squares.max((1, 3))


def halvings(layers: list[Layer]) -> int:
    """How often the layers halve a picture's sides before the last."""
    return sum(bool(layer.halved) + (layer.stride == 2) for layer in layers)
