"""The pictures of a fit by name: which there are, and the one that tells most of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probgen.algorithm import closest
from probgen.diagnostics import Scalars, looked_at
from probgen.evaluate.sounds import says_sound
from probgen.fitted import Fitted, FittedBridge, FittedDenoiser, FittedImplicit, FittedLatents, FittedParameters
from probgen.pictures import (
    bridges,
    completed,
    density,
    diffusion,
    draws,
    implicit,
    latent,
    learned,
    samples,
    sounds,
    textures,
)
from probgen.pictures.style import style
from probgen.programs.completable import PartlyKnown
from probgen.programs.fields import Field
from probgen.target import Conditional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALSO = {
    "trace": "chains",
    "ess": "effective_sample_size",
    "predictive": "posterior_predictive_check",
    "ppc": "predictive",
}
SAMPLES = (
    "Samples",
    "New data: pictures side by side, points of the plane, or data sets behind the data.",
    samples.drawn,
)


class Picture(NamedTuple):
    """One picture of a fit: its title on a page, what it shows, the words it goes by, and what draws it.

    draw: gives a Figure, a reason why there is none, or None where the fit has no such picture.
    """

    title: str
    note: str
    words: tuple[str, ...]
    draw: Callable[[], Figure | str | None]


def plot(fit: Fitted, name: str | None = None, var_names: str | Sequence[str] | None = None) -> Figure:
    """One picture of a fit, on a white figure of its own; see `Fit.plot`."""
    if var_names is not None and isinstance(fit, FittedParameters):
        raise TypeError("var_names chooses among draws; this fit has parameters, and its pictures show them all.")
    found = [*pictures(fit, var_names), *_sampled(fit)]
    with style():
        picture = _telling(fit, found) if name is None else _named(fit, found, name)
    picture.set_facecolor("white")
    return picture


def pictures(fit: Fitted, var_names: str | Sequence[str] | None = None) -> list[Picture]:
    """Those that a fit of this kind may have, in a page's order."""
    if isinstance(fit, FittedParameters):
        return [_picture(title, note, draw, fit) for title, note, draw in _of_learned(fit)]
    if isinstance(fit.target, Field):
        return [_picture(title, note, draw, fit) for title, note, draw in textures.PICTURES]
    shown = chosen(in_order(fit), var_names)
    own: Sequence[Any] = completed.PICTURES if isinstance(fit.target, PartlyKnown) else ()
    return [_picture(title, note, draw, fit, shown) for title, note, draw in (*own, *draws.PICTURES)]


def _picture(title: str, note: str | Callable[[], str], draw: Any, *given: Any) -> Picture:
    own = getattr(draw, "__name__", "").strip("_")
    words = (
        _word(title),
        *([own] if own.isidentifier() else []),
        *(also for also, word in ALSO.items() if word in (_word(title), own)),
    )
    return Picture(title, note if isinstance(note, str) else note(), words, functools.partial(draw, *given))


def _of_learned(fit: FittedParameters) -> Sequence[Any]:
    """Of a learned program: how learning went, what it draws or what its density is."""
    if isinstance(fit, FittedDenoiser):
        return (*diffusion.PICTURES, *learned.PICTURES[:1])
    if isinstance(fit, FittedBridge):
        return (*implicit.PICTURES[:2], *bridges.PICTURES, *learned.PICTURES[:1])
    if is_game(fit):
        if isinstance(fit, FittedImplicit):
            return (*implicit.PICTURES, *implicit.LEARNING)
        return (*implicit.PICTURES[:3], *implicit.LEARNING, *density.PICTURES[:2])
    of_program: Sequence[Any] = latent.PICTURES if isinstance(fit, FittedLatents) else density.PICTURES
    of_program = sounds.PICTURES if says_sound(fit) else of_program
    return (*learned.PICTURES[:-1], *of_program, *learned.PICTURES[-1:])


def is_game(fit: FittedParameters) -> bool:
    """Whether parameters were learned from draws."""
    return getattr(fit.inference, "loss_of", "") == "game"


def _sampled(fit: Fitted) -> list[Picture]:
    """New data, which a page shows by other pictures: `pictures` leaves it out, for it may take chains of its own."""
    return [_picture(*SAMPLES, fit)]


def _telling(fit: Fitted, found: Sequence[Picture]) -> Figure:
    for word in _best(fit):
        for picture in found:
            if word == picture.words[0] and not isinstance(drawn := picture.draw(), str | None):
                return drawn
    raise ValueError(
        "There is no picture of this fit: it has too few draws or steps. fit.diagnose() says what is there."
    )


