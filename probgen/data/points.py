"""Points and unknowns of a target: parameters that an algorithm learns, and what has a posterior given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probgen.target import Continuous


def free(target: Continuous) -> np.ndarray:
    """The coordinates of a flat point that are unknowns: (coordinate,)."""
    return np.setdiff1d(np.arange(target.dim), target.point_index)


class AtPoints(Continuous):
    """The unknowns of a target, its parameters held at given points: what a search or a guide asks of a target.

    points: the parameters' coordinates, unconstrained, (point,). An unknown u is (unknown,); `dim` counts unknowns.
    """

    def __init__(self, target: Continuous, points: Any) -> None:
        self.target, self.theta = target, points
        self.engine, self.ops, self.free = target.engine, target.ops, free(target)
        self.dim, self.precision = len(self.free), target.precision
        self.sites, self.data = target.sites, target.data
        self._order = np.argsort(np.concatenate([target.point_index, self.free]))

    def whole(self, u: Any) -> Any:
        """The target's flat points: (..., unknown) -> (..., dim)."""
        xp = self.ops.xp
        points = xp.broadcast_to(self.theta, (*u.shape[:-1], len(self.theta)))
        return xp.concatenate([points, u], -1)[..., self._order]

    def log_density(self, u: Any) -> Any:
        return self.target.log_density(self.whole(u))

    def value_and_grad(self, u: Any) -> tuple[Any, Any]:
        value, gradient = self.target.value_and_grad(self.whole(u))
        return value, gradient[self.free]

    def log_density_batch(self, u: Any) -> Any:
        return self.target.log_density_batch(self.whole(u))

    def gradient_batch(self, u: Any) -> Any:
        return self.target.gradient_batch(self.whole(u))[:, self.free]

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = self.target.gradients(np.asarray(self.whole(points)))
        return values, gradients[:, self.free]

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        return self.target.constrain(np.asarray(self.whole(draws)))

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        return self.target.unconstrain(values)[self.free]

    def prior(self, seed: int, num_samples: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        return self.target.prior(seed, num_samples, names)


class OwnSpace(Continuous):
    """A target under the density of its unknowns themselves, without the Jacobians of their bijections: its mode is that of
    p(unknowns | data) in the user's coordinates, as AutoDelta's is."""

    def __init__(self, target: Continuous) -> None:
        self.target = target
        self.engine, self.ops, self.dim, self.precision = target.engine, target.ops, target.dim, target.precision
        self.sites, self.data, self.points, self.begin_at = target.sites, target.data, target.points, target.begin_at

    @property
    def point_index(self) -> np.ndarray:
        return self.target.point_index

    def first_points(self, key: Any) -> Any:
        return self.target.first_points(key)

    def log_density(self, z: Any) -> Any:
        return self.target.own_value_and_grad(z)[0]

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        return self.target.own_value_and_grad(z)

    def log_density_batch(self, z: Any) -> Any:
        return self.ops.each(self.log_density, z)

    def gradient_batch(self, z: Any) -> Any:
        return self.ops.each(lambda point: self.value_and_grad(point)[1], z)

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.target.own_gradients(points)

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        return self.target.constrain(draws)

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        return self.target.unconstrain(values)

    def prior(self, seed: int, num_samples: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        return self.target.prior(seed, num_samples, names)


def climbed(inference: Any, target: Any) -> Any:
    """The target whose density an algorithm's mode is one of."""
    own = getattr(inference, "space", None) == "constrained" and isinstance(target, Continuous)
    return OwnSpace(target) if own else target
