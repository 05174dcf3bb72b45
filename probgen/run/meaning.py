"""What a word for an algorithm means for a program, and in which precision it runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from probgen import catalog, engine, runtime
from probgen.algorithm import Inference
from probgen.data import scales
from probgen.data.checks import check_names
from probgen.run.conditioning import Program, given, given_to, model_of
from probgen.target import Target


def meant(word: str, program: Program, data: Any = None, engine_name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The algorithm that a word means for a program, and the settings that suit the model.

    "svi" of a program that learns from rows is amortised, with a guide of the author's on the whole data it is guided; "mle" of
    parameters on the whole data is a climb.
    """
    if isinstance(program, Target):
        return word, {}
    model = model_of(program)
    if word in READINGS and isinstance(given := given_to(model, data), Mapping):
        check_names(model.program, given)
        found = "unknowns"
        if engine.has_parameters(model.program, given, engine_name):
            found = engine.read_as(model.program, given, engine_name, model.reads_rows)
        found = "guide" if word == "svi" and found != "rows" and model.guide is not None else found
        word = READINGS[word].get(found, word)
    known = {f.name for f in dataclasses.fields(catalog.algorithm(word))}
    return word, {k: v for k, v in model.settings.items() if k in known}


WHOLE = ("svi", "guided_svi", "maximum_likelihood")


WHOLE_DATA = (
    "The program is read on its whole data, without batches of rows: by_row=True if it says what one row is like."
)


READINGS = {"svi": {"rows": "amortised_svi", "guide": "guided_svi"}, "mle": {"points": "maximum_likelihood"}}


def default_precision(program: Program) -> str:
    """float32 for a JAX program on an accelerator, else float64."""
    if "jax" in sys.modules and runtime.accelerator():
        return "float32"
    return "float64"


def precision_on(algorithm: Inference, target: Target) -> str | None:
    """The algorithm's precision on a target that it may take."""
    fits = isinstance(target, algorithm.needs) and target.engine in algorithm.engines
    return algorithm.precision_on(target) if fits else algorithm.precision


def held_precision(precision: str | None, program: Program, data: Any) -> str | None:
    """An algorithm's precision; double where single would round away what the data say, as of rows around ten million."""
    if precision != "float32" or isinstance(program, Target):
        return precision
    return "float64" if scales.need_double(given(program, data)) else precision
