"""Sound: WAV files read and written, waveforms cut into levels and into windows, and a made waveform of known entropy.

A waveform is (time,) of numbers from -1 to 1, with a rate in samples a second; a level is a whole number from 0 to levels - 1.

    mu law:  level = floor(levels (1 + f(x)) / 2),  f(x) = sign(x) log(1 + m |x|) / log(1 + m),  m = levels - 1;   linear:  f(x) = x
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.inputs import first, read
from probgen.data.scales import numbers
from probgen.data.whole_numbers import whole

ENDINGS = (".wav", ".wave")
FEWEST = 10  # windows


# ---- files -------------------------------------------------------------------------------------------------------


def is_sound(name: str) -> bool:
    """Whether a name is that of a file of sound."""
    return name.lower().endswith(ENDINGS)


def sound_of(path: str | Path) -> tuple[np.ndarray, int]:
    """A WAV file of 8, 16, 24 or 32 bits, or of floats: its waveform, the mean of its channels, (time,), and its rate.

    FileNotFoundError where there is no file, ValueError for one that is no such sound, or empty.
    """
    from scipy.io import wavfile

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r} in {Path.cwd()}; expected the path of a WAV file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
            warnings.filterwarnings("error", ".*EOF prematurely", wavfile.WavFileWarning)
            rate, x = wavfile.read(path)
    except wavfile.WavFileWarning as warning:
        raise ValueError(
            f"{str(path)!r} is cut short: {warning}\nGet it anew; or save what is there as 16-bit PCM."
        ) from None
    except (ValueError, EOFError, struct.error) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a WAV file: {error}\nSave it anew as 16-bit PCM.") from None
    if not x.size:
        raise ValueError(f"{str(path)!r} holds no samples.")
    if x.dtype.kind == "f":
        return _mixed(x), int(rate)
    zero, full = (128.0, 128.0) if x.dtype == np.uint8 else (0.0, 2.0 ** (8 * x.dtype.itemsize - 1))
    return _mixed((x - zero) / full), int(rate)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The mean of channels (time, channel): (time,)."""
    return np.asarray(x, float) if x.ndim == 1 else np.asarray(x, float).mean(1)


def write(path: str | Path, x: Any, rate: Any) -> None:
    """A waveform (time,), -1 to 1, as a WAV file of 16 bits; ValueError beyond that, and for a rate that is none."""
    from scipy.io import wavfile

    x = _one_channel(x)
    _check_range(x)
    wavfile.write(path, checked_rate(rate), np.clip(np.rint(x * 2**15), -(2**15), 2**15 - 1).astype(np.int16))


# ---- levels ------------------------------------------------------------------------------------------------------


def levels_of(x: Any, levels: int = 256, law: str = "mu") -> np.ndarray:
    """The level of every number from -1 to 1, in the shape of x; ValueError beyond them, for NaN, and for an unknown law."""
    x = read("x", x).astype(float)
    _check_law(levels, law)
    _check_range(x)
    bent = np.sign(x) * np.log1p((levels - 1) * abs(x)) / math.log(levels) if law == "mu" else x
    return np.minimum(np.floor(levels * (1 + bent) / 2), levels - 1)


def waveform_of(x: Any, levels: int = 256, law: str = "mu") -> np.ndarray:
    """The number in the middle of every level; ValueError for what is no level."""
    x = read("x", x).astype(float)
    _check_law(levels, law)
    if (bad := (x < 0) | (x > levels - 1) | (x != np.rint(x))).any():
        raise ValueError(f"x{first(bad)} is {x[bad][0]:g}; levels are whole numbers from 0 to {levels - 1}.")
    bent = (2 * x + 1) / levels - 1
    return np.sign(bent) * np.expm1(math.log(levels) * abs(bent)) / (levels - 1) if law == "mu" else bent


def _check_law(levels: int, law: str) -> None:
    if law not in ("mu", "linear"):
        raise ValueError(f"law is {law!r}; known: mu, linear")
    if not isinstance(levels, int) or isinstance(levels, bool) or not 2 <= levels <= 65536:
        raise ValueError(f"levels is {levels!r}; expected a whole number from 2 to 65536.")


def _check_range(x: np.ndarray) -> None:
    if (bad := abs(x) > 1).any():
        raise ValueError(
            f"x goes from {x.min():g} to {x.max():g}, the first out of range at x{first(bad)}; a waveform goes from -1 to 1.\n"
            f"Pass x / {_full_scale(x):g}."
        )


def _full_scale(x: np.ndarray) -> float:
    """What integers of sound are divided by: the next of the usual full scales, else their largest."""
    whole, largest = (x == np.rint(x)).all(), float(abs(x).max())
    return next((s for s in (2.0**15, 2.0**23, 2.0**31) if whole and 255 < largest <= s), largest)


# ---- windows -----------------------------------------------------------------------------------------------------


def dilations(num_blocks: int, num_layers: int) -> list[int]:
    """How far apart the two places of every layer's convolution are: 1, 2, 4, ..., in every block anew."""
    return num_blocks * [2**i for i in range(num_layers)]


def field_of(num_blocks: int, num_layers: int) -> int:
    """How many samples before it the next one depends on: 2 + num_blocks (2^num_layers - 1)."""
    return 2 + sum(dilations(num_blocks, num_layers))


