"""A population of points in the space of an event, moved by Markov kernels that keep its law above a level of the score.

    u' = sqrt(1 - b^2) u + b e,   e ~ N(0, I):   kept where the score stays above the level, with probability min(1, w(u') / w(u))

It leaves N(0, I) as it is in any dimension (Papaioannou et al. 2015, doi:10.1016/j.probengmech.2015.06.006; Cotter et al. 2013). A
third of the moves is of some coordinates alone. Where u has a density of its own, half are u' = u + b e, which heavy tails need.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen import runtime
from probgen.evaluate.rare.event import Event

AT_ONCE = 2_048  # points; fewer are filled up to a power of two, so that few shapes are compiled
CELLS = 8_000_000  # numbers of points at once
ACCEPT = 0.3


@dataclass
class Population:
    """Points u (point, dim), their scores and log weights (point,)."""

    u: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    def at(self, index: np.ndarray) -> Population:
        return Population(self.u[index], self.scores[index], self.weights[index])


class World:
    """The space of an event with its score; cost: points that were looked at."""

    def __init__(self, space: Any, event: Event) -> None:
        self.space, self.event, self.cost = space, event, 0
        self._scope = functools.partial(runtime.jax_scope, space.precision)

    def start(self, rng: np.random.Generator, count: int) -> Population:
        """Independent points of a law that is N(0, I): (count, dim)."""
        return self.look(rng.standard_normal((count, self.space.dim)))

    def look(self, u: np.ndarray) -> Population:
        """Points with their scores; ValueError where one is NaN."""
        self.cost += len(u)
        size = max(1, min(AT_ONCE, CELLS // max(1, self.space.dim), 1 << (len(u) - 1).bit_length()))
        parts = [self._look(u[i : i + size], size) for i in range(0, len(u), size)]
        return Population(u, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))

    def _look(self, u: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(u)
        if count < size:
            u = np.concatenate([u, np.repeat(u[:1], size - count, 0)])
        if not self.event.traceable:
            columns, weights = self.space.values(u, self.event.read or self.space.names[:1])
            return self.event.scores({k: v[:count] for k, v in columns.items()}, None), weights[:count]
        scores, weights = self.space.scores(u, self.event.function)
        scores = self.event.sign * scores
        if np.isnan(scores[:count]).any():
            columns, _ = self.space.values(u[:count], self.event.read)
            self.event.scores(columns, self._scope)  # which says where
        return scores[:count], weights[:count]

    def moved(
        self, rng: np.random.Generator, old: Population, level: float, strict: bool, step: float, alive: Any = None
    ) -> tuple[Population, float]:
        """One move of every point, and the share that was accepted."""
        u, ratio = self._proposed(rng, old.u, step)
        new = self.look(u)
        inside = new.scores > level if strict else new.scores >= level
        with np.errstate(invalid="ignore"):
            gain = ratio + new.weights - old.weights
        taken = inside & (np.log(rng.random(len(u))) < gain)
        taken = taken if alive is None else taken & alive
        mixed = [
            np.where(taken.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
            for a, b in zip(vars(new).values(), vars(old).values(), strict=True)
        ]
        return Population(*mixed), float(taken.mean() if alive is None else taken[alive].mean())

    def _proposed(self, rng: np.random.Generator, u: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
        """Proposals, and what their law under N(0, I) adds to the log ratio."""
        count, dim = u.shape
        b = step * rng.uniform(0.3, 1.0, (count, 1))
        e = rng.standard_normal((count, dim))
        walks = (rng.random((count, 1)) < 0.5) & (self.space.begin is not None)
        proposed = np.where(walks, u + b * e, np.sqrt(1 - b**2) * u + b * e)
        share = np.exp(-rng.random((count, 1)) * np.log(max(dim, 1)))
        some = (rng.random((count, dim)) < share) | (rng.random((count, 1)) > 1 / 3)
        proposed = np.where(some, proposed, u)
        normal = 0.5 * ((u**2).sum(1) - (proposed**2).sum(1))
        return proposed, np.where(walks[:, 0], normal, 0.0)
