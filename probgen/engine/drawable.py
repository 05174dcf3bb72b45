"""What users read of draws that a learner without a density cannot use, in the same words on both engines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from probgen.algorithm import Incompatible

MEAN = "{!r} holds bits: its mean stands for its draw, which has no gradient."

WEIGHED = (
    "{!r} has a mask or a scale, which weigh its density and which its draws do not have.\n"
    "Leave them out, or try inference='svi' or 'mle', which use a density."
)
WEIGHTS = "{0!r} has a scale, which counts its density more or less than once: {1}.\nLeave the scale out{2}."
GIVEN = (
    "{0!r} has a scale, which counts its density more or less than once: what is drawn given {1} would be of the weighed density.\n"
    "Leave the scale out of the program."
)
STILL = "A scale counts {0!r} in what is drawn given {1}, as in learning: inputs for which it is 1 give the program's own law."
OBSERVED = (
    "{!r} is observed at values that are no rows of the data, which draws do not take into account.\n"
    "Try inference='svi' or 'mle', which use its density."
)
SAME = "No noise reaches {}: given the same inputs, if any, all draws of it are the same."
FLAT_CRITIC = (
    "The critic's gradient at rows is zero everywhere: it ignores them, or a rounding, a comparison or a factor of 0 cuts it off.\n"
    "Nothing can be learned from it."
)
UNMOVED = "No parameter moves {}, which {} drawn as the program says."
STUCK = "The parameters {} move draws by steps alone, as a rounding is, without a gradient: they stay where they begin."


def weighed(target: Any) -> list[str]:
    """Names of the sites that a scale counts more or less than once, be it the guide's alone."""
    own = [site.name for site in target.sites if site.weighed]
    return [*own, *(name for name in getattr(target, "weighed_by_guide", ()) if name not in own)]


def check_counted(target: Any, word: str) -> None:
    """Raise Incompatible for a probability of rows of which a scale counts a site more or less than once.

    word: the algorithm, whose closed form knows of no such weight.
    """
    if (names := weighed(target)) and target.proper:
        why = f"{word} computes with the probability itself, and would pass that over"
        instead = ", and repeat the rows that count more often; 'mle' of a site in closed form weighs its rows"
        raise Incompatible(WEIGHTS.format(names[0], why, instead))


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


def without_parameters(names: Iterable[str], register: str) -> str:
    found = ", ".join(map(repr, names))
    return f"No parameter moves {found}: there is nothing to be learned from draws.\nRegister what draws them, with {register}."


def by_steps(name: str) -> str:
    return (
        f"{name!r} is moved by parameters, but its gradient is zero: a rounding, a comparison, an argmax, whole numbers or bounds "
        "cut it off.\nDraw a smooth function of noise, such as softmax in place of argmax."
    )


def not_finite(name: str, parameter: str) -> str:
    return (
        f"The gradient of draws of {name!r} in {parameter!r} is NaN or infinite where learning begins.\n"
        "Look for a square root or a logarithm of what is not above 0, also in the branch that a `where` does not take."
    )


def moved(
    values: Mapping[str, Collection[str]], slopes: Mapping[str, Collection[str]], register: str
) -> tuple[str, ...]:
    """Notes on what no gradient moves; values, slopes: of each visible site the parameters that its value, and slope, depend on.

    Raises Incompatible where no parameter moves a visible site, and where none that does has a gradient.
    """
    if not any(values.values()):
        raise Incompatible(without_parameters(values, register))
    for name in values:
        if values[name] and not slopes[name]:
            raise Incompatible(by_steps(name))
    still = [repr(name) for name in values if not values[name]]
    stuck = sorted(set().union(*values.values()) - set().union(*slopes.values()))
    notes = [UNMOVED.format(", ".join(still), "are" if len(still) > 1 else "is")] if still else []
    more = f" and {len(stuck) - 3} more" if len(stuck) > 3 else ""
    return (*notes, STUCK.format(", ".join(map(repr, stuck[:3])) + more)) if stuck else tuple(notes)


def wrong_shape(keyword: str, shape: tuple[int, ...], site: str, drawn: tuple[int, ...]) -> str:
    return f"{keyword} has rows of shape {shape}; the program draws {site!r} of shape {drawn}."


NO_PARAMETERS = "The program has no parameters to be learned ({}.param, or a network's)."
