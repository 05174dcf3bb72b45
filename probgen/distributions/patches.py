"""A picture said by what its pixels may be given those around them, which a sample shows: a non-parametric Markov random field."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from probgen.data.whole_numbers import whole

NO_DENSITY = (
    "Patches says each pixel given its neighbours, which need not agree with any joint law: there is no log density, and "
    "nothing is drawn forward.\nUse inference='efros_leung' or 'quilting'."
)


class Patches(Distribution):
    """p(x_i | x around i): that pixel of the sample whose surroundings are nearest, see `Places`.

    picture: the sample, (height, width) or (height, width, 3). height, width: of x.
    window: side of the square around a pixel that it depends on, odd. tolerance: by how much more than the nearest a place may
    differ and still be drawn, as a share of its distance.
    """

    arg_constraints = {}  # noqa: RUF012
    pytree_data_fields = ("picture",)
    pytree_aux_fields = ("height", "width", "window", "tolerance")

    def __init__(
        self, picture: Any, height: int, width: int, window: int = 11, tolerance: float = 0.1, *, validate_args: Any = None
    ):  # fmt: skip
        shape = jnp.shape(picture)
        height, width, window = map(_pixels, ("height", "width", "window"), (height, width, window))
        if len(shape) not in (2, 3):
            raise ValueError(f"The sample has shape {shape}; expected (height, width) or (height, width, 3).")
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window is {window}; it must be odd, with the pixel in its middle: 5, 7, ...")
        if window > min(shape[:2]):
            raise ValueError(f"window is {window}; the sample of {shape[0]} by {shape[1]} pixels has none so large.")
        if height < 1 or width < 1:
            raise ValueError(f"height is {height} and width is {width}; both must be above 0")
        if tolerance < 0:
            raise ValueError(f"tolerance is {tolerance}; it must be 0 or more")
        self.picture, self.height, self.width = picture, height, width
        self.window, self.tolerance = window, tolerance
        super().__init__((), (height, width, *shape[2:]), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        raise NotImplementedError(NO_DENSITY)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        raise NotImplementedError(NO_DENSITY)

    @property
    def standard(self) -> Any:
        """The sample with mean 0 and standard deviation 1: (height, width, channel)."""
        values = jnp.reshape(self.picture, (*jnp.shape(self.picture)[:2], -1))
        spread = jnp.std(values)
        return (values - jnp.mean(values)) / jnp.where(spread > 0, spread, 1.0)

    def places(self, side: int) -> Places:
        """All squares of the sample of so many pixels a side, in rows from the top."""
        values = self.standard
        down, across = (n - side + 1 for n in values.shape[:2])
        row = jnp.arange(side)[:, None, None, None] + jnp.arange(down)[:, None]
        column = jnp.arange(side)[:, None, None] + jnp.arange(across)
        table = values[row, column].reshape(side * side, down * across, -1).swapaxes(1, 2).reshape(-1, down * across)
        return Places(jnp.concatenate([table**2, table]), side, across)

    @property
    def weights(self) -> Any:
        """How much the pixels of a window count: a Gaussian of standard deviation window / 6.4, (window, window)."""
        away = jnp.arange(self.window) - self.window // 2
        near = jnp.exp(-0.5 * (away * 6.4 / self.window) ** 2)
        return near[:, None] * near

    def log_conditional(self, around: Any, known: Any) -> Any:
        """log p of every place for the middle of a window, given what is known of it, in nats: (place,).

        around: (window, window, channel) in the units of `standard`; known: (window, window), booleans.
        """
        admitted = self.admitted(self.places(self.window).distances(around, self.weights * known), 1)
        return jnp.where(admitted, -jnp.log(jnp.sum(admitted)), -jnp.inf)

    def admitted(self, distances: Any, neighbours: int) -> Any:
        """Which places are drawn, all alike: as near as the nearest so many, or farther by the tolerance: (place,), booleans."""
        few = min(neighbours, len(distances))
        last = jnp.min(distances) if few == 1 else -jax.lax.top_k(-distances, few)[0][-1]
        return distances <= (1 + self.tolerance) * last + 100 * jnp.finfo(distances.dtype).eps


def _pixels(name: str, value: Any) -> Any:
    """A number of pixels, which a float may say too; ValueError for a fraction."""
    return whole(name, value) if isinstance(value, float | np.floating | np.ndarray) else value


class Places(NamedTuple):
    """Squares of a sample: squares and values of their pixels, (2 side side channel, place); side; how many start in one row."""

    table: Any
    side: int
    across: int

    def distances(self, around: Any, weights: Any) -> Any:
        """Mean squares of the difference of every place and (side, side, channel), by weights (side, side): (place,).

        In variances of the sample; 0 where all weights are.
        """
        count = self.table.shape[0] // (2 * self.side**2)
        total = jnp.sum(weights)
        each = jnp.repeat(jnp.ravel(weights) / jnp.where(total > 0, total, 1.0), count) / count
        known = jnp.where(each > 0, jnp.ravel(around), 0.0)
        product = jnp.matmul(jnp.concatenate([each, -2 * each * known]), self.table, precision="highest")
        return jnp.maximum(product + jnp.sum(each * known**2), 0.0)

    def values(self, place: Any) -> Any:
        """The pixels of one place: (side, side, channel)."""
        half = self.table.shape[0] // 2
        return self.table[half:, place].reshape(self.side, self.side, -1)

    def indices(self, place: Any, width: int) -> Any:
        """Where the pixels of one place are in the sample of that width, counted in rows from the top: (side, side)."""
        top, left = place // self.across, place % self.across
        return (top + jnp.arange(self.side))[:, None] * width + left + jnp.arange(self.side)


def drawn(key: Any, admitted: Any) -> Any:
    """One of the admitted places, all alike."""
    count = jnp.cumsum(admitted)
    return jnp.searchsorted(count, jax.random.randint(key, (), 0, count[-1]), side="right")
