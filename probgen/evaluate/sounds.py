"""Sound of a learned program: drawn levels as a waveform, and one as long as is asked for, a window after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.data.values.sounds import waveform_of
from probgen.data.whole_numbers import whole
from probgen.fitted import FittedParameters
from probgen.target import Generative

SETTINGS = "context", "law", "levels", "rate"


class Sound(NamedTuple):
    """A waveform (time,), from -1 to 1, and how many samples a second it has."""

    waveform: np.ndarray
    rate: int


def says_sound(fit: Any) -> bool:
    """Whether a fit's program says windows of sound: it has an input `context`, and a `law`, `levels` and `rate`."""
    target = fit.target
    return isinstance(target, Generative) and isinstance(fit, FittedParameters) and set(SETTINGS) <= set(target.data)


def heard(fit: Any, num_windows: int = 16, seed: int | None = None, context: Any = None) -> Sound:
    """A sound drawn from a learned program, so many windows, each after the one before.

    context: the levels before the first window, (place,); by default those of a random window of the recording.
    TypeError for a program that says no sound.
    """
    if not says_sound(fit):
        raise TypeError("This program says no sound: it has no context, law, levels and rate, as 'wavenet' has.")
    count, seed = whole("num_windows", num_windows), fit.seed + 2 if seed is None else whole("seed", seed)
    if count < 1:
        raise ValueError(f"num_windows is {count}; it must be at least 1")
    before = fit.simulate(1, seed)["context"][0] if context is None else np.asarray(context, float)
    found, places = [], fit.target.data["context"].shape[1]
    for seeds in np.random.SeedSequence(seed % 2**64).generate_state(count):
        found.append(fit.sample(1, int(seeds), context=before)["x"][0])
        before = np.concatenate([before, found[-1]])[-places:]
    return decoded(fit, np.concatenate(found))


def decoded(fit: Any, levels: Any) -> Sound:
    """Levels (..., time) of a program of sound as a waveform of the same shape."""
    data = fit.target.data
    return Sound(waveform_of(levels, int(data["levels"]), str(data["law"])), int(data["rate"]))