def _best(fit: Fitted) -> tuple[str, ...]:
    """What tells most of a fit of this kind, best first."""
    if isinstance(fit, FittedDenoiser):
        return ("new_points", "draws", "trajectories", "samples", "loss")
    if isinstance(fit, FittedBridge):
        return ("trajectories", "draws", "samples", "loss")
    if isinstance(fit, FittedLatents) and not is_game(fit):
        return ("manifold", "new_points", "reconstructions", "samples", "loss")
    if isinstance(fit, FittedParameters):
        return ("sound", "new_points", "draws", "density", "samples", "filters", "losses", "loss")
    if isinstance(fit.target, Field):
        return ("pictures", "sources")
    if isinstance(fit.target, PartlyKnown):
        return ("completion", "samples", "means", "posterior")
    if isinstance(fit.target, Conditional):
        return ("samples", "means", "chains", "posterior", "posterior_predictive_check")
    return ("chains", "pictures", "posterior", "posterior_predictive_check", "loss")


def _named(fit: Fitted, found: Sequence[Picture], name: str) -> Figure:
    word, tried = _word(name), ""
    for picture in found:
        if word in picture.words:
            drawn = picture.draw()
            if drawn is not None and not isinstance(drawn, str):
                return drawn
            tried = drawn or _missing(fit, word)
    known = list(dict.fromkeys(p.words[0] for p in found if word not in p.words and _may(fit, p.words[0])))
    told = f"Pictures of this fit: {', '.join(known)}."
    if isinstance(fit, FittedParameters):
        told = f"Pictures of fits of this kind, some for the plane or for images alone: {', '.join(known)}."
    if tried:
        raise ValueError(f"This fit has no picture {name!r}: {tried}\n{told}")
    raise ValueError(f"Unknown picture {name!r}.{closest(word, [w for p in found for w in p.words])}\n{told}")


def _missing(fit: Fitted, word: str) -> str:
    """Why a fit lacks a picture that fits of its kind may have."""
    name = fit.inference.name
    if word in ("loss", "gap", "energy") and word not in fit.records:
        return f"{name} records no {word}."
    if word == "loss":
        finite = int(np.isfinite(fit.records["loss"].mean(axis=0)).sum())
        return f"the loss is finite at {finite} steps; a picture takes 10."
    if word == "importance_weights" and "log_q" not in fit.answer:
        return f"draws of {name} have no weights."
    if word == "pairs":
        return "it takes two unknowns that vary, and draws of them; a point has none."
    return "it has not what this picture shows, or too few draws or steps of it."


def _may(fit: Fitted, word: str) -> bool:
    """Whether a fit may have a picture, told without drawing it."""
    if isinstance(fit, FittedParameters):
        return True
    chains, point = not fit.answer, isinstance(fit.target, Conditional)
    return {
        "loss": "loss" in fit.records, "importance_weights": "log_q" in fit.answer, "energy": "energy" in fit.records,
        "chains": chains, "effective_sample_size": chains, "means": point, "posterior": not point, "pairs": not point,
        "posterior_predictive_check": bool(fit.target.named("observed")), "pictures": bool(draws.pictured(fit)[1]),
    }.get(word, True)  # fmt: skip


def _word(title: str) -> str:
    return title.strip().lower().replace(" ", "_").replace("-", "_")


# ---- scalars of draws --------------------------------------------------------------------------------------------


def in_order(fit: Fitted) -> Scalars:
    """The scalars that vary: of chains those that mix worst first, else in the program's order."""
    shown = looked_at(fit).scalars
    return shown if fit.answer else shown.pick(worst_first(shown))


def worst_first(shown: Scalars) -> np.ndarray:
    """Indices of scalars by bulk ESS, the smallest first."""
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        sizes = array_stats.ess(shown.draws) if shown.names else np.zeros(0)
    return np.argsort(np.nan_to_num(sizes, nan=-1.0), kind="stable")


def chosen(shown: Scalars, var_names: str | Sequence[str] | None) -> Scalars:
    """Those of the named sites, or the named scalars, in the order of the names; ValueError for a name that none has."""
    if var_names is None:
        return shown
    sites, keep = draws.by_site(shown.names), []
    for name in [var_names] if isinstance(var_names, str) else var_names:
        rows = sites.get(name) or [i for i, own in enumerate(shown.names) if own == name]
        if not rows:
            known = ", ".join([*sites][:20]) or "none"
            raise ValueError(f"No scalars of {name!r} vary.{closest(name, [*sites, *shown.names])}\nThose of: {known}.")
        keep += rows
    return shown.pick(np.array(keep, int))
