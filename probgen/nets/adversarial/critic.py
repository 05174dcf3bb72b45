"""The critic of rows that comes with none of its own: a perceptron of vectors, convolutions of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.convolutions import Conv, leaky
from probgen.nets.flows import registered


@dataclass(frozen=True)
class Critic:
    """D(x), a number: three hidden layers of leaky relus for vectors; for pictures, convolutions that halve the sides.

    rows: keywords of what is seen; a picture is an array with two axes of at least 8, or three, the last its channels. Other
    arrays, such as inputs, are seen beside it at the last layer.
    """

    rows: tuple[str, ...]
    width: int = 128
    num_filters: int = 32

    def __call__(self, **data: Any) -> Any:
        arrays = [jnp.asarray(data[k]).astype(jnp.result_type(float)) for k in self.rows]
        pictures = [x[..., None] if x.ndim == 2 else x for x in arrays if _is_picture(x)]
        flat = [jnp.ravel(x) for x in arrays if not _is_picture(x)]
        if pictures:
            flat = [*flat, self._convolutions(pictures[0].shape)(pictures[0]).ravel()]
            flat += [jnp.ravel(x) for x in pictures[1:]]
        seen = jnp.concatenate(flat)
        depth = 1 if pictures else 3
        return registered("critic", lambda key: eqx.nn.MLP(seen.size, "scalar", self.width, depth, leaky, key=key))(
            seen
        )

    def _convolutions(self, shape: tuple[int, ...]) -> Any:
        halvings = max(n for n in range(4) if all(side % 2**n == 0 and side >= 2**n for side in shape[:2]))

        def make(key: Any) -> Any:
            keys, layers, before = jax.random.split(key, max(halvings, 1)), [], shape[2]
            for i, k in enumerate(keys):
                layers += [
                    Conv(before, self.num_filters * 2**i, 4 if halvings else 3, 2 if halvings else 1, key=k),
                    leaky,
                ]
                before = self.num_filters * 2**i
            return eqx.nn.Sequential(layers)

        return registered("critic pictures", make)

    @property
    def __name__(self) -> str:
        return "critic"


def _is_picture(x: Any) -> bool:
    return x.ndim == 3 or (x.ndim == 2 and min(x.shape) >= 8)
