"""TextFit: tokens learned from a text, given and read as characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.data import whole_numbers
from probgen.data.values.text import read_back, spelled
from probgen.fits.learned import LearnedFit


@dataclass(frozen=True, repr=False)
class TextFit(LearnedFit):
    """Parameters learned from windows of a text. Where other fits take rows of tokens, this one takes strings as well.

    A string may be shorter than a window: what follows is not known, so that `log_prob` is of what is given, and `condition` draws
    the rest. ValueError for a string that is longer, and for characters that the text did not have.
    """

    @property
    def alphabet(self) -> str:
        """The characters, by their tokens."""
        target: Any = self.target
        return target.data["alphabet"]

    def text(
        self, num_samples: int = 1, seed: int | None = None, *, begin: str = "", length: int | None = None
    ) -> list[str]:
        """New texts, each of `length` characters, by default a window's, beginning as is said.

        Beyond a window, each stretch is drawn given the half window before it.
        """
        if not isinstance(begin, str):
            raise TypeError(f"begin is {begin!r}; expected a string, what each text begins with.")
        context, seed = self._context, self._seed(seed)
        length = context if length is None else whole_numbers.whole("length", length)
        if length < max(1, len(begin)):
            raise ValueError(f"length is {length}; expected at least {max(1, len(begin))}, that of begin.")
        if (num_samples := whole_numbers.whole("num_samples", num_samples)) < 1:
            raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
        spelled(begin, self.alphabet, len(begin))  # before anything compiles
        half = context // 2
        tail = begin if len(begin) < context else begin[-half:]
        found = [begin.removesuffix(tail) + drawn for drawn in self._drawn(tail, num_samples, seed)]
        stretch = 0
        while len(found[0]) < length:  # seeds of their own: those after one another would be another text's
            stretch += 1
            seeds = np.random.SeedSequence((seed % 2**64, stretch)).generate_state(len(found))
            found = [
                told + self._drawn(told[-half:], 1, int(own))[0][half:] for own, told in zip(seeds, found, strict=True)
            ]
        return [told[:length] for told in found]

    def _drawn(self, begin: str, count: int, seed: int) -> list[str]:
        keyword = next(iter(self.target.keywords))
        target: Any = self.condition(begin)
        return read_back(target.sample(count, seed)[self.target.keywords[keyword]], self.alphabet)

    @property
    def _context(self) -> int:
        return next(iter(self._shapes.values()))[1][0]

    def _one(self, given: Mapping[str, Any], unknown: bool = False) -> dict[str, np.ndarray]:
        return super()._one({k: self._spelled(v)[0] if are_strings(v) else v for k, v in given.items()}, unknown)

    def _rows(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        texts = {self._shapes[k][0]: self._spelled(v) for k, v in given.items() if k in self._shapes and are_strings(v)}
        if not texts:
            return super()._rows(given)
        self._check_seen()
        return texts

    def _told(self, found: Any, given: Mapping[str, Any]) -> Any:
        return found if any(are_strings(v) for v in given.values()) else super()._told(found, given)

    def _spelled(self, value: Any) -> np.ndarray:
        each = [value] if isinstance(value, str) else [str(v) for v in value]
        return np.stack([spelled(v, self.alphabet, self._context) for v in each])

    def __repr__(self) -> str:
        return self._counted()


def are_strings(value: Any) -> bool:
    """Whether a value is a string, or several."""
    if isinstance(value, list | tuple | np.ndarray):
        return len(value) > 0 and isinstance(value[0], str)
    return isinstance(value, str)


def of_a_text(target: Any) -> bool:
    """Whether a target's rows are tokens of characters, of which its data have the alphabet."""
    alphabet = target.data.get("alphabet") if hasattr(target, "data") else None
    shown = list(getattr(target, "visible", ()))
    return isinstance(alphabet, str) and len(shown) == 1 and 0 < len(alphabet) == shown[0].levels
