"""LatentFit: a learned program with hidden sites and a guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.data.grey import as_bits
from probgen.data.inputs import first, read
from probgen.evaluate.attribute import Latents
from probgen.fits import latents
from probgen.fits.learned import LearnedFit
from probgen.fitted import FittedLatents, LogProb
from probgen.target import Bounded

METHODS = ("iwae", "elbo", "exact", "ais")


@dataclass(frozen=True, repr=False)
class LatentFit(LearnedFit, FittedLatents):
    """A learned program with hidden sites, such as a variational autoencoder: bounds, codes, reconstructions.

    The posterior of the hidden sites of one row, by any algorithm: `pg.fit(fit.condition(x=row), inference="nuts")`.
    """

    target: Bounded

    def log_prob(
        self,
        x: Any = None,
        /,
        *,
        method: str = "iwae",
        num_particles: int | None = None,
        seed: int | None = None,
        **rows: Any,
    ) -> LogProb:
        """log p(x) of rows or a bound on it, in nats: (row,), with its standard error; `khat` (row,) where it is weighted.

        x, rows: the visible sites, (row, *event); by default the data that were learned from.
        method: "elbo" and "iwae", lower bounds by `num_particles` draws of the guide for each row, sites of finitely many values
            summed out; "exact" where hidden sites have a closed integral; "ais", annealed importance sampling, a row at a time.
        num_particles: by default 500, or 1 where the guide is certain, as it is of codes.
        """
        from probgen.evaluate import bound, partition

        if method not in METHODS:
            raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
        if not self.target.proper:
            raise TypeError("This program is no probability: its rows have no density. Use fit.reconstruct().")
        self._check_counted()
        if method in ("exact", "ais") and num_particles is not None:
            raise TypeError(
                f"num_particles is of method='elbo' and 'iwae'; {method!r} draws no hidden sites by the guide."
            )
        named = self._named(x, rows)
        given = self._rows(named)
        if method == "exact":
            return self._told(partition.log_prob(self, given), named)
        if method == "ais":
            return self._told(bound.by_annealing(self, given), named)
        if num_particles is None:
            num_particles = 1 if bound.is_certain(self) else 500
        seed = self.seed + 3 if seed is None else seed
        return self._told(bound.by_draws(self, given, method, num_particles, seed), named)

    def encode(
        self, x: Any = None, /, *, num_samples: int = 0, seed: int | None = None, **rows: Any
    ) -> dict[str, np.ndarray]:
        """Hidden sites of rows by the guide: its middle, (row, *event), or `num_samples` draws, (num_samples, row, *event).

        The middle of a site of finitely many values is the most probable one.
        """
        from probgen.evaluate import bound

        given = self._rows(self._named(x, rows))
        return bound.encoded(self, given, num_samples, self.seed + 3 if seed is None else seed)

    def decode(self, **given: Any) -> dict[str, np.ndarray]:
        """The visible sites' means given hidden sites, and the inputs of a conditional model: all (row, *event).

        A visible site that others depend on, as a picture does on its class, is given too: `fit.decode(z=z, y=y)`.
        Raises TypeError for what is missing, and ValueError for other shapes.
        """
        from probgen.evaluate import bound

        self._check_seen()
        needed = {v.name: v.shape for v in self.target.hidden} | {k: self._shapes[k][1] for k in self.target.inputs}
        shapes = needed | {k: self._shapes[k][1] for k in self.target.keywords}
        if not set(needed) <= set(given) <= set(shapes):
            raise TypeError(f"Got {', '.join(given) or 'nothing'}; decode takes {', '.join(needed)}.")
        arrays = {k: read(k, v).astype(float) for k, v in given.items()}
        for k, x in arrays.items():
            if x.shape[1:] != shapes[k] or x.ndim != len(shapes[k]) + 1:
                raise ValueError(f"{k} has shape {x.shape}; expected rows of shape {shapes[k]}: (row, *{shapes[k]}).")
        if len({len(v) for v in arrays.values()}) > 1:
            raise ValueError(f"Different numbers of rows: {', '.join(f'{k}: {len(v)}' for k, v in arrays.items())}.")
        inputs = {k: self._whole(k, arrays[k]) for k in self.target.inputs}
        self.target.check_indices(inputs, self.answer)
        for v in self.target.finite:
            if v.name in arrays and v.kind == "levels" and (bad := ~np.isin(arrays[v.name], np.arange(v.levels))).any():
                held = f"{v.name}{first(bad)} is {arrays[v.name][bad][0]:g}"
                raise ValueError(f"{held}; expected whole numbers from 0 to {v.levels - 1}.")
        arrays = {self.target.keywords.get(k, k): v for k, v in arrays.items()}
        arrays |= as_bits(self.target, {k: v for k, v in arrays.items() if k in self.target.keywords.values()})
        if leaning := self._leaning(arrays):
            raise TypeError(
                f"What is visible depends on {' and '.join(leaning)}: give it too, decode(..., {leaning[0]}=...)."
            )
        return bound.decoded(self, arrays)

    def _leaning(self, values: Mapping[str, np.ndarray]) -> list[str]:
        """Keywords of visible sites without values that another's mean depends on: of one point, by trying values of the rows."""
        from probgen.evaluate import bound

        sites = {site: k for k, site in self.target.keywords.items() if site not in values}
        if len(self.target.visible) < 2 or not sites or not all(map(len, values.values())):
            return []
        rows = self.target.all_rows()
        flat = {k: np.asarray(rows[k]).reshape(len(rows[k]), -1) for k in sites}
        other = {k: np.flatnonzero((x != x[0]).any(axis=1)) for k, x in flat.items()}
        tried = [k for k in sites if len(other[k])]
        at = {k: [0, *(int(other[k][0]) if k == one else 0 for one in tried)] for k in sites}
        points = {k: np.repeat(v[:1], len(tried) + 1, axis=0) for k, v in values.items()}
        means = bound.decoded(self, points | {k: np.asarray(rows[k], float)[at[k]] for k in sites})
        moved = {
            one: any(
                not np.allclose(m[i], m[0], rtol=1e-5, atol=1e-7, equal_nan=True) for k, m in means.items() if k != one
            )
            for i, one in enumerate(tried, 1)
        }
        return [sites[k] for k in tried if moved[k]]

    def reconstruct(self, x: Any = None, /, **rows: Any) -> dict[str, np.ndarray]:
        """The visible sites' means given the guide's middle of rows, and what of the rows they depend on: (row, *event)."""
        from probgen.evaluate import bound

        given = self._rows(self._named(x, rows))
        return bound.decoded(self, given | self.encode(x, **rows))

    def interpolate(self, a: Any, b: Any, num_points: int = 8, **inputs: Any) -> dict[str, np.ndarray]:
        """The visible sites' means on the straight line between the codes of two points: (num_points, *event).

        a, b: one point each, in the shape of the visible site; inputs: of a conditional model, for all points.
        """
        if num_points < 2:
            raise ValueError(f"num_points is {num_points}; it must be at least 2")
        ends = [self._one(self._named(point, inputs)) for point in (a, b)]
        rows: dict[str, Any] = {k: np.stack([end[k] for end in ends]) for k in ends[0]}
        finite, at = {v.name for v in self.target.finite}, np.linspace(0, 1, num_points)
        line = {k: _between(v[0], v[1], np.round(at) if k in finite else at) for k, v in self.encode(**rows).items()}
        return self.decode(**line, **{k: np.repeat(rows[k][:1], num_points, 0) for k in inputs})

    def _latents(self, inputs: Mapping[str, Any]) -> Latents:
        return latents.of_codes(self, inputs)

    def gaps(self, x: Any = None, /, *, num_particles: int = 5000, **rows: Any) -> Mapping[str, np.ndarray]:
        """How much of log p(x) the bound misses on a few rows, in nats, each (row,).

        amortisation: what normals learned for each row alone would gain; approximation: what is missed even by them.
        """
        from probgen.evaluate import bound

        self._check_counted()
        return bound.gaps(self, self._rows(self._named(x, rows)), num_particles)

    def activity(self, x: Any = None, /, **rows: Any) -> dict[str, np.ndarray]:
        """The variance over rows of the guide's middle, by hidden coordinate: those above 0.01 are in use (Burda et al. 2016).

        Sites that do not hold reals are left out.
        """
        reals = [v.name for v in self.target.hidden if v.kind == "reals"]
        codes = self.encode(x, **rows)
        return {k: codes[k].var(0) for k in reals}


def _between(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(1 - weight) a + weight b: (weight, *shape)."""
    return np.multiply.outer(1 - weight, a) + np.multiply.outer(weight, b)
