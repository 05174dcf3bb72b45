"""`fit.probability` and `fit.expectation`: what is asked, checked; the method that serves it; the number.

"auto" counts first. Where fewer than 50 effective draws are in the event, and the event is a score with a threshold, it climbs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible, closest
from probgen.data import whole_numbers
from probgen.evaluate.rare import counting, places
from probgen.evaluate.rare.draws import Drawn, drawn
from probgen.evaluate.rare.event import Event, asked
from probgen.evaluate.rare.result import Estimate, number
from probgen.evaluate.rare.splitting import ROUGH, Settings, climbed
from probgen.evaluate.rare.tilting import tilted
from probgen.evaluate.rare.walking import World
from probgen.evaluate.rare.wide import ERRORS, searched
from probgen.fitted import Fitted

METHODS = ("auto", "monte_carlo", "importance", "splitting")
ENOUGH = 50  # effective draws in an event
COUNTED = "It is counted: {0}"
ONLY_BOOL = "a bool can only be counted; return a score, one number, and say above= or below=, to climb to it."

MORE = 1.3  # times what the climb found: less is of chance
SEVERAL = "estimate by points thrown wide, which found a part that the climb missed"
MISSED = (
    "The climb found {0} ({1} to {2}): less, for to a part of the event no level leads, as where a score jumps.\n"
    "Return a score that rises towards all parts, or ask for each part by itself."
)
APART = "Counting contradicts it: {0}.\nThe event may have several parts, of which the climb found one: take more num_particles."


def probability(
    fit: Fitted, event: Any, above: Any, below: Any, given: Mapping[str, Any], data: Callable[[Mapping[str, Any]], Any], *,
    method: str = "auto", num_samples: int | None = None, seed: int | None = None, confidence: float = 0.95,
) -> Estimate:  # fmt: skip
    """The probability of an event; see `Fit.probability`. data: from new data, those that a posterior fit predicts on."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
    wanted, seed = asked(event, above, below), _seed(fit, seed)
    _check(confidence)
    settings, given = _settings(given)
    if wanted.is_bool and method in ("importance", "splitting"):
        raise TypeError(f"method={method!r} needs a score: {ONLY_BOOL}")
    cannot = places.why_not(fit)
    if cannot and method in ("importance", "splitting"):
        raise Incompatible(f"method={method!r} is not for this fit: {cannot}")
    draws = _drawn(fit, num_samples, seed, given)
    counts, scores = counting.counted(wanted, draws, confidence)
    if method == "monte_carlo" or (method == "auto" and _enough(counts)):
        return counts
    why = cannot or _why_not(wanted, scores)
    if why and method != "auto":
        raise Incompatible(f"method={method!r} is not for this event: {why}")
    if why:
        return replace(counts, notes=(*counts.notes, COUNTED.format(why)))
    try:
        world = World(places.place(fit, wanted, given, data), wanted)
    except Incompatible as error:
        if method != "auto":
            raise
        return replace(counts, notes=(*counts.notes, COUNTED.format(error)))
    if method == "importance":
        return tilted(world, seed, confidence, settings, draws.law)
    found = climbed(world, seed, confidence, settings, draws.law)
    found = _rough(found, counts) if found.kind == ROUGH else found
    found = _against(found, searched(world, seed), counts, world.cost)
    return _beside(found, counts) if method == "auto" else found


def _rough(found: Estimate, counts: Estimate) -> Estimate:
    """Of a climb that lost most runs: as wide as what counting leaves possible."""
    return replace(found, interval=(found.interval[0], max(found.interval[1], counts.interval[1])))


