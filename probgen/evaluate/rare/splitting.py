"""Multilevel splitting: a rare event as a chain of events that are not, each the score above a higher level.

    p = P(s > above) = prod_k P(s >= L_k | s >= L_(k-1)),   L_0 < L_1 < ... < above

A pilot run finds levels, of which about a quarter of the points pass each, and the moves' sizes. Independent runs with these
levels then estimate p: each run's product is unbiased, however well its moves mix, and their spread is the error. Ties
need no care: levels are fixed before the runs. Kahn and Harris 1951; Au and Beck 2001 (doi:10.1016/S0266-8920(01)00019-4);
Cerou, Del Moral, Furon and Guyader 2012 (doi:10.1007/s11222-011-9231-6), whose adaptive levels have a bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from probgen import watch
from probgen.data.whole_numbers import generator
from probgen.evaluate.rare.result import Estimate
from probgen.evaluate.rare.walking import ACCEPT, Population, World

PASS = 0.25  # of the points, at each level
MOST_LEVELS = 60
LEAST_STEP = 1e-4
WIDE = 0.5  # relative error beyond which the interval is not to be relied on
CARRIED = 0.8  # relative error, which is 1 where a single run carries the mean
LOST = 0.4  # of the runs, from which on the rest says only how rare the event may be
ROUGH = "rough estimate: most runs were lost on the way, or one carries it"
FEW = 3  # ancestors of a run's last population, below which its moves have lost the others


@dataclass(frozen=True, kw_only=True)
class Settings:
    """num_runs: independent runs of num_particles points each; num_moves: at every level; num_pilot: points of the pilot."""

    num_runs: int = 20
    num_particles: int = 300
    num_moves: int = 10
    num_pilot: int = 1000


@dataclass
class Ladder:
    """Levels, the moves' sizes at each, and whether the last is the event's own; crowd: the points at the top."""

    levels: list[float]
    steps: list[float]
    reached: bool
    crowd: Population
    flat: bool = False


def climbed(world: World, seed: int, confidence: float, settings: Settings, law: str) -> Estimate:
    """The probability that the score is above the event's threshold."""
    rng = generator(seed, 5)
    ladder = pilot(world, rng, settings)
    shares, ancestors = runs(world, rng, ladder, settings)
    return _told(world, ladder, shares, ancestors, confidence, law)


# ---- the pilot


def pilot(world: World, rng: np.random.Generator, settings: Settings) -> Ladder:
    """Levels up to the event, or as far as points come."""
    top = _above(world)
    crowd, step = begun(world, rng, settings.num_pilot, 1), 0.5
    ladder = Ladder([], [], False, crowd)
    while len(ladder.levels) < MOST_LEVELS:
        passing = crowd.scores > top
        if passing.mean() >= PASS:
            ladder.reached = True
            break
        level, tries = _next(crowd.scores, top, ladder.levels), 0
        while level is None and tries < 3:  # all points tie at a plateau: they walk on it
            crowd, step = walked(world, rng, crowd, ladder.levels, step, 3 * settings.num_moves)
            level, tries = _next(crowd.scores, top, ladder.levels), tries + 1
        if level is None:
            ladder.flat = True
            break
        ladder.levels.append(level)
        crowd = crowd.at(rng.choice(np.flatnonzero(_in(crowd.scores, level, top)), len(crowd.scores)))
        crowd, step = walked(world, rng, crowd, ladder.levels, step, settings.num_moves)
        ladder.steps.append(step)
        if level == top:
            ladder.reached = True
            break
    ladder.crowd = crowd
    return ladder


def _above(world: World) -> float:
    threshold = world.event.above
    assert threshold is not None  # asked for before
    return threshold


def _in(scores: np.ndarray, level: float, top: float) -> np.ndarray:
    """Which pass a level: the event's own is not in it."""
    return scores > level if level == top else scores >= level


def _next(scores: np.ndarray, top: float, before: list[float]) -> float | None:
    """The next level: one that a quarter of the points pass, and not all; None where all points tie.

    A level is a value that some point has, or the event's own; of scores with ties the lowest above the present one.
    """
    low = scores.min()
    level = float(np.quantile(scores, 1 - PASS, method="higher"))
    if level <= low:
        higher = scores[scores > low]
        if not higher.size:
            return None
        level = float(higher.min())
    if level > top:
        return top
    return level if not before or level > before[-1] else None


def walked(
    world: World, rng: np.random.Generator, crowd: Population, levels: list[float], step: float, num_moves: int
) -> tuple[Population, float]:
    """Points after so many moves above the last level, and the moves' size, which learns to be accepted in 0.3 of all."""
    top, level = _above(world), levels[-1] if levels else -np.inf
    for _ in range(num_moves):
        crowd, accepted = world.moved(rng, crowd, level, level == top, step)
        step = float(np.clip(step * np.exp(0.7 * (accepted - ACCEPT)), LEAST_STEP, 1.0))
    return crowd, step


def begun(world: World, rng: np.random.Generator, count: int, num_runs: int) -> Population:
    """Points of the law itself, (num_runs * count): independent ones, or those of chains, a stretch of them for each run."""
    begin = world.space.begin
    if begin is None:
        return world.start(rng, num_runs * count)
    parts = np.array_split(np.arange(len(begin)), num_runs)
    index = np.concatenate([rng.choice(part, count, replace=len(part) < count) for part in parts])
    noise = rng.standard_normal((len(index), world.space.dim - begin.shape[1]))
    crowd = world.look(np.concatenate([begin[index], noise], 1))
    for _ in range(3):
        crowd, _ = world.moved(rng, crowd, -np.inf, False, 0.5)
    return crowd


