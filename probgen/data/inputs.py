"""Arrays of any library as NumPy's own. What would be lost on the way (masks, missing values, ranges) is refused, not dropped."""

from __future__ import annotations

import contextlib
import decimal
import functools
import inspect
import numbers
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

DROP = "Leave those rows out, or give them any value in the support and mask them in the program (`handlers.mask`)."
MASKS = frozenset(["mask", "filled", "compressed", "getmask", "getmaskarray"])  # words of code that looks at a mask
LARGEST = {"float32": 2**31, "float64": 2**63}  # above the integers of each precision's programs


def read(name: str, value: Any, unknown: bool = False, finite: bool = True) -> np.ndarray:
    """A user's array, series, tensor, list or number as a NumPy array of booleans, integers or floats.

    name: what the user calls it, for messages. unknown: whether entries may be missing; they are NaN then, and the array is of
    floats. finite: whether NaN and infinities are refused. Raises ValueError, naming the array and the first bad index, for what is
    missing, not finite, empty or no number.
    """
    if not unknown:
        refuse_masked(name, value)
    _check_encoded(name, value)
    array = _numbers(name, _plain(name, value))
    if array.size == 0 and not (array.ndim > 1 and len(array)):  # rows of no columns say how many rows there are
        raise ValueError(f"Data {name!r} is empty: its shape is {array.shape}.")
    if finite and array.dtype.kind == "f" and (bad := np.isinf(array) if unknown else ~np.isfinite(array)).any():
        raise ValueError(not_finite(name, bad))
    long = array.dtype.kind == "f" and array.dtype.itemsize > 8
    own = np.dtype(float) if long or (unknown and array.dtype.kind != "f") else array.dtype
    return np.array(array, own.newbyteorder("="))  # of its own: what the caller changes in place later changes no fit


def not_finite(name: str, bad: np.ndarray) -> str:
    """Of an array with values that are NaN or infinite: how many, and the first."""
    return f"Data {name!r} has {int(bad.sum())} value(s) that are NaN or infinite, the first at {name}{first(bad)}."


def refuse_masked(name: str, value: Any) -> None:
    """Raise ValueError for an array with masked entries, or a list of such."""
    if (hole := _hole(value)) is not None:
        index, count = hole
        raise ValueError(f"Data {name!r} is masked at {count} place(s), the first at {name}{place(index)}.\n{DROP}")


def is_numbers(value: Any) -> bool:
    """Whether a value is an array of real numbers, in any library, or a list or tuple of such."""
    if hasattr(value, "columns") or not (hasattr(value, "__array__") or isinstance(value, list | tuple)):
        return False
    try:
        _numbers("", _plain("", value))
    except ValueError:
        return False
    return True


def as_given(value: Any) -> bool:
    """Whether a value is of a kind that only a program itself can make numbers of: records, times, sparse matrices, and arrays
    of arrays of different lengths; masked arrays too."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        return True
    if (hasattr(value, "nnz") or hasattr(value, "nse")) and hasattr(value, "shape"):
        return True
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        return hasattr(value, "is_sparse")
    dtype: Any = getattr(value, "dtype", None)
    if hasattr(value, "columns") or not hasattr(dtype, "kind"):
        return False
    if dtype.kind == "O" and isinstance(value, np.ndarray):
        return bool(value.size) and all(isinstance(v, np.ndarray | list | tuple) for v in value.ravel())
    return dtype.kind in "Mm" or bool(getattr(dtype, "names", None))


def refuse_iterator(name: str, value: Any) -> None:
    """Raise ValueError for what gives its values only once: a program runs many times."""
    if hasattr(type(value), "__next__"):
        raise ValueError(
            f"Data {name!r} is an iterator ({type(value).__name__}), which gives its values only once, and a program runs many "
            f"times.\nPass list({name})."
        )


class OutOfRange(ValueError):
    """An index is out of range, or an observed value outside its support."""


def told(value: int | None, length: int, sources: Iterable[str], data: Mapping[str, Any], what: str = "") -> str:
    """Of an index out of range of an axis of so many entries: which data hold it, in the user's words.

    sources: names of the data that it may come from; what: said behind it.
    """
    for name in sorted(sources):
        array = np.asarray(data[name])
        if array.dtype.kind in "iufb" and (out := (array >= length) | (array < -length)).any():
            start = f"\nNumber from 0: {name} - 1." if ((array >= 1) & (array <= length)).all() else ""
            held = f"{name}{first(out)} is {array[out].ravel()[0]:g}"
            return f"Data {name!r} is an index of {length} entries, 0 to {length - 1}; {held}{what}.{start}"
    source = f"computed from {', '.join(sorted(sources))}" if sources else "of the program"
    which = "out of range" if value is None else f"{value}"
    return (
        f"An index {source} is {which}, of {length} entries, 0 to {length - 1}{what}.\n"
        "Correct it, or clip it in the program."
    )


def place(index: tuple[int, ...]) -> str:
    """An index as it is written behind an array's name; nothing for a number."""
    return "[" + ", ".join(map(str, index)) + "]" if index else ""


