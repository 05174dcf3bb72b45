"""Names of the axes of a fit's variables, and labels along them: the author's, the plates', and those of xarray and pandas data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from probgen.data.fixed import plain
from probgen.model import Model
from probgen.target import Target

Shape = tuple[int, ...]
OURS = ("chain", "draw", "sample", "step")  # dims that a plate may not be called like


class Axis(NamedTuple):
    """An axis of a datum: its name, where it has one, and the labels along it; own: whether the name is a dim of xarray."""

    size: int
    name: str | None = None
    labels: np.ndarray | None = None
    own: bool = False


# ---- what data say -----------------------------------------------------------------------------------------------


def axes_of(keyword: str, value: Any) -> tuple[Axis, ...]:
    """The axes of a DataArray, a Series or a DataFrame; none of other data."""
    package = type(value).__module__.partition(".")[0]
    if package == "xarray" and hasattr(value, "dims") and hasattr(value, "to_numpy"):
        return tuple(_of_xarray(value, dim) for dim in value.dims)
    if package != "pandas" or not hasattr(value, "index"):
        return ()
    rows = Axis(len(value), _word(value.index.name), _labels(value.index))
    if not hasattr(value, "columns"):
        return (rows,)
    return rows, Axis(value.shape[1], _word(value.columns.name) or f"{keyword}_column", _labels(value.columns))


def _of_xarray(value: Any, dim: Any) -> Axis:
    named = isinstance(dim, str) and not dim.startswith("dim_") and dim not in OURS
    held = dim in value.coords and value.coords[dim].ndim == 1
    labels = _labels(value.coords[dim].to_index()) if held else None
    return Axis(value.sizes[dim], dim if named else None, labels, named)


def _word(name: Any) -> str | None:
    return name if isinstance(name, str) and name not in OURS else None


def _labels(index: Any) -> np.ndarray | None:
    """The entries of an index where each is another; none of a plain range, or of several levels."""
    plain = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
    if plain or getattr(index, "nlevels", 1) > 1 or not index.is_unique:
        return None
    values = np.asarray(index)
    return values if values.dtype.kind in "biufM" else np.array([str(v) for v in values])


# ---- what they say of a program ----------------------------------------------------------------------------------


def labelled(model: Model, target: Target, data: Any) -> Model:
    """The model with names for the axes of its variables, and labels along them; the author's own count first.

    An axis in a plate has the plate's name, or that of the dim of an xarray datum observed there. Raises ValueError where the
    author's do not fit.
    """
    given = {k: axes for k, v in data.items() if (axes := axes_of(k, plain(v)))} if isinstance(data, Mapping) else {}
    shapes = {site.name: site.shape for site in target.sites}
    _check(model, shapes)
    plates = dict(target.axes)
    if not given and not any(any(names) for names in plates.values()):
        return model
    found, coords = _plates(target, plates, shapes, given)
    dims = {k: [found.get(p, p) if p else None for p in names] for k, names in plates.items()}
    for site in target.sites:
        if (axes := given.get(site.source, ())) and len(axes) == len(site.shape):
            dims[site.name] = [a or b.name for a, b in zip(_filled(dims, site.name, site.shape), axes, strict=True)]
    _rows(target, dims, given)
    _columns(target, dims, shapes, given)
    for keyword, axes in given.items():
        dims.setdefault(keyword, [found.get(axis.name, axis.name) if axis.name else None for axis in axes])
    for axis in (axis for axes in given.values() for axis in axes):
        if axis.name and axis.labels is not None:
            coords.setdefault(axis.name, axis.labels)
    named = {k: [v or f"{k}_dim_{i}" for i, v in enumerate(names)] for k, names in dims.items() if any(names)}
    return dataclasses.replace(model, dims={**named, **model.dims}, coords={**coords, **model.coords})


def of_words(target: Target, levels: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Labels of columns of words, by the name of an axis: the column's own, and its plural's where a plate of as many has that."""
    shapes, found = {site.name: site.shape for site in target.sites}, dict(levels)
    plates = {p: n for k, names in dict(target.axes).items() for p, n in zip(names, shapes[k], strict=True) if p}
    for name, words in levels.items():
        for plural in (f"{name}s", f"{name}es", f"{name[:-1]}ies"):
            if plates.get(plural) == len(words):
                found.setdefault(plural, words)
    return found


