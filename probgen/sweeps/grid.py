"""The grid of a sweep: its axes, its points, and the name of each point's run."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from probgen.algorithm import Inference
from probgen.data import whole_numbers
from probgen.run.conditioning import model_of

ONE = ""  # the label of the data or the inference where there is one
NOT_AN_AXIS = {
    "seed": "pass seeds=[...]", "inference": "pass inference=[...]", "data": "pass data=[...]",
    "args": "it is the same for all fits", "kwargs": "it is the same for all fits",
    "out": "each fit has its own folder under out", "init": "pass init= by itself, the same for all fits",
    "overwrite": "pass overwrite=True by itself", "progress": "pass progress=False by itself",
}  # fmt: skip
LARGEST = 100_000  # fits of a grid
MOST = 10_000  # seeds that a number may ask for: a larger one is a seed
READABLE = 80  # bytes of a folder's name before its hash


class Axis(NamedTuple):
    """One dimension. labels: its coordinate, as given; values: what is passed on, in the same order."""

    name: str
    labels: tuple[Any, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Point:
    """One fit. index: where it stands on every axis; labels: its coordinates; settings: those of the grid."""

    index: tuple[int, ...]
    labels: Mapping[str, Any] = field(compare=False)
    data: Any
    inference: Any
    settings: Mapping[str, Any] = field(compare=False)
    seed: int = 0

    @property
    def words(self) -> str:
        """The point in words: num_warmup=100 seed=0."""
        return " ".join(f"{k}={v}" for k, v in self.labels.items())

    @property
    def folder(self) -> str:
        """A readable name, and a hash of the labels, by which points are told apart whose names are too long or the same."""
        said = "-".join(f"{k}={v}" for k, v in self.labels.items())
        plain = re.sub(r"[^\w.=+-]+", "_", said).encode()[:READABLE].decode(errors="ignore")
        text = json.dumps({k: _hashed(v) for k, v in self.labels.items()}, sort_keys=True)
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Grid:
    """All points: the product of the axes. datas, inferences: what their labels mean."""

    axes: tuple[Axis, ...]
    datas: Mapping[Any, Any]
    inferences: Mapping[Any, Any]

    @property
    def points(self) -> list[Point]:
        """In the order of the axes, the last one fastest."""
        return [self._point(index) for index in itertools.product(*(range(len(axis.labels)) for axis in self.axes))]

    def _point(self, index: tuple[int, ...]) -> Point:
        labels = {axis.name: axis.labels[i] for axis, i in zip(self.axes, index, strict=True)}
        values = {axis.name: axis.values[i] for axis, i in zip(self.axes, index, strict=True)}
        own = {k: values.pop(k, ONE) for k in ("data", "inference")}
        return Point(index, labels, **own, seed=values.pop("seed"), settings=values)


def grid(program: Any, settings: Any, data: Any, inference: Any, seeds: Any, fixed: Mapping[str, Any]) -> Grid:
    """The grid of what `pg.sweep` is given; TypeError or ValueError for what is none."""
    inferences, datas = _inferences(inference), _datas(program, data)
    named = {"inference": inferences, "data": datas}
    several = [Axis(k, tuple(v), tuple(v)) for k, v in named.items() if ONE not in v]
    found = Grid((*several, *_axes(settings, fixed), _seeds(seeds)), datas, inferences)
    if (size := math.prod(len(axis.labels) for axis in found.axes)) > LARGEST:
        raise ValueError(
            f"The grid has {size:,} fits; at most {LARGEST:,}: sweep over fewer values, one sweep for each few."
        )
    return found


def _axes(settings: Any, fixed: Mapping[str, Any]) -> Iterator[Axis]:
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(
            f"settings is a {type(settings).__name__}; expected lists by name, such as {{'num_warmup': [100, 500]}}."
        )
    for name, values in (settings or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"settings has the name {name!r}; expected the names of settings, such as 'num_warmup'.")
        if name in NOT_AN_AXIS:
            raise TypeError(f"{name!r} is no setting of a grid: {NOT_AN_AXIS[name]}.")
        if name in fixed:
            raise TypeError(f"{name!r} is in settings and given by itself: which is meant?")
        found = _listed(f"settings[{name!r}]", values, f"{name}={values!r} by itself for all fits")
        yield Axis(name, _labels(found), found)


def _listed(what: str, values: Any, instead: str) -> tuple[Any, ...]:
    """A list's values as Python has them; an error where it is no list, is empty, or has a value twice."""
    if isinstance(values, str | bytes | Mapping | set | frozenset) or np.ndim(_shaped(values)) == 0:
        raise TypeError(f"{what} is {values!r}; expected a list of values, or {instead}.")
    if hasattr(values, "__len__") and len(values) > LARGEST:
        raise ValueError(f"{what} has {len(values):,} values; a grid has at most {LARGEST:,} fits.")
    found = tuple(v.item() if isinstance(v, np.generic) or _scalar_array(v) else v for v in values)
    if not found:
        raise ValueError(f"{what} is empty: the grid has no fit.")
    seen: set[str] = set()
    for value in found:
        if (said := repr(_hashed(value))) in seen:
            raise ValueError(f"{what} has {value!r} twice.")
        seen.add(said)
    return found


