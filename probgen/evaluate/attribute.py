"""Latent arithmetic: the direction of a model's latent space along which a number about points grows, and points moved along it.

    a(x(z)) = a_0 + w . z + rest,   z' = z + t w / |w|,   t in standard deviations of the latent along w

w is found by least squares on the model's own draws, and judged on the half of them that it was not found on. For a number
that is 0 or 1 it is the difference of two means, the "smile vector" (White 2016, arXiv:1609.04468). What moving does to the
number is measured again on the points that come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

WEAK = 0.2  # R^2 below which the number hardly follows a straight line


@dataclass(frozen=True)
class Latents:
    """A latent space. draw(count, seed): latents by site, (count, *shape); points(latents): (count, *event).

    codes(x): latents of rows, or None where no way leads from a point to its latents, for the reason `no_codes`; moving: the
    sites that move, the others are kept.
    """

    draw: Callable[[int, int], dict[str, np.ndarray]]
    points: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    codes: Callable[[np.ndarray], dict[str, np.ndarray]] | None
    moving: tuple[str, ...]
    no_codes: str = ""


@dataclass(frozen=True, repr=False)
class Attribute:
    """A direction, and points moved along it.

    points: (amount, row, *event); amounts: how far, in standard deviations of the latent; values: the number there, (amount, row).
    direction: by site, as long as one standard deviation; share: of the number's variance that a straight line explains, R^2, on
    draws that it was not found on; slope, slope_stderr: by how much the number grows for one standard deviation, as measured
    on `points`; spread: the number's standard deviation among draws; notes: what a reader should know.
    """

    name: str
    points: np.ndarray
    amounts: np.ndarray
    values: np.ndarray
    direction: Mapping[str, np.ndarray]
    share: float
    slope: float
    slope_stderr: float
    spread: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.slope:+.3g} +- {self.slope_stderr:.2g} for one standard deviation of the latent (it varies by "
            f"{self.spread:.3g} among draws); R^2 {self.share:.2f}; {len(self.amounts)} amounts of {self.values.shape[1]} rows"
        )

    def __repr__(self) -> str:
        return "\n".join([str(self), *(f"note: {note}" for note in self.notes)])


def attribute(
    latents: Latents, direction: Any, x: np.ndarray | None, amounts: Any, num_rows: int, num_draws: int, seed: int
) -> Attribute:
    """The direction of a number, and points moved along it; see `LearnedFit.attribute`."""
    name, number = measure(direction)
    far = np.atleast_1d(np.asarray(amounts, float))
    if far.ndim != 1 or not np.isfinite(far).all():
        raise ValueError(f"amounts are {amounts!r}; expected numbers, in standard deviations of the latent.")
    if x is not None and latents.codes is None:
        raise TypeError(f"{latents.no_codes} Leave x out: the model's own draws are moved.")
    drawn = latents.draw(num_draws, seed)
    values = _numbers(number, latents.points(drawn), name)
    if np.ptp(values) == 0:
        raise ValueError(
            f"{name} is {values[0]:g} at all of {num_draws} draws of the model: there is no direction in it."
        )
    flat, scale = _flat(drawn, latents.moving)
    unit, share = _line(flat / scale, values)
    step = _shaped(unit * scale, drawn, latents.moving)
    begun = latents.draw(num_rows, seed + 1) if x is None else latents.codes(x) if latents.codes else {}
    points = np.stack([latents.points({k: v + t * step[k] if k in step else v for k, v in begun.items()}) for t in far])
    measured = np.stack([_numbers(number, each, name) for each in points])
    slope, stderr = _slope(far, measured)
    notes = _about(name, share, slope, stderr, len(far))
    return Attribute(name, points, far, measured, step, share, slope, stderr, float(values.std()), notes)


def _flat(drawn: Mapping[str, np.ndarray], moving: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Latents as rows, (draw, dim), and the standard deviation of each coordinate."""
    flat = np.concatenate([drawn[k].reshape(len(drawn[k]), -1) for k in moving], 1).astype(float)
    return flat, flat.std(0) + 1e-12