def _filled(dims: Mapping[str, Sequence[str | None]], name: str, shape: Shape) -> Sequence[str | None]:
    return dims.get(name) or [None] * len(shape)


def _plates(
    target: Target, plates: Mapping[str, Sequence[str | None]], shapes: Mapping[str, Shape], given: Mapping[str, tuple[Axis, ...]]
) -> tuple[dict[str, str], dict[str, Any]]:  # fmt: skip
    """New names of plates, of the dims of data that are observed there, and labels along them."""
    sizes = {p: n for k, names in plates.items() for p, n in zip(names, shapes[k], strict=True) if p}
    seen: dict[str, list[Axis]] = {p: [] for p in sizes}
    for site in target.sites:
        axes = given.get(site.source, ())
        if len(axes) == len(site.shape):
            for plate, axis in zip(_filled(plates, site.name, site.shape), axes, strict=True):
                if plate:
                    seen[plate].append(axis)
    alone, rows = Counter(sizes.values()), [axes[0] for axes in given.values()]
    lengths = {k: axes[0].size for k, axes in given.items() if axes[0].labels is not None}
    for plate, size in sizes.items():  # of rows of inputs, where the sizes leave no doubt
        if not seen[plate] and alone[size] == 1:
            seen[plate] = [a for a, k in zip(rows, given, strict=True) if lengths.get(k) == size]
    names, coords = {}, {}
    for plate, axes in seen.items():
        if len(words := {a.name for a in axes if a.own}) == 1:
            names[plate] = words.pop()
        kept = [a.labels for a in axes if a.labels is not None]
        if kept and all(np.array_equal(kept[0], other) for other in kept[1:]):
            coords[names.get(plate, plate)] = kept[0]
    return names, coords


def _unnamed(target: Target, dims: Mapping[str, Sequence[str | None]]) -> list[tuple[str, int, int]]:
    """Name of the site, number and size of every axis of an unknown or deterministic site that has no name yet."""
    return [
        (site.name, i, size)
        for site in target.sites
        if site.kind in ("latent", "deterministic")
        for i, (size, dim) in enumerate(zip(site.shape, _filled(dims, site.name, site.shape), strict=True))
        if not dim
    ]


def _named(dims: dict[str, list[str | None]], name: str, i: int, shape: Shape, dim: str | None) -> None:
    dims[name] = list(_filled(dims, name, shape))
    dims[name][i] = dim


def _rows(target: Target, dims: dict[str, list[str | None]], given: Mapping[str, tuple[Axis, ...]]) -> None:
    """Give axes outside of plates the name of the rows of xarray data, where nothing else that has a name is as long."""
    shapes = {site.name: site.shape for site in target.sites}
    known = {(p, n) for k, names in dims.items() if k in shapes for p, n in zip(names, shapes[k], strict=True) if p}
    known |= {(axis.name, axis.size) for axes in given.values() for axis in axes if axis.name}
    lengths = Counter(size for _, size in known)
    unnamed = _unnamed(target, dims)
    within = Counter((name, size) for name, _, size in unnamed)
    for rows in {axes[0].name: axes[0] for axes in given.values() if axes[0].own}.values():
        for name, i, size in unnamed:
            if size == rows.size and lengths[size] == within[name, size] == 1:
                _named(dims, name, i, shapes[name], rows.name)


