"""A picture of a program of sound: waveforms and power spectra of the recording and of what was drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.evaluate.sounds import decoded, heard, says_sound
from probgen.pictures.style import BAD, COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST, WINDOWS = 4096, 64  # samples that are drawn, and windows at most


def sound(fit: Any) -> Figure | None:
    """A stretch of the recording and of a drawn sound at one scale, and both power spectra, by Welch's method."""
    if not says_sound(fit):
        return None
    rows = fit.target.all_rows()["x"]
    count = min(WINDOWS, max(4, -(-LEAST // rows.shape[1])))
    drawn, rate = heard(fit, count, fit.seed + 7)
    recorded = decoded(fit, rows.ravel()).waveform
    picture = figure(height=4.6)
    spec = picture.add_gridspec(2, 2, width_ratios=[1.3, 1])
    largest = 1.05 * max(abs(recorded).max(), abs(drawn).max())
    loudest = _loudest(recorded, len(drawn))
    for i, (x, name, colour) in enumerate(((loudest, "recorded", COLOURS[0]), (drawn, "drawn", BAD))):
        panel = picture.add_subplot(spec[i, 0])
        panel.plot(np.arange(len(x)) / rate * 1000, x, color=colour, lw=0.5)
        panel.set(ylim=(-largest, largest), xlim=(0, 1000 * len(drawn) / rate), title=name)
    panel.set(xlabel="ms")
    _spectra(picture.add_subplot(spec[:, 1]), {"recorded": recorded, "drawn": drawn}, rate)
    return picture


def _loudest(x: np.ndarray, size: int) -> np.ndarray:
    """The stretch of so many samples with most power, of those that begin at its multiples."""
    parts = [x[i : i + size] for i in range(0, max(len(x) - size, 0) + 1, size)]
    return max(parts, key=lambda part: float((part**2).sum()))


def _spectra(panel: Any, waveforms: dict[str, np.ndarray], rate: int) -> None:
    """Power densities in decibels of full scale."""
    from scipy.signal import welch

    size = min(512, *(len(x) for x in waveforms.values()))
    for (name, x), colour in zip(waveforms.items(), (COLOURS[0], BAD), strict=True):
        at, power = welch(x, rate, nperseg=size)
        panel.plot(at[1:] / 1000, 10 * np.log10(np.maximum(power[1:], 1e-20)), color=colour, lw=1.1, label=name)
    panel.set(xlabel="kHz", title="power, dB a hertz")
    panel.legend()


PICTURES = (("Sound", "A stretch of the recording, a drawn sound, and the power spectra of both.", sound),)
