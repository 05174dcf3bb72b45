"""A program on data: the model and the target that is fitted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from probgen import catalog, engine
from probgen.algorithm import Inference
from probgen.data import dims, looking
from probgen.data.checks import check, on_host
from probgen.data.inputs import DROP
from probgen.engine.prediction import FAULTS
from probgen.model import Model
from probgen.programs import arguments, meanings
from probgen.programs.arguments import Arranged
from probgen.programs.autoguides import is_auto, unwrapped
from probgen.programs.places import place_of
from probgen.target import Generative, Target

Program = str | Model | Target | Callable[..., Any]


def conditioned(
    program: Program,
    data: Mapping[str, Any] | np.ndarray | str | None,
    engine: str | None = None,
    precision: str = "float64",
) -> tuple[Model, Target]:
    """The model and what can be computed from it, given data.

    program: a name in the catalogue, a Model, or a plain program; data: its data, by default the model's own.
    """
    if isinstance(program, Target):  # a learned model's
        model = Model(program.structure.program)
        return model, _prepared_again(model, program, precision)
    program, data = apart(program, data)
    model = model_of(program)
    raw = given_to(model, data)
    target = prepared(model, raw, engine, precision)
    if levels := getattr(target, "levels", None):
        model = dataclasses.replace(model, coords={**dims.of_words(target, levels), **model.coords})
    return dims.labelled(model, target, raw), target


def _prepared_again(model: Model, target: Target, precision: str) -> Target:
    """The target of a learned model on its own data: no check, as what is known in part has no keyword of the program."""
    chosen = engine.load(target.engine)
    found = chosen.guided(chosen.prepare(model.program, on_host(target.data), precision, None), None, None)
    if why := getattr(target, "no_score", ""):  # of a fit whose denoiser is none
        found.no_score = why
    if calibration := getattr(target, "calibration", None):
        found.calibration = calibration
    return found


def apart(
    program: Program, data: Any = None, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> tuple[Program, Any]:
    """A program whose data are named leaves, and these; both as they are where they are that already. See `arguments`."""
    _check_no_algorithm(data)
    if isinstance(program, Target):
        if args or kwargs:
            raise TypeError("args and kwargs are for programs; this is a learned model with data.")
        if data is not None:
            raise TypeError("data is for programs; this is a learned model with data: say them in fit.condition.")
        return program, data
    model = model_of(program)
    if isinstance(model.program, Arranged):
        return program, data
    if args or kwargs is not None:
        twice = {} if data is None else data
        if not isinstance(twice, Mapping):
            raise TypeError("Pass data, or args and kwargs, not both.")
        if both := sorted({*twice} & {*(kwargs or {})}):
            raise TypeError(f"{both[0]!r} is in data and in kwargs.")
        given = model.whole({**twice, **(kwargs or {})})
    else:
        given = given_to(model, data)
    if not isinstance(given, Mapping):
        return program, data
    found, leaves = arguments.taken_apart(model.program, args, given)
    return (arranged_as(model, found) if isinstance(found, Arranged) else program), leaves


def _check_no_algorithm(data: Any) -> None:
    """Raise TypeError for the name of an algorithm where data stand, as in pg.fit(program, "nuts")."""
    if isinstance(data, str) and data in catalog.modules("probgen.inference"):
        raise TypeError(f"data is {data!r}, the name of an algorithm: write inference={data!r}.")


def model_of(program: Program) -> Model:
    """The model of a name, the model itself, or one of a plain program."""
    if isinstance(program, str):
        return catalog.model(program)
    if isinstance(program, Model):
        return program
    if callable(program):
        return Model(arguments.decorated(program))
    raise TypeError(f"Got a {type(program).__name__}; expected a program, a Model or a name in the catalogue.")


def arranged_as(model: Model, program: Arranged) -> Model:
    """The model of its program arranged, guide and critic called in the same way; what it derives is among the leaves."""
    guide, critic = (arguments.alike(each, program) for each in (model.guide, model.critic))
    return dataclasses.replace(model, program=program, guide=guide, critic=critic, derived=None)


def declared(program: Program, guide: Callable[..., Any] | None, by_row: bool | None) -> Program:
    """The program with a guide, or with how it is to be read."""
    if by_row is None and guide is not None and is_auto(unwrapped(guide)[0]):
        by_row = False  # it draws all unknowns of the program, on its whole data
    said = {k: v for k, v in {"guide": guide, "by_row": by_row}.items() if v is not None}
    if not said:
        return program
    if isinstance(program, Target):
        raise TypeError(f"{next(iter(said))} is for programs; this is a learned model with data.")
    return dataclasses.replace(model_of(program), **said)


def read_for(algorithm: Inference, program: Program) -> Program:
    """The program as an algorithm that learns from rows alone reads it, where nothing is declared."""
    if isinstance(program, Target) or not issubclass(algorithm.needs, Generative) or algorithm.flat_prior:
        return program
    model = model_of(program)
    return program if model.reads_rows is not None else dataclasses.replace(model, by_row=True)


def given(program: Program, data: Any, **settings: Any) -> Any:
    """The data that a program is run on: what is given, or the model's own; see `fit`. settings: see `Model.cuts`."""
    return given_to(model_of(program), data, **settings)


