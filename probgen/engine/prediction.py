"""Data to predict on: the fit's with some replaced. What was observed must not shape what is predicted of new inputs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probgen.data.checks import check_support
from probgen.data.fixed import Fixed, is_setting, plain
from probgen.data.inputs import OutOfRange
from probgen.programs.pinned import Changed
from probgen.target import Site

FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError, Warning)
NOTHING_OF_IT = ": the fit has nothing to say of it"
Shape = tuple[int, ...]
ShapesOn = Callable[[Mapping[str, Any], tuple[str, ...]], Mapping[str, Shape]]


def shapes(data: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of the arrays among data."""
    return {k: tuple(v.shape) for k, v in data.items() if hasattr(v, "shape")}


def resized(own: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Names of the data whose shapes are not those of the fit's own."""
    before, after = shapes(own), shapes(data)
    return [k for k in data if before.get(k, ()) != after.get(k, ()) and data[k] is not None]


def changed(own: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether any datum is another than the fit's."""
    return any(k not in own or not _same(own[k], v) for k, v in data.items())


def _same(own: Any, value: Any) -> bool:
    if type(own) is Fixed or type(value) is Fixed:
        return own == value
    own, value = np.asarray(own), np.asarray(value)
    return np.array_equal(own, value, equal_nan=own.dtype.kind == value.dtype.kind == "f")


def kept(
    program: Callable[..., Any], sites: Sequence[Site], own: Mapping[str, Any], data: Mapping[str, Any]
) -> list[str]:
    """Names of the data that are observed and still have the fit's shapes.

    Where a site's value is computed from data (obs=jnp.log(y)), those that the program can do without are taken for observed.
    """
    observed = [s for s in sites if s.kind == "observed"]
    sources = {s.source for s in observed if s.source}
    if any(not s.source for s in observed):
        sources |= {k for k, v in data.items() if hasattr(v, "shape") and k in _optional(program)}
    return [k for k in data if k in sources and k not in resized(own, data) and data[k] is not None]


def data_on(
    program: Callable[..., Any], sites: Sequence[Site], own: Mapping[str, Any], data: Mapping[str, Any], shapes_on: ShapesOn
) -> tuple[dict[str, Any], tuple[str, ...]]:  # fmt: skip
    """The data to run a program on, and which of them, though they are given to it, must not shape what is predicted.

    sites, own: of the fit; data: the fit's own with some replaced; shapes_on(data, held): the shapes of observed sites, nothing
    observed. Data of the fit's sizes are taken as they are; of others, what was observed is left out where the program can do
    without it. Raises ValueError where they do not fit together, OutOfRange for an index.
    """
    observed = kept(program, sites, own, data)
    try:
        return _data_on(program, sites, own, data, shapes_on)
    except (OutOfRange, Changed):
        raise
    except FAULTS as error:
        works = lambda some: _data_on(program, sites, own, some, shapes_on)  # noqa: E731
        raise misfit(own, data, observed, error, works) from error


def _data_on(
    program: Callable[..., Any], sites: Sequence[Site], own: Mapping[str, Any], data: Mapping[str, Any], shapes_on: ShapesOn
) -> tuple[dict[str, Any], tuple[str, ...]]:  # fmt: skip
    if not resized(own, data):
        if changed(own, data):
            shapes_on(data, ())
        return dict(data), ()
    fault: Exception = ValueError("There is nothing to run the program on.")
    observed = kept(program, sites, own, data)
    for given in freed(program, data, observed):
        held = tuple(k for k in observed if given[k] is not None)
        try:
            found = shapes_on(given, held)
            check_spread(sites, own, given, found)
            check_unmoved(found, shapes_on, given, held)
            return given, held
        except (OutOfRange, Changed):
            raise
        except FAULTS as error:
            fault = error
    raise fault


def check_likelihood(
    program: Callable[..., Any], sites: Sequence[Site], own: Mapping[str, Any], data: Mapping[str, Any],
    shapes_on: Callable[[Mapping[str, Any]], Any],
) -> None:  # fmt: skip
    """Raise ValueError for new data whose log likelihood a program does not give: of other sizes, indices or supports.

    shapes_on(data): the shapes of observed sites, observed.
    """
    if not changed(own, data):
        return
    if resized(own, data) and (observed := kept(program, sites, own, data)):
        raise unlikely(own, data, observed)
    check_support(tuple(s for s in sites if s.source in data), data)
    try:
        check_spread(sites, own, data, shapes_on(data))
    except (OutOfRange, Changed):
        raise
    except FAULTS as error:
        raise misfit(own, data, (), error, shapes_on) from error


def freed(program: Callable[..., Any], data: Mapping[str, Any], observed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Data to try in turn: without what is observed, where the program can do without; then with it as it is."""
    optional = [k for k in observed if k in _optional(program)]
    if optional:
        yield {**data, **dict.fromkeys(optional)}
    yield dict(data)


def _optional(program: Callable[..., Any]) -> set[str]:
    """Keywords of a program that are None by default."""
    with contextlib.suppress(TypeError, ValueError):
        return {k for k, p in inspect.signature(program).parameters.items() if p.default is None}
    return set()


def check_spread(
    sites: Sequence[Site], own: Mapping[str, Any], data: Mapping[str, Any], found: Mapping[str, Shape]
) -> None:
    """Raise ValueError where one new row is spread over as many as the fit had: something else sets their number.

    found: the shapes of the observed sites on these data.
    """
    before, after = shapes(own), shapes(data)
    for name in resized(own, data):
        old, new = before.get(name, ()), after.get(name, ())
        lost = {n for n in old if n > 1 and old.count(n) > new.count(n)} if 1 in new or len(new) < len(old) else set()
        for site in sites:
            if site.name in found and any(
                site.shape.count(n) and found[site.name].count(n) >= site.shape.count(n) for n in lost
            ):
                raise ValueError(
                    f"{name} has shape {new}, and site {site.name!r} would still be of shape {site.shape}."
                )


def check_unmoved(
    found: Mapping[str, Shape], shapes_on: ShapesOn, data: Mapping[str, Any], held: tuple[str, ...]
) -> None:
    """Raise ValueError where the shapes of what is predicted follow those of what was observed, and not of what is new."""
    for name in held:
        value = np.asarray(plain(data[name]))
        longer = np.concatenate([value, value[:1]]) if value.ndim else np.asarray([value] * 2)
        longer = Fixed(longer) if type(data[name]) is Fixed else longer
        try:
            same = dict(shapes_on({**data, name: longer}, held)) == dict(found)
        except Exception:
            same = False
        if not same:
            raise ValueError(f"How much is predicted follows {name}.")


def misfit(
    own: Mapping[str, Any], data: Mapping[str, Any], observed: Sequence[str], error: Any, works: Callable[[dict[str, Any]], Any]
) -> ValueError:  # fmt: skip
    """What does not fit together, in the user's words: what is new, what is still the fit's, what else to pass.

    works: raises where the program does not run on data; tried on those that the message tells the user to pass.
    """
    new = resized(own, data) or [k for k, v in data.items() if is_setting(v) and own.get(k) != v]
    sizes = _sizes(own, data, new)
    old = [k for k in data if k not in new and k not in observed and _like(data[k], sizes) is not None]
    tell = lambda names: ", ".join(f"{k}: {shapes(data).get(k, data[k])}" for k in names)  # noqa: E731
    stale = [k for k in (*old, *observed) if k not in new]
    still = f"; {tell(stale)} {'is' if len(stale) == 1 else 'are'} still the fit's" if stale else ""
    lines = [f"The program does not run on these data ({tell(new)}{still})."]
    for names in (old, [*old, *observed], list(observed)):
        if names and _runs(works, {**data, **{k: v for k in names if (v := _like(data[k], sizes)) is not None}}):
            only = [k for k in names if k in observed]
            note = f"; where {only[0]} is only observed, its values do not count" if only else ""
            return ValueError("\n".join([*lines, f"Pass {', '.join(names)} of the new size as well{note}."]))
    return ValueError("\n".join([*lines, *str(error).strip().splitlines()[:2]]))


def _sizes(own: Mapping[str, Any], data: Mapping[str, Any], new: Sequence[str]) -> dict[int, int]:
    """From the fit's sizes to the new ones."""
    pairs = [pair for k in new for pair in zip(shapes(own).get(k, ()), shapes(data).get(k, ()), strict=False)]
    pairs += [(own[k], data[k]) for k in new if type(own.get(k)) is int and type(data[k]) is int]
    return {old: now for old, now in pairs if old != now}


def _like(value: Any, sizes: Mapping[int, int]) -> Any:
    """Zeros of the new size where an array, or a number, has an old one; None where it has none."""
    if type(value) is int:
        return sizes.get(value)
    shape = getattr(value, "shape", ())
    if not sizes.keys() & set(shape):
        return None
    found = np.zeros([sizes.get(n, n) for n in shape], np.asarray(plain(value)).dtype)
    return Fixed(found) if type(value) is Fixed else found


def _runs(works: Callable[[dict[str, Any]], Any], data: dict[str, Any]) -> bool:
    try:
        works(data)
    except Exception:
        return False
    return True


def unlikely(own: Mapping[str, Any], data: Mapping[str, Any], observed: Sequence[str]) -> ValueError:
    """New data have other sizes than what was observed, of which a likelihood is asked."""
    new = ", ".join(f"{k}: {shapes(data).get(k, data[k])}" for k in resized(own, data))
    return ValueError(
        f"These data have other sizes than the fit's ({new}), and what is observed is still the fit's.\n"
        f"Pass {', '.join(observed)} as well."
    )
