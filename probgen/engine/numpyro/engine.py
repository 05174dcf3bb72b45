"""The NumPyro engine: targets from plain NumPyro programs, and the array words of kernels; `running.executor` runs them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen import runtime
from probgen.data import scales
from probgen.data.checks import by_place
from probgen.engine.combined import sites_of
from probgen.engine.numpyro import batches, codes, one_row, reading, row_data
from probgen.engine.numpyro import probe as probing
from probgen.engine.numpyro.batches import OfBatch
from probgen.engine.numpyro.programs import parameters as registered
from probgen.engine.numpyro.programs.lifted import NARROWED, Modelled, Typed, of_types, reason
from probgen.engine.numpyro.programs.structure import parts
from probgen.engine.numpyro.running.arrays import as_arrays
from probgen.engine.numpyro.running.executor import Executor
from probgen.engine.numpyro.targets import barren, turns
from probgen.engine.numpyro.targets import bounded as amortised
from probgen.engine.numpyro.targets import forward as running
from probgen.engine.numpyro.targets import judged as judging
from probgen.engine.numpyro.targets import paired as pairing
from probgen.engine.numpyro.targets.base import name
from probgen.engine.numpyro.targets.implicit import NumpyroImplicit
from probgen.engine.numpyro.targets.learnable import NumpyroLearnable
from probgen.engine.numpyro.targets.rows import NumpyroRows
from probgen.programs.autoguides import is_auto, own_program, unwrapped
from probgen.programs.pinned import pinned
from probgen.target import Target

__all__ = ["Executor", "guided", "name", "prepare", "with_parameters"]

_LATER = {  # words whose modules load libraries of networks, a fifth of a second that most fits need not wait for
    "bridging": "noise.bridged",
    "denoising": "noise.asked",
    "forward_space": "events.spaces:forward",
    "posterior_space": "events.spaces:posterior",
    "inverted": "events.codes_of_flows:inverted",
}


def __getattr__(word: str) -> Any:
    if word not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {word!r}")
    module, _, function = _LATER[word].partition(":")
    found = importlib.import_module(f"probgen.engine.numpyro.{module}")
    return getattr(found, function) if function else found


def prepare(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str = "float64", by_row: bool | None = None
) -> Target:
    """The target of a program on data; traced once for each program and each set of shapes.

    data: NumPy arrays, which enter compiled code as arguments, and static settings (numbers, strings, None).
    by_row: whether the program says one row of its data; None: as the data show, see `reading`.
    A program that fixes types of 32 bits where double precision is asked for runs in single, and the target's notes say so.
    Raises ValueError where the program has no unknowns, does not run on the data, or has unknowns that no algorithm here
    can treat.
    """
    program = pinned(program, Modelled)
    try:
        return _completable(_prepared(program, data, precision, by_row))
    except Exception as error:
        if precision != "float64" or not of_types(error) or scales.need_double(data):
            raise
        try:
            target = _prepared(program, data, "float32", by_row)
        except Exception:
            raise error from None
        target.notes = (*target.notes, NARROWED.format(reason(error)))
        return target


def _completable(target: Any) -> Target:
    arrays = getattr(target, "arrays", {})
    if not (parts(arrays) or sites_of(arrays)):
        return target
    from probgen.engine.numpyro.noise.completing import completable

    return completable(target)


def _prepared(program: Callable[..., Any], data: Mapping[str, Any], precision: str, by_row: bool | None) -> Target:
    arrays = {k: v for k, v in as_arrays(data, precision).items() if isinstance(v, np.ndarray)}
    static = {k: v for k, v in data.items() if k not in arrays}
    with runtime.jax_scope(precision):
        return reading.read(program, arrays, static, precision, by_row)


def with_parameters(program: Callable[..., Any], data: Mapping[str, Any], parameters: list[str], precision: str) -> Any:
    """The program with its named parameters as data; see `parameters`."""
    return registered.with_parameters(pinned(program, Modelled), data, parameters, precision)


def has_parameters(program: Callable[..., Any], data: Mapping[str, Any]) -> bool:
    """Whether the program registers parameters; see `parameters`."""
    return registered.has_parameters(program, data)


def probe(target: Any) -> dict[str, list[float]]:
    """Numbers that tell this program from another; see `probe`."""
    return probing.probe(target)


def guided(target: Any, guide: Callable[..., Any] | None, critic: Callable[..., Any] | None = None) -> Any:
    """A learnable target with the guide of its hidden sites, and a critic of its points; see `targets.bounded`.

    Another target keeps the guide for algorithms that ask for it.
    """
    if isinstance(target, NumpyroRows):
        target.author_critic = None if critic is None else pinned(critic, Typed)
    if isinstance(target, NumpyroImplicit):
        target.author_guide = None if guide is None else pinned(guide, Typed)
        return target
    if not isinstance(target, NumpyroLearnable):
        whole: Any = target
        own = own_program(whole.structure.program)
        plain = guide is not None and not is_auto(unwrapped(guide)[0])
        target.author_guide = by_place(pinned(guide, Typed), own) if guide is not None and plain else guide
        return target
    from probgen.engine.numpyro.noise.diffused import diffused

    guide, critic = (None if each is None else pinned(each, Typed) for each in (guide, critic))
    guide = guide and by_place(guide, own_program(target.structure.one.program))
    found = diffused(amortised.guided(target, None if guide is None else batches.guide_of(target, guide)))
    if critic is None or not isinstance(found, amortised.NumpyroBounded):
        return found
    both = judging.judged(found, critic)
    both.author_critic = critic
    return both


def as_numbers(target: Any, names: Any) -> list[str]:
    """Which codes of words a program uses as numbers; see `codes`."""
    return codes.as_numbers(target, names)


def pair_by_row(program: Callable[..., Any], guide: Callable[..., Any], data: Mapping[str, Any]) -> bool | int | None:
    """Whether program and guide are read as of one row for that they are of batches of rows; None where nothing says so.

    An integer above 1 is how many rows the program's plate takes a step.
    """
    with contextlib.suppress(TypeError, ValueError, IndexError, RuntimeError, OverflowError):
        target = prepare(program, data, "float32", True)
        base = getattr(target.structure.one.program, "program", None) if isinstance(target, NumpyroLearnable) else None
        if isinstance(base, OfBatch):
            guided(target, guide)
            return base.subsample or True
    return None


# ---- what a target asks its engine: other targets of the same program ----------------------------------------------------


def by_row(target: Any) -> Any:
    """The target of learning what a program says of one row, where all of its sites stand in a plate over rows; else None."""
    with runtime.jax_scope(target.precision):
        program = one_row.one_row(target)
        if program is None:
            return None
        arrays = {k: np.asarray(v) for k, v in target.arrays.items()}
        return row_data.rows_of(program, arrays, target.structure.static, target.precision)


def paired(target: Any) -> Any:
    """The target with the author's guide of its unknowns; see `paired`."""
    with runtime.jax_scope(target.precision):
        return pairing.paired(target)


in_turns = turns.in_turns
pruned, completed = barren.pruned, barren.completed
forward, noise, judged, pack = running.forward, running.noise, running.judged, running.pack
returned = running.returned