def given_to(model: Model, data: Any, **settings: Any) -> Any:
    """The program's data: a mapping; what the model makes of rows, of a data set's name, of a tuple of them, or of nothing.

    With them what it derives. settings: those by which the model makes rows of what it is given.
    """
    if isinstance(data, str | tuple):
        data = model.named_data(*([data] if isinstance(data, str) else data), **settings)
    elif hasattr(data, "__array__"):
        data = model.given_rows(data, **settings)
    return model.whole(model.default_data() if data is None else data)


WHOLE = "can't be cast to the desired output type Long"
AS_FLOATS = "Torch's Bernoulli takes bits as floats: `obs=y.double()` in the program, or floats as data."
TOTALS = "inhomogeneous total_count"
ONE_TOTAL = (
    "Pyro's Multinomial takes one total, an int: `int(n)`. Where totals differ, say counts one after the other, each\n"
    "`Binomial(n - before, p[j] / p[j:].sum())`, before: the sum of the counts before it."
)


def _said(error: BaseException) -> str:
    """What an error says; with its kind where that says nothing by itself, as a failed assertion, or a key alone."""
    plain = isinstance(error, TypeError | ValueError | RuntimeError) and str(error)
    said = str(error) if plain else f"{type(error).__name__}: {error}"
    if TOTALS in said:
        return ONE_TOTAL
    return f"{said}\n{AS_FLOATS}" if WHOLE in said else said


def _other_engine(program: Callable[..., Any], asked: str | None) -> str:
    """The engine that a program is written for, where it is not the one that was asked for, and that is known."""
    with contextlib.suppress(ValueError):
        if asked and (own := engine.detect(program)) != asked:
            return own
    return ""


def prepared(model: Model, data: Mapping[str, Any], engine_name: str | None, precision: str) -> Target:
    """The engine's target of a model's program, its guide and its critic, on checked data."""
    chosen = engine.load(engine_name or engine.detect(model.program))
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision is {precision!r}; known: float32, float64")
    checked = check(model.program, looking.kept(data) if isinstance(data, Mapping) else data, precision)

    def prepare(data: Mapping[str, Any], whole: bool = False) -> Any:
        target = chosen.prepare(model.program, data, precision, False if whole else model.reads_rows)
        return chosen.guided(target, model.guide, model.critic)

    try:
        target, used, levels = looking.settled(model.program, data, checked, precision, prepare, chosen.probe)
    except FAULTS as error:
        if other := _other_engine(model.program, engine_name):
            raise ValueError(
                f"{model.program.__name__} is written for {other}, and engine is {engine_name!r}: leave it out."
            ) from error
        told = looking.unreadable(data, str(error))
        if (not told or "NaN" in told) and (looks := looking.why(error)):  # NaN that it handles
            raise ValueError(looks) from error
        if told:
            own = f"\nThe program says: {_said(error).splitlines()[0]}{place}" if (place := place_of(error)) else ""
            raise ValueError(told + (f"\n{DROP}" if "NaN" in told else own)) from error
        shapes = ", ".join(f"{k}: {v.shape}" for k, v in checked.items() if isinstance(v, np.ndarray)) or "no arrays"
        raise ValueError(f"The program does not run on this data ({shapes}).\n{_said(error)}") from error
    if levels and chosen.as_numbers(target, tuple(levels)):
        raise ValueError(looking.unreadable(data))
    meanings.check_chance(model.program, target, chosen.probe)
    meanings.check_ends(target, used, prepare, chosen.probe)
    target.notes = (*target.notes, *looking.told(used, levels))
    target.levels = levels
    return target