def _shaped(values: Any) -> Any:
    """Something whose number of dimensions says whether values is a list: lists and ranges as they are."""
    return np.empty(len(values)) if isinstance(values, list | tuple | range) else values


def _scalar_array(value: Any) -> bool:
    return hasattr(value, "__array__") and getattr(value, "shape", None) == ()


def _hashed(value: Any) -> Any:
    """A value as JSON has it, the same for 1 and 1.0, but not for 1 and True."""
    if isinstance(value, list | tuple):
        return [_hashed(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _hashed(v) for k, v in value.items()}
    if hasattr(value, "__array__"):  # arrays that print alike, as large ones do, may differ
        array = np.asarray(value)
        return repr(value), array.shape, str(array.dtype), array.tolist() if array.dtype == object else array.tobytes()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, bool) else str(value) if isinstance(value, int) else repr(value)


def _labels(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The coordinate: values of one kind as they are; others in words, as xarray and netCDF have no place for them."""
    for kinds in (bool, int, int | float, str):
        if all(isinstance(v, kinds) and isinstance(v, bool) == (kinds is bool) for v in values):
            return values
    for said in (_word, repr):
        if len({*(words := tuple(map(said, values)))}) == len(words):
            return words
    return tuple(f"{value!r} ({i})" for i, value in enumerate(values))


def _word(value: Any) -> str:
    """A value in words; a function or a class by its name, which is the same in every process."""
    if isinstance(value, Callable):
        return getattr(value, "__name__", type(value).__name__)
    return str(value)


def _seeds(seeds: Any) -> Axis:
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MOST:
            raise ValueError(
                f"seeds is {seeds}; expected how many, 1 to {MOST}, or a list of seeds, such as [{seeds}]."
            )
        seeds = range(int(seeds))
    found = _listed("seeds", seeds, "how many, such as seeds=3")
    return Axis("seed", *(2 * (tuple(whole_numbers.seed(seed) for seed in found),)))


def _inferences(inference: Any) -> dict[Any, Any]:
    if isinstance(inference, Mapping):
        return _named("inference", inference)
    if not isinstance(inference, list | tuple):
        return {ONE: inference}
    names = [each.name if isinstance(each, Inference) else each for each in inference]
    if bad := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"inference has {bad[0]!r}; expected names or settings objects, such as 'nuts'.")
    if any(names.count(name) > 1 for name in names):
        raise ValueError(
            f"inference has {', '.join(names)}: give each a name of its own, {{'short': ..., 'long': ...}}."
        )
    return _named("inference", dict(zip(names, inference, strict=True)))


def _named(what: str, found: Mapping[Any, Any]) -> dict[Any, Any]:
    if not found:
        raise ValueError(f"{what} is empty: the grid has no fit.")
    if bad := [key for key in found if not isinstance(key, str | int) or isinstance(key, bool) or key == ONE]:
        raise TypeError(f"{what} has the name {bad[0]!r}; expected words.")
    if len({*map(str, found)}) < len(found):
        raise ValueError(f"{what} has a name twice, as a word and as a number: {', '.join(map(repr, found))}.")
    return dict(found)


def _datas(program: Any, data: Any) -> dict[Any, Any]:
    """Data sets by their labels; what is a dictionary of the program's parameters is one data set."""
    if isinstance(data, list):
        return _named("data", dict(zip(_data_labels(data), data, strict=True)))
    if isinstance(data, Mapping) and data and not _of_the_program(program, data) and all(map(_is_data, data.values())):
        return _named("data", data)
    return {ONE: data}


def _data_labels(data: list[Any]) -> Iterable[Any]:
    if all(isinstance(each, str) for each in data):
        if len(set(data)) < len(data):
            raise ValueError(f"data has {', '.join(data)}: one of them twice.")
        return data
    return range(len(data))


def _is_data(value: Any) -> bool:
    return isinstance(value, Mapping | str | tuple) or hasattr(value, "__array__")


def _of_the_program(program: Any, data: Mapping[Any, Any]) -> bool:
    """Whether a key is a parameter of the program, or could be one."""
    try:
        parameters = inspect.signature(model_of(program).program).parameters
    except (TypeError, ValueError):
        return True
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return open_ended or any(key in parameters for key in data)
