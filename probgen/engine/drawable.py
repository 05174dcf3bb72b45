"""What users read of draws that a learner without a density cannot use, in the same words on both engines."""

from __future__ import annotations

from collections.abc import Iterable

MEAN = "{!r} holds bits: its mean stands for its draw, which has no gradient."


def of_energy(name: str) -> str:
    return f"{name!r} is part of an energy, from which nothing is drawn forward.\nTry inference='pcd'."


def without_gradient(name: str, kind: str) -> str:
    return (
        f"{name!r} ({kind}) is drawn in a way that parameters move and that has no gradient.\n"
        "Try inference='svi' or 'mle', which use its density, or write it as a smooth function of noise."
    )


def without_noise(names: Iterable[str]) -> str:
    found = ", ".join(map(repr, names))
    return f"{found} comes without any noise: all draws are the same.\nSample noise, such as z ~ N(0, 1)."


def wrong_shape(keyword: str, shape: tuple[int, ...], site: str, drawn: tuple[int, ...]) -> str:
    return f"{keyword} has rows of shape {shape}; the program draws {site!r} of shape {drawn}."


NO_PARAMETERS = "The program has no parameters to be learned ({}.param, or a network's)."
