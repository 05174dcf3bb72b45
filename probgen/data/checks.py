"""Data: what a user passes, checked before anything compiles."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.data.fixed import Fixed, is_setting
from probgen.data.inputs import (
    check_closed_over,
    check_range,
    first,
    looks_at_masks,
    read,
    refuse_iterator,
    refuse_masked,
)
from probgen.target import Bounds, Site

GREY = """
Make bits of grey levels (x >= 0.5, or drawn once: probgen.datasets.binarised(x, seed=0)), or give them a density on [0, 1] (Beta).
Only learners from rows draw bits of them at every step."""
LISTED = "The guide's distribution of {} is used in learning; draws of it are from its exact conditional."


def check(program: Callable[..., Any], data: Mapping[str, Any], precision: str = "float64") -> dict[str, Any]:
    """The data as NumPy arrays and static settings, in the order of the program's parameters.

    Lists, series and tensors become arrays; Python's numbers, booleans, strings and None stay as they are, and what is `Fixed`.
    NaN and infinite numbers pass: see `missing` for those that reach a density. Raises TypeError for an unknown or missing name;
    ValueError for iterators, empty arrays, masked ones where the program has no word for masks, and for what is no number or none
    in that precision, naming array and first bad index.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"data is a {type(data).__name__}; expected a mapping from the program's parameters to arrays.")
    check_names(program, data)
    check_closed_over(program)
    masks = looks_at_masks(program)
    found = {name: _checked(name, value, masks) for name, value in data.items()}
    for name, value in found.items():
        if isinstance(value, np.ndarray | float) and precision in ("float32", "float64"):
            check_range(name, np.asarray(value), precision)
    return found


def _checked(name: str, value: Any, masks: bool) -> Any:
    if type(value) is Fixed:
        refuse_iterator(name, value.value)
        if not masks:
            refuse_masked(name, value.value)
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
        return value.item()
    return value if is_setting(value) else read(name, value, finite=False)


