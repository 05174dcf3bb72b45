"""Distances of points from points, written once for the arrays of both engines. Shapes: points (row, coordinate)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

SHOWN = 512  # rows at a look
LINES = 64  # directions of a look


@dataclass(frozen=True)
class Words:
    """What a distance is written with, beside operators, in JAX; key: of what is random in one."""

    key: Any = None

    def exp(self, x: Any) -> Any:
        import jax.numpy as jnp

        return jnp.exp(x)

    def clip(self, x: Any, least: float) -> Any:
        import jax.numpy as jnp

        return jnp.clip(x, least)

    def trace(self, x: Any) -> Any:
        return x.trace()

    def sort(self, x: Any) -> Any:
        """Along the first axis."""
        import jax.numpy as jnp

        return jnp.sort(x, 0)

    def normal(self, shape: tuple[int, ...], like: Any) -> Any:
        """Standard normal numbers of the type of `like`."""
        import jax

        return jax.random.normal(self.key, shape, like.dtype)

    def divergence(self, x: Any, y: Any, epsilon: Any, most: int) -> Any:
        """The Sinkhorn divergence, epsilon in units of the cost, of at most so many steps of each transport: ()."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt says that it is no longer maintained
            from ott.geometry.pointcloud import PointCloud
            from ott.tools.sinkhorn_divergence import sinkhorn_divergence

        settings = {"max_iterations": most}
        return sinkhorn_divergence(PointCloud, x, y.astype(x.dtype), epsilon=epsilon, solve_kwargs=settings)[0]


def centred(x: Any, y: Any) -> tuple[Any, Any]:
    """Points less the mean of x: squared distances by products would lose their digits to a mean that is far from 0."""
    return x - x.mean(0), y - x.mean(0)


def sliced(words: Any, x: Any, y: Any, num_lines: int) -> Any:
    """The squared sliced Wasserstein-2 distance of as many points x as y, by random lines: ()."""
    lines = words.normal((x.shape[1], num_lines), x)
    lines = lines / (lines**2).sum(0) ** 0.5
    gap = words.sort(x @ lines) - words.sort(y @ lines)
    return x.shape[1] * (gap**2).mean()
