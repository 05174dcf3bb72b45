"""Programs that look at their data in Python: `int(group.max()) + 1`, `y[~np.isnan(y)]`, `if power > 1`.

A program is tried with its arrays as arguments of compiled code first. Where it looks at some of them, or where what it calls on
them means something else for arrays of the user's library (`meanings`), these are given to it as the user gave them (`Fixed`):
compiled code is then of their content. Words that a program takes as indices become codes.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data.checks import check
from probgen.data.fixed import Fixed, is_setting, plain
from probgen.data.inputs import as_given, read
from probgen.programs import meanings
from probgen.programs.places import place_of

T = TypeVar("T")
LOOKS = "The program looks at the values of {} in Python: it is compiled anew for other values."
TRACING = (
    "The program looks in Python at a value that jax.numpy has only when it runs{}.\n"
    "Of data, take NumPy there (np.isnan, np.nonzero, np.any), not jax.numpy; of unknowns, jnp.where and not Python's if."
)
CODED = "{} is given to the program as codes: {}."
LOOKING = (
    "ConcretizationTypeError", "NonConcreteBooleanIndexError", "TracerArrayConversionError", "TracerBoolConversionError",
    "TracerIntegerConversionError",
)  # fmt: skip
TRACED = ("Tracer'", "Tracer(", "Traced<", "Tracer has no attribute")
SHOWN = 8  # levels that a note tells

_known: OrderedDict[Any, frozenset[str]] = OrderedDict()  # what programs look at


def kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """The data as they are given; words, and what is no array of numbers, as they are."""
    return {k: Fixed(v) if is_words(v) or as_given(v) else v for k, v in given.items()}


def settled(
    program: Callable[..., Any],
    given: Mapping[str, Any],
    checked: Mapping[str, Any],
    precision: str,
    prepare: Callable[..., T],
    probe: Callable[[T], Mapping[str, Any]],
) -> tuple[T, dict[str, Any], dict[str, list[str]]]:
    """What `prepare` makes of the data, these data, and the words that codes stand for.

    given: the data as the user gave them; checked: the same by `check`, words and tables as they are; prepare: with `whole=True`,
    of the program on its whole data even where it is read as one of a row; probe: numbers that tell one target from another. Where
    the program does not run on those, words are tried as codes, and tables of numbers as arrays. Raises what `prepare` raises for
    the data as they are.
    """
    try:
        return *_meant(program, given, _looked(program, given, checked, prepare), prepare, probe), {}
    except Exception as error:
        words = {k: coded(plain(v)) for k, v in given.items() if is_words(plain(v))}
        tables = {k: plain(v).to_numpy() for k, v in given.items() if is_table(plain(v))}
        if not words and not tables:
            raise
        other = {**given, **tables, **{k: codes for k, (codes, _) in words.items()}}
        try:
            found = _looked(program, other, check(program, other, precision), prepare)
        except Exception:
            raise error from None
    return *found, {k: levels for k, (_, levels) in words.items()}


def told(data: Mapping[str, Any], levels: Mapping[str, list[str]]) -> tuple[str, ...]:
    """What to tell of data that are not arguments of compiled code, and of codes."""
    looked = [k for k, v in data.items() if type(v) is Fixed and hasattr(v, "shape")]
    notes = [LOOKS.format(", ".join(sorted(looked)))] if looked else []
    for name, words in levels.items():
        shown = ", ".join(f"{i} for {v}" for i, v in enumerate(words[:SHOWN]))
        notes.append(CODED.format(name, shown + ", ..." * (len(words) > SHOWN)))
    return tuple(notes)


def _looked(
    program: Callable[..., Any],
    given: Mapping[str, Any],
    checked: Mapping[str, Any],
    prepare: Callable[[dict[str, Any]], T],
) -> tuple[T, dict[str, Any]]:
    arrays = [k for k, v in checked.items() if not is_setting(v)]
    fixed = lambda names: {k: Fixed(given[k]) if k in names else v for k, v in checked.items()}  # noqa: E731
    names = _recall(program, arrays)
    if not names:
        try:
            return prepare(dict(checked)), dict(checked)
        except Exception as error:
            if not arrays or not (is_look(error) or _is_of_kind(error, lambda: prepare(fixed(arrays)))):
                raise
    run = lambda some: prepare(fixed(some))  # noqa: E731
    if not names or not _runs(run, names):
        names = _names(arrays, run)
        _remember(program, arrays, names)
    return run(names), fixed(names)


def _is_of_kind(error: Exception, run: Callable[[], Any]) -> bool:
    """Whether the user's own code fails on an engine's arrays and runs on those of the user's library, as in `y.values`."""
    if isinstance(error, Incompatible) or not place_of(error):
        return False
    try:
        run()
    except Exception:
        return False
    return True