def _against(found: Estimate, wide: tuple[float, float, float] | None, counts: Estimate, cost: int) -> Estimate:
    """What climbing found, or a wide search where that finds more: surely, or where the climb itself says little."""
    found, trusted = replace(found, cost=cost), not found.is_bound and found.kind != ROUGH
    beat = max(MORE * found.value, 0.0 if found.kind == ROUGH else found.interval[1])
    if wide is None or wide[0] <= beat or (trusted and wide[1] <= beat):
        return found
    value, low, high = wide
    sure = low > beat
    interval = (low, max(high, found.interval[1])) if sure else (0.0, max(high, counts.interval[1]))
    stderr, told = (high - value) / ERRORS, MISSED.format(*(number(x) for x in (found.value, *found.interval)))
    return replace(
        found, value=value, stderr=stderr, interval=interval, kind=SEVERAL if sure else ROUGH,
        effective=value * (1 - value) / max(stderr, 1e-300) ** 2, notes=(*found.notes, told),
    )  # fmt: skip


def _beside(found: Estimate, counts: Estimate) -> Estimate:
    """What climbing found, or what counting did where that says more; a note where the two contradict each other."""
    notes, cost = (*counts.notes, *found.notes), counts.cost + found.cost
    if found.is_bound and (counts.value > 0 or counts.interval[1] <= found.interval[1]):
        return replace(counts, notes=notes, cost=cost)
    apart = found.interval[1] < counts.interval[0] or (not found.is_bound and found.interval[0] > counts.interval[1])
    told = (APART.format(counts),) if apart else ()
    return replace(found, notes=(*found.notes, *told), cost=cost)


def expectation(
    fit: Fitted, function: Any, given: Mapping[str, Any], *, num_samples: int | None = None, seed: int | None = None,
    confidence: float = 0.95,
) -> Estimate:  # fmt: skip
    """The mean of a function of a draw; see `Fit.expectation`."""
    _check(confidence)
    known: Callable[[Any], Any] = (lambda draw: draw[function]) if isinstance(function, str) else function
    if not callable(known):
        raise TypeError(f"expected a function of one draw, or the name of a site; got a {type(function).__name__}.")
    return counting.mean(known, _drawn(fit, num_samples, _seed(fit, seed), given), confidence)


def _enough(found: Estimate) -> bool:
    """Whether so many draws are in the event, and out of it, that counting is all that it takes."""
    return float(found.value * found.effective) >= ENOUGH or found.value == 1


def _why_not(event: Event, scores: np.ndarray) -> str:
    if event.is_bool:
        return ONLY_BOOL
    if np.ptp(scores[np.isfinite(scores)] if np.isfinite(scores).any() else [0.0]) == 0 and not np.isinf(scores).any():
        return f"the score is {event.sign * scores.flat[0]:g} at all of {scores.size} draws, which says no direction to climb."
    return ""


def _settings(given: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Settings of splitting among what is given, checked, and the rest."""
    known = [field.name for field in fields(Settings)]
    mine = {k: whole_numbers.whole(k, v) for k, v in given.items() if k in known}
    least = {"num_runs": 2, "num_particles": 10, "num_moves": 1, "num_pilot": 20}
    for k, v in mine.items():
        if v < least[k]:
            raise ValueError(f"{k} is {v}; it must be at least {least[k]}")
    return Settings(**mine), {k: v for k, v in given.items() if k not in known}


def _drawn(fit: Fitted, num_samples: int | None, seed: int, given: Mapping[str, Any]) -> Drawn:
    if num_samples is not None and (num_samples := whole_numbers.whole("num_samples", num_samples)) < 10:
        raise ValueError(f"num_samples is {num_samples}; it must be at least 10")
    try:
        return drawn(fit, num_samples, seed, given)
    except TypeError as error:
        for name in given:
            if hint := closest(name, [field.name for field in fields(Settings)]):
                raise TypeError(f"{name!r} is unknown.{hint}") from error
        raise


def _seed(fit: Fitted, seed: int | None) -> int:
    return fit.seed + 4 if seed is None else whole_numbers.seed(seed)


def _check(confidence: float) -> None:
    if not (isinstance(confidence, int | float) and 0 < confidence < 1):
        raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1, as 0.95.")