def windows(x: Any, field: int, length: int) -> dict[str, np.ndarray]:
    """A series (time,) as windows that follow each other: x (window, length), and the `field` samples before each, `context`.

    Every sample from the first window on is in one x, once. What is too short for a whole window is left out at the beginning.
    """
    x = np.asarray(x)
    count = (len(x) - field) // length
    if count < 1:
        raise ValueError(f"x has {len(x)} samples; a window has {field} samples of context and {length} after them.")
    starts = len(x) - length * np.arange(count, 0, -1)
    at = starts[:, None] + np.arange(-field, length)
    return {"context": x[at[:, :field]], "x": x[at[:, field:]]}


def cut(x: Any, rate: Any, levels: int, law: str, num_blocks: int, num_layers: int, length: int) -> dict[str, Any]:
    """What a program of windows is given of a waveform x (time,): windows of levels, and the settings.

    ValueError for two channels, silence, a rate that is none, and a recording of fewer than `FEWEST` windows.
    """
    x, rate, levels = _one_channel(x), checked_rate(rate), whole("levels", levels)
    length, num_blocks, num_layers = (
        _at_least_one(k, n) for k, n in (("length", length), ("num_blocks", num_blocks), ("num_layers", num_layers))
    )
    field = field_of(num_blocks, num_layers)
    if len(x) < field + FEWEST * length:
        raise ValueError(
            f"x has {len(x)} samples; windows of {length} after a context of {field}, the network's field, take at least "
            f"{field + FEWEST * length}.\nPass a longer recording, or fewer num_layers={num_layers}, a smaller length={length}."
        )
    heard = levels_of(x, levels, law)
    at, different = np.unique(heard), np.unique(x)
    if len(at) == 1 or len(at) == 2 < min(levels, len(different)):
        told = f"level {at[0]:g}" if len(at) == 1 else f"levels {at[0]:g} and {at[1]:g}"
        raise ValueError(
            f"x is silence: all {len(x)} samples are at {told} of {levels}, from {x.min():g} to {x.max():g}.\n"
            "Pass a recording with sound in it, or x / np.abs(x).max() where it is only too quiet for the levels."
        )
    settings = {"length": length, "levels": levels, "num_blocks": num_blocks, "num_layers": num_layers, "law": law}
    return {**windows(heard.astype(np.int32), field, length), **settings, "rate": rate}


def of_windows(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a program derives of windows of levels: `centre`, their mean, and `spread`. ValueError for a context of no levels."""
    levels, found = int(data.get("levels", 256)), numbers(data.get("context"))
    if found is None:
        return {}
    if (bad := (found < 0) | (found > levels - 1) | (found != np.rint(found))).any():
        raise ValueError(
            f"context{first(bad)} is {found[bad][0]:g}; levels are whole numbers from 0 to {levels - 1}.\n"
            "Cut a waveform into levels and windows by rows(x, rate) of the model."
        )
    seen = [found.ravel(), *([] if (x := numbers(data.get("x"))) is None else [x.ravel()])]
    whole = np.concatenate(seen)
    return {"centre": float(whole.mean()), "spread": float(whole.std()) or 1.0}


def _one_channel(x: Any) -> np.ndarray:
    """A waveform (time,) as floats; ValueError for more axes."""
    x = read("x", x).astype(float)
    if x.ndim == 1:
        return x
    told = f"x has shape {x.shape}; expected one channel, (time,)."
    if x.ndim == 2 and min(x.shape) == 1:
        raise ValueError(f"{told}\nPass x.ravel().")
    if x.ndim == 2 and min(x.shape) <= 8:
        axis = int(x.shape[0] > x.shape[1])
        raise ValueError(
            f"{told}\nOf {min(x.shape)} channels pass one, or x.mean({axis}); windows are cut here: pass them joined."
        )
    raise ValueError(f"{told}\nWindows are cut here: pass the recording whole.")


def _at_least_one(name: str, value: Any) -> int:
    """A size as a whole number; ValueError below 1."""
    if (found := whole(name, value)) < 1:
        raise ValueError(f"{name} is {found}; expected a whole number, 1 or more.")
    return found


def checked_rate(rate: Any) -> int:
    """A rate in samples a second; ValueError for what is none."""
    found = whole("rate", rate)
    if found < 1:
        raise ValueError(f"rate is {found}; expected samples a second, such as 16000.")
    return found


# ---- a made waveform ---------------------------------------------------------------------------------------------

RADIUS, ANGLE, BINS, LEVELS = 0.9, math.pi / 4, 16, 1024  # of the poles; levels in an innovation's sd; levels in all
COEFFICIENTS = 2 * RADIUS * math.cos(ANGLE), -(RADIUS**2)


def resonance(n: int = 60_000, seed: int = 0) -> np.ndarray:
    """A Gaussian process x_t = a x_{t-1} + b x_{t-2} + s e_t, at rest: (n,), from -1 to 1 but for one sample in 10^20.

    a, b = `COEFFICIENTS`; s is `BINS` levels of `LEVELS`, so that a level has -log2 of its probability given the past, on average,
    `ENTROPY` bits. Spectrum: s^2 / |1 - a e^{-iw} - b e^{-2iw}|^2.
    """
    from scipy.signal import lfilter

    noise = 2 * BINS / LEVELS * np.random.default_rng(seed).normal(size=n + 1000)
    found: Any = lfilter([1.0], [1.0, -COEFFICIENTS[0], -COEFFICIENTS[1]], noise)
    return found[1000:]


ENTROPY = 0.5 * math.log2(2 * math.pi * math.e * BINS**2)  # bits a level, of levels that are fine