def _meant(
    program: Callable[..., Any],
    given: Mapping[str, Any],
    found: tuple[T, dict[str, Any]],
    prepare: Callable[..., T],
    probe: Callable[[T], Mapping[str, Any]],
) -> tuple[T, dict[str, Any]]:
    """What was found, or the same of arrays as the user gave them, where the program runs on these and means something else."""
    target: Any = found[0]
    arrays = {k: plain(given[k]) for k, v in found[1].items() if not is_setting(v)}
    names = meanings.doubtful(program, arrays, target.engine)
    if names:
        data = {**found[1], **{k: Fixed(given[k]) for k in names}}
        with contextlib.suppress(Exception):  # what does not run on them has no other meaning
            other = prepare(data)
            if type(target) is not type(other):  # arrays as they are have no rows
                target = prepare(found[1], whole=True)
            if type(target) is type(other) and not meanings.alike(probe, target, other):
                return other, data
    return found


def _names(arrays: list[str], prepare: Callable[[frozenset[str]], Any]) -> frozenset[str]:
    """The fewest arrays that must be given as they are: those without which it fails, or all."""
    every = frozenset(arrays)
    if _runs(prepare, every) and len(arrays) > 1:
        found = frozenset(k for k in arrays if not _runs(prepare, every - {k}))
        if _runs(prepare, found):
            return found
    return every


def _runs(prepare: Callable[[frozenset[str]], Any], names: frozenset[str]) -> bool:
    """Whether it runs, or fails elsewhere than in the user's own code."""
    try:
        prepare(names)
    except Exception as error:
        return not is_look(error) and not place_of(error)
    return True


def _recall(program: Any, arrays: list[str]) -> frozenset[str]:
    with contextlib.suppress(TypeError):  # a program without a hash
        return _known.get((program, *arrays), frozenset())
    return frozenset()


def _remember(program: Any, arrays: list[str], names: frozenset[str]) -> None:
    with contextlib.suppress(TypeError):
        _known[(program, *arrays)] = names
    while len(_known) > 256:
        _known.popitem(last=False)


def is_look(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that a program looked at an array that has no values, or is none of NumPy's."""
    return any(map(_says_look, _chain(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # a chain may be a ring
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _says_look(error: BaseException) -> bool:
    if type(error).__module__ == "jax.errors":
        return type(error).__name__ in LOOKING
    tensors = isinstance(error, TypeError | AttributeError) and "Tensor" in str(error)
    return tensors or any(word in str(error) for word in TRACED)


def why(error: BaseException | None) -> str:
    """Of a program that JAX cannot trace, for it looks at a value as well when its data have values: where, and what to do."""
    for found in _chain(error):
        if type(found).__module__ == "jax.errors" and type(found).__name__ in LOOKING:
            return TRACING.format(place_of(found))
    return ""


def is_words(value: Any) -> bool:
    """Whether a value is an array, a list or a series of words."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, str) or (isinstance(v, list | tuple) and is_words(v)) for v in value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind not in ("U", "T", "O") or hasattr(value, "columns"):
        return False
    array = np.asarray(value)
    return bool(array.size) and (array.dtype.kind in "UT" or all(isinstance(v, str) for v in array.ravel()))


def is_table(value: Any) -> bool:
    """Whether a value is a table of numbers alone, or a column of one."""
    return hasattr(value, "to_numpy") and value.to_numpy().dtype.kind in "fiub"


def unreadable(given: Mapping[str, Any], said: str = "") -> str:
    """Why the first of the data that is no array of finite numbers is none; empty where all are.

    said: what the program said of it; data whose names stand there in quotes come first, for NaN in others it may handle.
    """
    for name, value in sorted(given.items(), key=lambda item: repr(item[0]) not in said):
        value = plain(value)
        like = hasattr(value, "__array__") or isinstance(value, list | tuple | set) or as_given(value)
        if like and not is_setting(value) and not callable(value):
            try:
                read(name, value)
            except ValueError as error:
                return str(error)
    return ""


def coded(value: Any) -> tuple[np.ndarray, list[str]]:
    """Words as codes from 0, and the words that they stand for: a table's own categories, else in the order of the alphabet."""
    categories = getattr(getattr(value, "cat", value), "categories", None)
    if categories is not None:
        levels = [str(v) for v in categories]
        place = {v: i for i, v in enumerate(levels)}
        return np.array([place[v] for v in np.asarray(value)]), levels
    levels, codes = np.unique(np.asarray(value).astype(str), return_inverse=True)
    return codes.reshape(np.shape(value)), [str(v) for v in levels]