def first(where: np.ndarray) -> str:
    """The first index at which a boolean array is true, as it is written."""
    return place(tuple(int(i) for i in np.unravel_index(int(np.argmax(where)), where.shape)))


def _hole(value: Any) -> tuple[tuple[int, ...], int] | None:
    """The first masked index of a masked array, or of a list of such, and how many there are; None where nothing is masked."""
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
        mask = np.array([any(np.atleast_1d(m.tolist())) for m in mask.ravel()]) if mask.dtype.names else mask
        return (tuple(int(i) for i in np.argwhere(mask)[0]), int(mask.sum())) if mask.any() else None
    if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray | list | tuple) for v in value):
        found = [((i, *hole[0]), hole[1]) for i, v in enumerate(value) if (hole := _hole(v)) is not None]
        return (found[0][0], sum(count for _, count in found)) if found else None
    return None


def _check_encoded(name: str, value: Any) -> None:
    """Raise ValueError for an array of a file as it is stored: packed numbers, or a number that stands for a missing one."""
    attributes = getattr(value, "attrs", None)
    if not isinstance(attributes, Mapping) or not hasattr(value, "dims"):
        return
    words = [k for k in ("_FillValue", "missing_value") if k in attributes]
    held = np.asarray(value)
    missing = any(np.isin(held, np.asarray(attributes[k])).any() for k in words if held.dtype.kind in "fiub")
    packed = float(attributes.get("scale_factor", 1)) != 1 or float(attributes.get("add_offset", 0)) != 0
    if missing or packed:
        what = "holds the number that stands for a missing one" if missing else "is packed (scale_factor, add_offset)"
        raise ValueError(f"Data {name!r} {what}, as its file stores it.\nDecode it first: xarray.decode_cf(dataset).")


def _plain(name: str, value: Any) -> np.ndarray:
    """The value as some NumPy array, nothing missing but NaN and objects that say so."""
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(f"Data {name!r} is a sparse matrix ({type(value).__name__}); pass {name}.toarray().")
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.filled(value.astype(float), np.nan) if np.ma.is_masked(value) else np.asarray(value.data)
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) in ("torch.bfloat16", "torch.float16") else value
    elif isinstance(value, list | tuple) and value and (hasattr(value[0], "detach") or _hole(value) is not None):
        value = [_plain(name, v) for v in value]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Data {name!r} cannot be read as one array: {error}") from error
    if array.dtype.kind == "V" and not array.dtype.names:  # numbers of a few bits: bfloat16, int4
        return array.astype(np.float32 if "float" in array.dtype.name else np.int64)
    return array


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """The array if it holds real numbers, or objects that are; missing ones become NaN."""
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind == "O":
        gone = np.array([_is_missing(v) for v in array.ravel()], bool).reshape(array.shape)
        real = np.array([isinstance(v, numbers.Real | decimal.Decimal | np.bool_) for v in array[~gone]], bool)
        if real.all() and gone.any():
            return np.where(gone, np.nan, array).astype(float)
        if real.all() and real.size:
            return _exact(name, array)
        if gone.any():
            raise ValueError(f"Data {name!r} has {int(gone.sum())} missing value(s), the first at {name}{first(gone)}.")
    raise ValueError(f"Data {name!r} has dtype {array.dtype}; expected numbers{_hint(array)}.")