# ---- the runs


def runs(world: World, rng: np.random.Generator, ladder: Ladder, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The shares that pass each level, and the event's in the last: (run, level), and how many ancestors are left: (run,)."""
    count, size = settings.num_runs, settings.num_particles
    top, crowd = _above(world), begun(world, rng, size, settings.num_runs)
    shares, line = [], np.tile(np.arange(size), (count, 1))
    rungs = list(zip(ladder.levels, ladder.steps, strict=False))
    for level, step in tqdm(rungs, desc="splitting", unit="level", delay=2, disable=watch.unseen()):
        passing = _in(crowd.scores, level, top).reshape(count, size)
        shares.append(passing.mean(1))
        chosen = np.stack([_parents(rng, row) for row in passing])
        line = np.take_along_axis(line, chosen, 1)
        crowd = crowd.at((chosen + size * np.arange(count)[:, None]).ravel())
        alive = np.repeat(np.prod(shares, 0) > 0, size)
        if not alive.any():
            break
        for _ in range(settings.num_moves):
            crowd, _ = world.moved(rng, crowd, level, level == top, step, alive)
    if not ladder.levels or (ladder.reached and ladder.levels[-1] != top):
        shares.append((crowd.scores > top).reshape(count, size).mean(1))
    return np.stack(shares, 1), np.array([len(set(row)) for row in line])


def _parents(rng: np.random.Generator, passing: np.ndarray) -> np.ndarray:
    """Of which point each new one is a copy: of those that pass, or themselves where none does."""
    found = np.flatnonzero(passing)
    return rng.choice(found, len(passing)) if found.size else np.arange(len(passing))


# ---- what they say


def _told(
    world: World, ladder: Ladder, shares: np.ndarray, ancestors: np.ndarray, confidence: float, law: str
) -> Estimate:
    from scipy.stats import t as student

    products = shares.prod(1)
    value, count = float(products.mean()), len(products)
    exact = world.space.begin is None
    notes = _about(world, ladder, ancestors)
    if value == 0 or not ladder.reached:
        return _bound(world, ladder, shares, confidence, law, notes)
    stderr = float(products.std(ddof=1) / np.sqrt(count))
    relative = max(stderr / value, _of_logs(products))
    stderr = relative * value
    far = float(student.ppf(0.5 + confidence / 2, count - 1)) * relative
    if lost := int((products == 0).sum()):
        notes.append(
            f"{lost} of {count} runs lost all points on the way and count as 0: take more particles, num_particles=1000."
        )
    if relative > WIDE:
        notes.append(
            f"The runs differ widely (relative error {relative:.2f}): take more particles, num_particles=1000, or more num_moves."
        )
    kind = "unbiased estimate" if exact else "estimate from the posterior's draws"
    low, high = value * np.exp(-far), min(1.0, value * np.exp(far))
    if lost >= LOST * count or relative > CARRIED:
        kind, low = ROUGH, 0.0
    return Estimate(
        name="probability", value=value, stderr=stderr, interval=(low, high),
        confidence=confidence, method="splitting", kind=kind, effective=value * (1 - value) / max(stderr, 1e-300) ** 2,
        cost=world.cost, law=law, notes=tuple(notes), levels=tuple(world.event.sign * level for level in ladder.levels),
    )  # fmt: skip


def _of_logs(products: np.ndarray) -> float:
    """The relative error of the mean of runs whose logs are normal, as of products of many shares: less often too small."""
    if not products.all():
        return 0.0
    return float(np.sqrt(np.expm1(np.log(products).var(ddof=1)) / len(products)))


def _bound(world: World, ladder: Ladder, shares: np.ndarray, confidence: float, law: str, notes: list[str]) -> Estimate:
    """What is known where no point came into the event: that it is rarer than the highest level that all runs passed."""
    from scipy.stats import t as student

    products = shares.cumprod(1)
    alive = np.flatnonzero((products > 0).all(0))
    last = int(alive[-1]) if alive.size else -1
    mean = float(products[:, last].mean()) if last >= 0 else 1.0
    spread = float(products[:, last].std(ddof=1) / np.sqrt(len(products))) if last >= 0 else 0.0
    high = min(1.0, mean * np.exp(student.ppf(confidence, len(products) - 1) * spread / mean))
    sign = world.event.sign
    came = f"to {sign * ladder.levels[last]:.6g}" if last >= 0 else "no way"
    best = sign * float(ladder.crowd.scores.max())
    told = f"Points came {came} (the farthest to {best:.6g}), and not to {sign * _above(world):.6g}"
    told += ", where they stay" if ladder.flat else ""
    notes.append(f"{told}: the event is rarer than that level is, or cannot happen, or no path of moves leads to it.")
    return Estimate(
        name="probability", value=0.0, stderr=high / 2, interval=(0.0, high), confidence=confidence, method="splitting",
        kind="upper bound: no point came into the event", effective=1 / high, cost=world.cost, law=law, notes=tuple(notes),
        levels=tuple(sign * level for level in ladder.levels),
    )  # fmt: skip


def _about(world: World, ladder: Ladder, ancestors: np.ndarray) -> list[str]:
    notes = []
    if world.space.anew:
        notes.append(
            f"{', '.join(world.space.anew)}: drawn anew whenever its noise moves, so that points climb slowly by it."
        )
    if ladder.steps and min(ladder.steps) <= 10 * LEAST_STEP:
        notes.append(
            "Moves became very small: points may not have spread over the event; compare with another seed, more num_moves."
        )
    if ladder.levels and np.median(ancestors) < FEW:
        notes.append(
            "All points of most runs have one or two ancestors: if the event has several parts, take more num_particles."
        )
    return notes