def _line(z: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction of length one, and R^2 on halves that it was not found on; z: (draw, dim), of variance one."""
    half = len(z) // 2
    missed = 0.0
    for here, there in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        w, middle = _fitted(z[here], values[here])
        missed += float(((values[there] - middle - (z[there] - z[here].mean(0)) @ w) ** 2).sum())
    w, _ = _fitted(z, values)
    share = 1 - missed / float(((values - values.mean()) ** 2).sum())
    return w / np.linalg.norm(w), share


def _fitted(z: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares, held back where coordinates are as many as draws: (dim,), and the mean."""
    centred, middle = z - z.mean(0), float(values.mean())
    held = centred.T @ centred + 0.5 * z.shape[1] * np.eye(z.shape[1])
    return np.linalg.solve(held, centred.T @ (values - middle)), middle


def _shaped(step: np.ndarray, like: Mapping[str, np.ndarray], moving: tuple[str, ...]) -> dict[str, np.ndarray]:
    sizes = [int(np.prod(like[k].shape[1:])) for k in moving]
    parts = np.split(step, np.cumsum(sizes)[:-1])
    return {k: part.reshape(like[k].shape[1:]) for k, part in zip(moving, parts, strict=True)}


def _slope(far: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """How much the number grows an amount, the mean over rows and its standard error; NaN for a single amount."""
    if len(far) < 2 or np.ptp(far) == 0:
        return np.nan, np.nan
    centred = far - far.mean()
    each = centred @ measured / (centred**2).sum()
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.nan


def _about(name: str, share: float, slope: float, stderr: float, count: int) -> tuple[str, ...]:
    notes = []
    if share < WEAK:
        notes.append(
            f"{name} hardly follows a straight line in this latent space (R^2 {share:.2f}): moves change much else."
        )
    if count > 1 and not slope > 2 * np.nan_to_num(stderr):
        notes.append(f"Moving does not make {name} grow, as measured: the direction is not to be relied on.")
    return tuple(notes)


# ---- numbers about points


def measure(direction: Any) -> tuple[str, Callable[[np.ndarray], Any]]:
    """What is measured of one point: its name, and the function."""
    if isinstance(direction, str) and direction in KNOWN:
        return direction, KNOWN[direction]
    if callable(direction):
        return getattr(direction, "__name__", "number").replace("<lambda>", "the number"), direction
    told = repr(direction) if isinstance(direction, str) else f"a {type(direction).__name__}"
    raise ValueError(f"direction is {told}; expected a function of one point, or one of {', '.join(KNOWN)}.")


def _numbers(number: Callable[[np.ndarray], Any], points: np.ndarray, name: str) -> np.ndarray:
    """The number at points: (point,)."""
    found = [np.asarray(number(point)) for point in points]
    if any(each.size != 1 or each.dtype.kind not in "biuf" for each in found):
        raise TypeError(f"{name} of one point, of shape {points.shape[1:]}, is {found[0]!r}; expected one number.")
    values = np.array([float(each.reshape(())) for each in found])
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite at draw {int(np.argmin(np.isfinite(values)))}.")
    return values


def thickness(picture: np.ndarray) -> float:
    """How wide its strokes are, in pixels: twice the area of ink by its perimeter, both counted in shares of ink."""
    ink = _ink(picture)
    padded = np.pad(ink, 1)
    across = (np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1])
    perimeter = np.sqrt(across[0] ** 2 + across[1] ** 2).sum()
    return float(2 * ink.sum() / perimeter) if perimeter else 0.0


def slant(picture: np.ndarray) -> float:
    """How far it leans to the right, in pixels a pixel of height: the tangent of the angle, by second moments of the ink."""
    ink = _ink(picture)
    rows, columns = np.indices(ink.shape)
    total = ink.sum()
    if total == 0:
        return 0.0
    up, right = -(rows - (ink * rows).sum() / total), columns - (ink * columns).sum() / total
    height = (ink * up**2).sum()
    return float((ink * up * right).sum() / height) if height else 0.0


def _ink(picture: np.ndarray) -> np.ndarray:
    """A grey picture in shares of ink, (row, column), its darkest 0, its brightest 1; flat ones are square."""
    found = np.asarray(picture, float)
    found = found.squeeze(-1) if found.ndim == 3 and found.shape[-1] == 1 else found
    if found.ndim == 1 and round(len(found) ** 0.5) ** 2 == len(found):
        found = found.reshape(round(len(found) ** 0.5), -1)
    if found.ndim != 2 or min(found.shape) < 3:
        raise ValueError(f"thickness and slant are of grey pictures; a point has shape {np.shape(picture)}.")
    low, high = found.min(), found.max()
    return (found - low) / (high - low) if high > low else np.zeros_like(found)


KNOWN: Mapping[str, Callable[[np.ndarray], float]] = {"thickness": thickness, "slant": slant}
