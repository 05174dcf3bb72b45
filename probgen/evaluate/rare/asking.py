"""`fit.probability` and `fit.expectation`: what is asked, checked; the method that serves it; the number.

"auto" counts first. Where fewer than 50 effective draws are in the event, and the event is a score with a threshold, it climbs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probgen.data import whole_numbers
from probgen.evaluate.rare import counting
from probgen.evaluate.rare.draws import Drawn, drawn
from probgen.evaluate.rare.event import asked
from probgen.evaluate.rare.result import Estimate
from probgen.fitted import Fitted

METHODS = ("auto", "monte_carlo")


def probability(
    fit: Fitted, event: Any, above: Any, below: Any, given: Mapping[str, Any], *, method: str = "auto",
    num_samples: int | None = None, seed: int | None = None, confidence: float = 0.95,
) -> Estimate:  # fmt: skip
    """The probability of an event; see `Fit.probability`."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
    wanted, seed = asked(event, above, below), _seed(fit, seed)
    _check(confidence)
    found, _ = counting.counted(wanted, _drawn(fit, num_samples, seed, given), confidence)
    return found


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


def _drawn(fit: Fitted, num_samples: int | None, seed: int, given: Mapping[str, Any]) -> Drawn:
    if num_samples is not None and (num_samples := whole_numbers.whole("num_samples", num_samples)) < 10:
        raise ValueError(f"num_samples is {num_samples}; it must be at least 10")
    return drawn(fit, num_samples, seed, given)


def _seed(fit: Fitted, seed: int | None) -> int:
    return fit.seed + 4 if seed is None else whole_numbers.seed(seed)


def _check(confidence: float) -> None:
    if not (isinstance(confidence, int | float) and 0 < confidence < 1):
        raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1, as 0.95.")
