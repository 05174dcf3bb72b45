"""Events as users write them: a function of one draw that returns a bool, or a score with a threshold; checked at every draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probgen.algorithm import closest
from probgen.evaluate.rare.indexing import by_a_draw

LOOKS = 3  # first draws at which a compiled function is held against the plain one; and where numbers are extreme
EXTREMES = 16  # names whose least and greatest numbers are looked at


class Row(Mapping[str, Any]):
    """One draw, {name: array of the site's shape}, that keeps which names were read."""

    def __init__(self, names: tuple[str, ...], fetch: Callable[[str], Any]) -> None:
        self.names, self.fetch, self.read = names, fetch, set()

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(
                f"{name!r} is none of what a draw has.{closest(name, self.names)} Known: {', '.join(self.names)}."
            )
        self.read.add(name)
        return self.fetch(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Event:
    """What is asked of a draw: `function`, and the threshold of its score; `above` is that of `sign * score`.

    read: names that the function reads, once it was tried.
    """

    function: Callable[[Any], Any]
    above: float | None
    sign: int = 1
    read: tuple[str, ...] = ()
    label: str = "event"
    compiled: Any = field(default=None, repr=False)
    traceable: bool = False  # whether JAX computes the same; known once scores were asked for

    @property
    def is_bool(self) -> bool:
        return self.above is None

    def try_on(self, row: Row) -> None:
        """Run it on one draw: which names it reads, and whether it returns what it should."""
        value = self._called(row)
        self.read = tuple(name for name in row.names if name in row.read)
        shown = {name: np.shape(row.fetch(name)) for name in self.read}
        self.checked(value, shown)

    def checked(self, value: Any, shown: Mapping[str, Any]) -> float:
        """The number that it returned, of the right kind; TypeError, or ValueError for NaN."""
        found = np.asarray(value.detach() if hasattr(value, "detach") else value)
        told = ", ".join(f"{k}: {v}" for k, v in shown.items()) or "nothing"
        if found.size != 1 or found.dtype.kind not in "biuf":
            what = f"an array of shape {found.shape}" if found.size != 1 else f"a {type(value).__name__}"
            raise TypeError(
                f"{self.label} returned {what}; expected one bool, or one number with above= or below=.\n"
                f"It is called with one draw at a time ({told}): reduce it, as draw['x'].max()."
            )
        if self.is_bool != (found.dtype.kind == "b"):
            raise TypeError(self._other_kind(found))
        if np.isnan(number := float(found.reshape(()))):
            raise ValueError(f"{self.label} returned NaN, which is neither in the event nor out of it; it read {told}.")
        return number

    def _other_kind(self, found: np.ndarray) -> str:
        if self.is_bool:
            return (
                f"{self.label} returned {found.reshape(()).item()!r}, a number; an event returns a bool.\n"
                "For a score say its threshold: fit.probability(score, above=4.0), or below=."
            )
        return f"{self.label} returned a bool, which has no threshold: leave above and below out, or return a number."

    def _called(self, row: Mapping[str, Any]) -> Any:
        return self.function(row)

    def scores(self, columns: Mapping[str, np.ndarray], scope: Any = None) -> np.ndarray:
        """`sign * score` of draws {name: (draw, *event)}, or 0 and 1 of an event: (draw,).

        scope: makes a context in which JAX may compile the function; None where it may not.
        """
        count = len(next(iter(columns.values())))
        found = None if scope is None else self._held(columns, scope, _looks(columns, count))
        if found is None:
            found = np.array([self._of_row(columns, i) for i in range(count)])
        if np.isnan(found).any():
            i = int(np.argmax(np.isnan(found)))
            values = ", ".join(f"{k} = {np.array2string(v[i], threshold=6, precision=4)}" for k, v in columns.items())
            raise ValueError(f"{self.label} is NaN at draw {i}, which is neither in the event nor out of it: {values}.")
        return self.sign * found

    def _held(self, columns: Mapping[str, np.ndarray], scope: Any, looks: list[int]) -> np.ndarray | None:
        """Numbers of all draws by JAX; None where they are not those of plain Python at the draws that are looked at."""
        plain = np.array([self._of_row(columns, i) for i in looks])
        found = self._compiled(columns, scope)
        self.traceable = found is not None and _alike(found[looks], plain)
        return found if self.traceable else None

    def _of_row(self, columns: Mapping[str, np.ndarray], i: int) -> float:
        row = Row(tuple(columns), lambda name: columns[name][i])
        return self.checked(self._called(row), {k: v.shape[1:] for k, v in columns.items()})

    def _compiled(self, columns: Mapping[str, np.ndarray], scope: Any) -> np.ndarray | None:
        """The same by JAX, all draws at once; None where the function is not of its kind."""
        with contextlib.suppress(Exception), scope():
            import jax
            import jax.numpy as jnp

            if self.compiled is None:
                if by_a_draw(self.function, {k: jnp.asarray(v[0]) for k, v in columns.items()}):
                    return None
                self.compiled = jax.jit(jax.vmap(lambda row: jnp.reshape(jnp.asarray(self.function(row)), ())))
            return np.asarray(self.compiled({k: jnp.asarray(v) for k, v in columns.items()}), float)
        return None

    def hit(self, scores: np.ndarray) -> np.ndarray:
        """Which are in the event."""
        return scores > (0.5 if self.above is None else self.above)


def _looks(columns: Mapping[str, np.ndarray], count: int) -> list[int]:
    """Draws at which a compiled function is held against the plain one."""
    numbers = [v for v in columns.values() if v.ndim == 1][:EXTREMES]
    ends = [int(i) for v in numbers for i in (v.argmin(), v.argmax())]
    return sorted({*range(min(LOOKS, count)), *ends})


def _alike(found: np.ndarray, plain: np.ndarray) -> bool:
    finite = np.abs(plain[np.isfinite(plain)])
    return np.allclose(found, plain, rtol=1e-4, atol=1e-6 * max(1.0, finite.max(initial=0.0)), equal_nan=True)


def asked(event: Any, above: Any, below: Any) -> Event:
    """The event as it was asked for; TypeError or ValueError for what cannot be one."""
    label = (
        repr(event)
        if isinstance(event, str)
        else getattr(event, "__name__", "event").replace("<lambda>", "The function")
    )
    function = (lambda draw: draw[event]) if isinstance(event, str) else event
    if not callable(function):
        raise TypeError(
            f"event is a {type(event).__name__}; expected a function of one draw, or the name of a site of one number."
        )
    if above is not None and below is not None:
        raise ValueError(
            "above and below were both given: say one, or for a band return a bool, or -abs(x - middle) with above=."
        )
    threshold = below if above is None else above
    if threshold is None:
        return Event(function, None, label=label)
    word = "below" if above is None else "above"
    with contextlib.suppress(TypeError, ValueError):
        threshold = float(threshold)
    if not isinstance(threshold, float) or not np.isfinite(threshold):
        raise ValueError(f"{word} is {threshold!r}; expected a finite number.")
    sign = 1 if above is not None else -1
    return Event(function, sign * threshold, sign, label=label)
