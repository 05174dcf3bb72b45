"""The Pyro engine: `prepare` makes the target of a program on data, `Executor` runs kernels on it.

    programs/   structure, log density, what is done to programs   graph, capture   the compiled gradient
    targets, continuous   the targets                              executor   random keys, array words, the loop
    learnable, row_data   parameters, and rows                     bounded   their hidden sites and guides

JAX is never imported. Globals (parameter store, default dtype, random state, validation, threads) stay as the caller
left them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from probgen.engine.pyro import bounded
from probgen.engine.pyro.bounded import fits_rows
from probgen.engine.pyro.codes import as_numbers
from probgen.engine.pyro.continuous import target_type
from probgen.engine.pyro.executor import OPS, Executor, Ops
from probgen.engine.pyro.games import forward as running
from probgen.engine.pyro.graph import Watch
from probgen.engine.pyro.learnable import PyroLearnable
from probgen.engine.pyro.noise import asked as denoising
from probgen.engine.pyro.noise import completing
from probgen.engine.pyro.noise.diffused import diffused
from probgen.engine.pyro.paired import PyroGuided
from probgen.engine.pyro.probe import probe
from probgen.engine.pyro.programs import data as pyro_data
from probgen.engine.pyro.programs import given as pyro_given
from probgen.engine.pyro.programs import types as pyro_types
from probgen.engine.pyro.programs.density import Structure, Tensors, scoped
from probgen.engine.pyro.programs.examine import examine
from probgen.engine.pyro.programs.looks import MixesRows
from probgen.engine.pyro.programs.parameters import Learned
from probgen.engine.pyro.programs.sites import FLAT
from probgen.engine.pyro.programs.whole import whole
from probgen.engine.pyro.row_data import has_parameters, rows_of, with_parameters
from probgen.engine.pyro.rows import are_bits
from probgen.engine.pyro.targets import as_tensor, is_array, plain
from probgen.programs.pinned import innermost_pin, pinned
from probgen.target import Mixed, Target

name = "pyro"

__all__ = [
    "OPS",
    "Executor",
    "Ops",
    "as_numbers",
    "denoising",
    "forward",
    "guided",
    "has_parameters",
    "judged",
    "name",
    "noise",
    "pack",
    "prepare",
    "probe",
    "returned",
    "scoped",
    "with_parameters",
]

NO_ROWS = (
    "{0!r} is observed at Delta(...), which has no density: the program is learned from draws of rows, and it is none of rows.\n"
    "The first axis of every site is to count rows: write them in a plate, pyro.plate('row', len(x))."
)
NO_GUIDE = (
    "{0!r} is a chain that goes back from noise, and the guide that makes the noise is missing.\n"
    "Give pg.Model(program, guide=guide), in which pyro.sample({0!r}, Noised(x, schedule, times))."
)
_CACHE_SIZE = 32
FAULTS = (TypeError, ValueError, RuntimeError, IndexError, AttributeError)

_structures: OrderedDict[Any, Structure] = OrderedDict()
_wholes: OrderedDict[Any, Callable[..., Any]] = OrderedDict()  # programs that are read on their whole data
_without_rows: OrderedDict[Any, bool] = (
    OrderedDict()
)  # programs found to be none of rows, where nobody said how to read them


def prepare(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str = "float64", by_row: bool | None = None
) -> Target:
    """The target of a Pyro program on data, given to it as keywords.

    data: arrays become tensors (floats in `precision`, integers in int64, booleans as they are); all else passes
        unchanged.
    by_row: False where the first axis of its sites counts no rows to learn parameters from, whatever their shapes.
    Returns a Learnable target where the program has parameters, and data that are rows. Else a Continuous target, a
        SubsampledContinuous one where plates draw minibatches, Mixed where finite unknowns stand beside continuous ones,
        Discrete where all unknowns are finite, Simulable where there are none.
    Raises ValueError where an unknown has neither a bijection nor a finite support.
    A second call with data of the same shapes neither traces nor compiles, unless the program reads the data's values.
    """
    return pyro_types.in_one_type(lambda p, kind: _prepared(p, data, kind, by_row), pinned(program), precision)


def _prepared(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str, by_row: bool | None = None
) -> Target:
    """The target of a program whose tensors have the types that it needs."""
    if completing.is_point(data):
        return completing.point(program, data, precision)
    arrays = tuple(sorted(name for name, value in data.items() if is_array(value)))
    tensors = tuple(as_tensor(data[name], precision) for name in arrays)
    static = {name: plain(value) for name, value in data.items() if name not in arrays}
    key = _key(program, arrays, static, tensors, precision)
    seen = key and (key, tuple(map(are_bits, tensors)))  # what may say whether these are rows
    asked = by_row is not False and not isinstance(program, Learned)
    mixed: Exception | None = None
    if asked and seen not in _without_rows:
        try:
            if rows := rows_of(program, data, precision):
                return rows
        except MixesRows as error:
            if by_row:
                raise
            mixed = error  # whole, they are what they are, where nothing is hidden
    with pyro_data.in_words(data):
        program = _whole(key, program, {**static, **dict(zip(arrays, tensors, strict=True))}, precision)
        key = key and (program, *key[1:])
        structure = _structure(key, program, arrays, static, tensors, precision)
    if mixed and any(site.kind == "latent" and site.distribution != FLAT for site in structure.sites):
        raise mixed
    pyro_data.check(structure, tensors)
    if seen and asked:  # not where wrong data hid the rows
        _remember(seen, True, _without_rows)
    kinds = {(site.kind, site.distribution): site.name for site in structure.sites}
    if ("observed", "Delta") in kinds and ("latent", FLAT) in kinds and not isinstance(program, Learned):
        raise mixed or ValueError(NO_ROWS.format(kinds["observed", "Delta"]))
    target: Any = target_type(structure)(structure, tensors, dict(data))
    target.notes = (*target.notes, *pyro_given.held_noise(structure, tensors))
    return target


def pair_by_row(program: Callable[..., Any], guide: Callable[..., Any], data: Mapping[str, Any]) -> bool | None:
    """False where the program is one of batches of rows, and the guide is not but runs on the whole data; else None."""
    try:
        rows = pyro_types.in_one_type(lambda p, kind: rows_of(p, data, kind), pinned(program), "float32")
        if not isinstance(rows, PyroLearnable) or fits_rows(rows, guide):
            return None
    except MixesRows:  # as batches of rows; whole, they are what they are
        pass
    except FAULTS:  # what is wrong is told when it is made
        return None
    try:
        target: Any = prepare(program, data, "float32", False)
        target.author_guide = guide
        target = target.marginalise() if isinstance(target, Mixed) else target
        target.author_guide = guide
        target.paired()
    except FAULTS:
        return None
    return False


def paired(target: Any) -> Any:
    """The target with the author's guide of its unknowns; see `paired`."""
    return PyroGuided(target, target.author_guide)