def check_names(program: Callable[..., Any], data: Mapping[str, Any]) -> None:
    """Raise TypeError for data that the program does not take, or lacks."""
    try:
        parameters = inspect.signature(program).parameters
    except (TypeError, ValueError):
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [k for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    label = getattr(program, "__name__", "the program")
    for name in data:
        if name not in known and not open_ended:
            from probgen.algorithm import closest

            raise TypeError(
                f"Unknown data {name!r} for {label}.{closest(name, known)}\nIt takes: {', '.join(known) or 'nothing'}."
            )
    missing = [k for k in known if parameters[k].default is inspect.Parameter.empty and k not in data]
    if missing:
        raise TypeError(f"Missing data for {label}: {', '.join(missing)}.\nPass data={{{missing[0]!r}: ..., ...}}.")


def check_support(sites: tuple[Site, ...], data: Mapping[str, Any]) -> None:
    """Raise ValueError where the data of an observed site lie outside its support, naming the first bad index."""
    for site in sites:
        if site.bounds is None:
            continue
        value, (low, high, strict, whole) = np.asarray(data[site.source]), site.bounds
        good = ((value > low) if strict else (value >= low)) & (value <= high)
        if whole:
            good &= value == np.rint(value)
        if not good.all():
            kind = "integers" if whole else "numbers"
            bits = whole and (low, high) == (0, 1) and ((value >= 0) & (value <= 1)).all()
            raise ValueError(
                f"Data {site.source!r} is observed at site {site.name!r} ({site.distribution}), whose support is "
                f"{kind} from {low:g}{' (excluded)' if strict else ''} to {high:g}; {site.source}{first(~good)} is "
                f"{value[~good][0]:g}.{GREY if bits else ''}"
            )


def check_known(sites: tuple[Site, ...], point: Mapping[str, np.ndarray]) -> None:
    """ValueError for a point, known in part, NaN where not, whose known values lie outside the support of their site."""
    for site in sites:
        if site.bounds is None or site.source not in point:
            continue
        value, (low, high, _, whole) = np.asarray(point[site.source]), site.bounds
        bad = (value < low) | (value > high)
        if whole and high > 1:  # of bits, grey is said elsewhere
            bad |= ~np.isnan(value) & (value != np.rint(value))
        if bad.any():
            raise ValueError(
                f"{site.source}{first(bad)} is {value[bad][0]:g}; site {site.name!r} ({site.distribution}) has "
                f"{'integers' if whole else 'numbers'} from {low:g} to {high:g}, and NaN where nothing is known."
            )


def taken(program: Callable[..., Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a program has keywords for."""
    known = inspect.signature(program).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return dict(data)
    return {p.name: data[p.name] for p in known if p.name in data}


class ByPlace:
    """A guide whose parameters have other names than the program's, called by those: they stand in the same places."""

    def __init__(self, guide: Callable[..., Any], names: tuple[tuple[str, str], ...]) -> None:
        self.program, self.names = guide, names  # of the program's parameter, and of the guide's

    def __call__(self, **data: Any) -> Any:
        return self.program(**{dict(self.names).get(k, k): v for k, v in data.items()})

    def __eq__(self, other: Any) -> bool:
        return type(other) is ByPlace and (self.program, self.names) == (other.program, other.names)

    def __hash__(self) -> int:
        return hash((self.program, self.names))

    @property
    def __signature__(self) -> inspect.Signature:
        said, back = inspect.signature(self.program), {own: name for name, own in self.names}
        return said.replace(parameters=[p.replace(name=back.get(p.name, p.name)) for p in said.parameters.values()])

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "guide")


def by_place(guide: Callable[..., Any], program: Callable[..., Any]) -> Callable[..., Any]:
    """A guide that takes the program's data by its names; `SVI.step(*data)` of the libraries gives them to both by their places."""
    try:
        own, said = (list(inspect.signature(f).parameters.values()) for f in (guide, program))
    except (TypeError, ValueError):
        return guide
    known = [p.name for p in said]
    needed = [p for p in own if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    lacking = [p.name for p in needed if p.name not in known]
    pairs = tuple((name, p.name) for name, p in zip(known, own, strict=False) if name != p.name)
    if not lacking or not set(lacking) <= {mine for _, mine in pairs} or {mine for _, mine in pairs} & set(known):
        return guide
    return ByPlace(guide, pairs)


def on_the_line(support: Any) -> Any:
    """The support of one coordinate."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def bounds(support: Any, constraints: Any) -> Bounds | None:
    """The bounds of a support on the line, where they are plain numbers; constraints: the engine's module of them."""
    support = on_the_line(support)
    if support is constraints.boolean:
        return Bounds(0, 1, False, True)
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", np.inf)
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    return Bounds(low, high, support is constraints.positive, bool(support.is_discrete))


def check_drawn(hidden: Mapping[str, tuple[int, ...]], drawn: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless a guide draws just the hidden sites of a program, in their shapes."""
    wrong = [f"{k!r} is {'not drawn by' if k in hidden else 'unknown to'} the {'guide' if k in hidden else 'program'}"
             for k in sorted(set(drawn) ^ set(hidden))]  # fmt: skip
    wrong += [
        f"{k!r} has shape {hidden[k]}, in the guide {drawn[k]}"
        for k in sorted(set(drawn) & set(hidden))
        if drawn[k] != hidden[k]
    ]
    if wrong:
        raise ValueError(f"The guide must draw the program's hidden sites: {'; '.join(wrong)}.")


def on_host(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data with arrays of any library as NumPy's, settings as they are."""
    return {k: v if is_setting(v) else np.asarray(v) for k, v in data.items()}


def check_begun(shapes: Mapping[str, tuple[int, ...]], answer: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Those of the answer that are parameters of these shapes; see `Generative.begun`."""
    found = {k: np.asarray(v) for k, v in answer.items() if k in shapes}
    if not found:
        raise ValueError(f"init has {', '.join(answer) or 'no parameters'}; the program has {', '.join(shapes)}.")
    for k, v in found.items():
        if v.shape != shapes[k]:
            raise ValueError(f"Parameter {k!r} of init has shape {v.shape}; the program's has {shapes[k]}.")
    return found