def _columns(
    target: Target, dims: dict[str, list[str | None]], shapes: Mapping[str, Shape], given: Mapping[str, tuple[Axis, ...]]
) -> None:  # fmt: skip
    """Name the one axis of an unknown that is as long as the columns of one datum, and as nothing else."""
    columns = {a.name: a for axes in given.values() for a in axes[1:] if a.name and a.labels is not None}
    lengths = Counter(axis.size for axis in columns.values())
    latent = target.named("latent")
    unnamed = [axis for axis in _unnamed(target, dims) if axis[0] in latent]
    taken = Counter(size for *_, size in unnamed)
    taken += Counter(n for k, names in dims.items() if k in shapes for n, p in zip(shapes[k], names, strict=True) if p)
    for axis in columns.values():
        for name, i, size in unnamed:
            if size == axis.size and lengths[size] == taken[size] == 1:
                _named(dims, name, i, shapes[name], axis.name)


def _check(model: Model, shapes: Mapping[str, Shape]) -> None:
    """Raise ValueError for dims or coords of the author's that a variable cannot have."""
    for name, dims in model.dims.items():
        shape = shapes.get(name, ())
        if name in shapes and len(dims) > len(shape):
            raise ValueError(f"dims names {len(dims)} axes of {name!r}, {', '.join(dims)}; its shape is {shape}.")
        for dim, size in zip(dims, shape, strict=False):
            if dim in model.coords and len(model.coords[dim]) != size:
                raise ValueError(f"coords has {len(model.coords[dim])} labels of {dim!r}; {name!r} has {size} there.")


# ---- in a data set -----------------------------------------------------------------------------------------------


def of(model: Model, shapes: Mapping[str, Shape]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The dims of variables of one data set, (without chain and draw), and labels along them.

    A name that stands for another size in this data set, or that is taken, gives way to the default `name_dim_0`.
    """
    sizes: dict[str, int] = {}
    dims = {name: _fitting(name, shape, model.dims.get(name, ()), sizes, shapes) for name, shape in shapes.items()}
    coords = {k: v for k, v in model.coords.items() if sizes.get(k) == len(v)}
    return dims, coords


def _fitting(name: str, shape: Shape, given: Sequence[str], sizes: dict[str, int], taken: Iterable[str]) -> list[str]:
    found: list[str] = []
    for i, size in enumerate(shape):
        dim = given[i] if i < len(given) else None
        if not dim or dim in found or dim in taken or dim in OURS or sizes.setdefault(dim, size) != size:
            dim = f"{name}_dim_{i}"
        found.append(dim)
    return found


def aligned(shape: Shape, frames: Iterable[tuple[str, int, int]], event: int | None) -> tuple[str | None, ...]:
    """The plate of every axis of a value.

    frames: name, dim (from the right, of the batch) and size of its plates; event: how many axes are one event of its
    distribution, None where that is not known, as of a deterministic site: then only what can be meant in one way counts.
    """
    frames = list(frames)
    ways = {_placed(shape, frames, e) for e in (range(len(shape)) if event is None else (event,))} - {None}
    way = ways.pop() if len(ways) == 1 else None
    return (None,) * len(shape) if way is None else way


def _placed(shape: Shape, frames: Sequence[tuple[str, int, int]], event: int) -> tuple[str | None, ...] | None:
    """The plates of the axes with so many axes of an event; None where a plate's size is not there."""
    names: list[str | None] = [None] * len(shape)
    for name, dim, size in frames:
        axis = len(shape) - event + dim
        if axis < 0 or shape[axis] != size:
            return None
        names[axis] = name
    return tuple(names) if frames else None


# ---- written down ------------------------------------------------------------------------------------------------


def to_json(coords: Mapping[str, Any]) -> dict[str, Any]:
    """Labels as JSON has them; times by their type."""
    arrays = {k: np.asarray(v) for k, v in coords.items()}
    return {
        k: {str(v.dtype): v.astype(str).tolist()} if v.dtype.kind in "mM" else v.tolist() for k, v in arrays.items()
    }


def from_json(coords: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_json`."""
    back = lambda v: np.array(*reversed(next(iter(v.items())))) if isinstance(v, dict) else v  # noqa: E731
    return {k: back(v) for k, v in coords.items()}