def _exact(name: str, array: np.ndarray) -> np.ndarray:
    """Python's numbers in an array of objects, as NumPy's of the same value."""
    found = np.array(array.tolist())
    if found.dtype.kind not in "fiub":
        large = np.array([abs(v) >= 2**63 for v in array.ravel()]).reshape(array.shape)
        if large.any():
            raise ValueError(
                f"Data {name!r} has an integer beyond 64 bits at {name}{first(large)}.\nRescale it, or pass floats."
            )
        return array.astype(float)
    return found


def _is_missing(value: Any) -> bool:
    """Whether an object stands for a missing value: None, NaN, pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _hint(array: np.ndarray) -> str:
    """What to do about an array that holds no real numbers."""
    kinds = {
        "c": ": pass real and imaginary part, or the modulus",
        "M": ": times as numbers since some day, (t - t.min()) / np.timedelta64(1, 'D')",
        "m": ": durations in a unit of your choice, t / np.timedelta64(1, 'D')",
        "V": ": one array for each field",
    }
    if array.dtype.kind in "OUST":
        example = array.ravel()[0] if array.size else None
        words = isinstance(example, str | bytes)
        return ", as from np.unique(words, return_inverse=True)[1]" if words else f", not {type(example).__name__}"
    return kinds.get(array.dtype.kind, "")


def check_range(name: str, array: np.ndarray, precision: str) -> None:
    """Raise ValueError for finite numbers that are none in a program's precision: too large a float or integer."""
    if array.dtype.kind == "f":
        bad = np.isfinite(array) & (np.abs(array) > np.finfo(precision).max)
        what, instead = f"is infinite in {precision}", "float64'" if precision == "float32" else ""
    elif array.dtype.kind in "iu" and array.dtype.itemsize >= 4:
        limit = LARGEST[precision]
        bad = (array > limit - 1) | (array < -limit) if array.dtype.kind == "i" else array > limit - 1
        what, instead = f"is beyond the integers of precision {precision}", "float64'" if limit == 2**31 else ""
    else:
        return
    if bad.any():
        remedy = f"Rescale it, or fit with precision='{instead}." if instead else "Rescale it."
        raise ValueError(f"Data {name!r} {what} at {name}{first(bad)} ({array[bad].ravel()[0]:.6g}).\n{remedy}")


def check_closed_over(program: Any) -> None:
    """Raise ValueError for a masked array that a program reads from outside without looking at its mask, which engines drop."""
    for function in _functions(program, set()):
        words = _words(function.__code__)
        holes = {k: hole for k, v in _read_by(function, words).items() if (hole := _hole(v)) is not None}
        if holes and not (words - holes.keys()) & MASKS:
            name, (index, count) = next(iter(holes.items()))
            raise ValueError(
                f"The program reads {name!r}, which is masked at {count} place(s), the first at {name}{place(index)}; "
                f"its mask would be lost.\n{DROP}"
            )


def looks_at_masks(program: Any) -> bool:
    """Whether a program has words for the mask of a masked array."""
    return any(_words(f.__code__) & MASKS for f in _functions(program, set()))


def _functions(thing: Any, seen: set[int]) -> list[types.FunctionType]:
    """The Python functions of a callable: itself, what it wraps, and the functions of the same module that it names."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    while isinstance(thing, functools.partial | types.MethodType):
        thing = thing.func if isinstance(thing, functools.partial) else thing.__func__
    if not isinstance(thing, types.FunctionType):
        thing = inspect.getattr_static(type(thing), "__call__", None)
    if not isinstance(thing, types.FunctionType) or id(thing) in seen:
        return []
    seen.add(id(thing))
    inner = [v for v in _read_by(thing, _words(thing.__code__)).values() if isinstance(v, types.FunctionType)]
    own = [v for v in inner if v.__module__ == thing.__module__]
    return [thing, *(f for v in own for f in _functions(v, seen))]


def _words(code: types.CodeType) -> set[str]:
    """The names that code uses, those of functions inside included."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return {*code.co_names, *code.co_freevars, *(w for c in inner for w in _words(c))}


def _read_by(function: types.FunctionType, words: set[str]) -> dict[str, Any]:
    """What a function reads from outside: globals, cells of closures, defaults of parameters."""
    found = {k: function.__globals__[k] for k in words if k in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    defaults = inspect.signature(function).parameters.values()
    return found | {p.name: p.default for p in defaults if p.default is not p.empty}