def guided(target: Any, program: Callable[..., Any] | None, critic: Any = None) -> Any:
    """The target with a guide; see `bounded.guided`; with a denoiser, where the program has one."""
    if program is None and (
        chains := [s.name for s in target.sites if s.kind == "latent" and s.distribution == "Backward"]
    ):
        raise ValueError(NO_GUIDE.format(chains[0]))
    return diffused(bounded.guided(target, program, critic))


forward, noise, judged, pack = running.forward, running.noise, running.judged, running.pack
returned = running.returned


def _whole(key: Any, program: Callable[..., Any], data: Mapping[str, Any], precision: str) -> Callable[..., Any]:
    """The program with parameters as sites, the same object for the same program and shapes."""
    if key is None or key not in _wholes:
        found = whole(program, data, precision)
        if key is None:
            return found
        _remember(key, found, _wholes)
    return _wholes[key]


def _key(
    program: Callable[..., Any], arrays: tuple[str, ...], static: dict[str, Any], tensors: Tensors, precision: str
) -> Any:
    """What a structure is kept under; None where a setting has no hash."""
    shapes = tuple((name, tuple(t.shape), t.dtype, t.device) for name, t in zip(arrays, tensors, strict=True))
    settings = tuple((name, type(value), value, repr(value)) for name, value in sorted(static.items()))
    key = (program, shapes, settings, precision)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _structure(
    key: Any,
    program: Callable[..., Any],
    arrays: tuple[str, ...],
    static: dict[str, Any],
    tensors: Tensors,
    precision: str,
) -> Structure:
    """The program's structure, from the cache where the shapes (or, if it reads them, the values) are known."""
    if key is None:
        return _examine(program, arrays, static, tensors, precision)
    known = _structures.get(key)
    values = None
    if known is not None and known.reads_data:
        known = _structures.get(values := (key, _digest(tensors)))
        if known is None:
            warnings.warn(
                "The program reads values of its arrays in Python, as in int(group.max()), so it is compiled again for "
                "each data set. Pass such sizes as Python numbers in data.",
                RuntimeWarning,
                stacklevel=3,
            )
    structure = known or _examine(program, arrays, static, tensors, precision)
    if structure.reads_data:
        _remember(values or (key, _digest(tensors)), structure)
    _remember(key, structure)
    return structure


def _remember(key: Any, value: Any, cache: OrderedDict[Any, Any] = _structures) -> None:
    """Put a structure last in a cache, and drop the one used longest ago."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > _CACHE_SIZE:
        cache.popitem(last=False)


def _digest(tensors: Tensors) -> bytes:
    """A digest of the values of arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()


def _examine(
    program: Callable[..., Any], arrays: tuple[str, ...], static: dict[str, Any], tensors: Tensors, precision: str
) -> Structure:
    """Trace the program, and watch one run of its density for what a compiled graph could not follow."""
    structure = examine(program, arrays, static, tensors, precision)
    z = torch.full((structure.dim,), 0.1, dtype=getattr(torch, precision), device=structure.device)
    with structure.scope(), torch.no_grad(), Watch(tensors) as watch:
        structure.log_density(z, tensors)
    structure.reads_data, structure.is_random, structure.largest = watch.reads, watch.random, watch.largest
    if (held := innermost_pin(program)) is not None:
        held.settle()
    return structure
