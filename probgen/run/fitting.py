"""`pg.fit`: what is asked for, checked; then run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probgen import catalog, watch
from probgen.algorithm import Incompatible, Inference, fitting
from probgen.data import missing, whole_numbers
from probgen.data.missing import NotFinite
from probgen.fits.fit import Fit
from probgen.fits.learned import LearnedFit
from probgen.loggers.telling import Telling, written
from probgen.loggers.telling import asked as asked_for
from probgen.model import Model
from probgen.processes import joining, torchrun
from probgen.programs.completable import Completable
from probgen.run import pairs, starts, suggestions
from probgen.run.conditioning import Program, apart, conditioned, declared, given_to, model_of, read_for
from probgen.run.meaning import WHOLE, WHOLE_DATA, default_precision, held_precision, meant, precision_on
from probgen.run.record import arrays_of, begun_at, record_of
from probgen.run.resuming import load
from probgen.run.runner import RUNNER, Run, check_together, drive
from probgen.run.store import Store
from probgen.target import Generative, Target, Variable


@watch.interruptible()
def fit(
    program: Program,
    data: Mapping[str, Any] | np.ndarray | str | tuple[Any, ...] | None = None,
    inference: str | Inference = suggestions.AUTO,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    precision: str | None = None,
    engine: str | None = None,
    guide: Callable[..., Any] | str | None = None,
    by_row: bool | None = None,
    init: Mapping[str, Any] | Fit | str | Path | None = None,
    loggers: Any = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **settings: Any,
) -> Fit:
    """Fit a program to data by any algorithm that its structure allows.

    program: a plain NumPyro or Pyro program, a Model, a name in the catalogue, or what a learned fit's `condition` gives.
    data: mapping from the program's parameters to what it takes: arrays of any library, containers of arrays, settings, words,
        tables, functions; for a model that learns from rows also an array (row, ...) or the name of a data set (`probgen.data`), or
        a tuple of them for one that learns from several; by default the model's own data.
    args, kwargs: the same as the program would be called with.
    inference: a name (`probgen list`) or a settings object (`pg.inference.NUTS(num_chains=8)`); `settings` change it. By default
        "nuts", or what serves best a program that it does not take: "gibbs", "mle", "svi", ...; "svi" where a guide is given.
    seed: the run is a function of program, data, settings and seed.
    out: a directory to write draws and state to, chunk by chunk, so that `pg.resume(out)` can go on after a crash.
    overwrite: replace a run that is there already.
    progress: a bar on stderr; by default where that is a terminal or a notebook.
    precision: "float64" or "float32"; by default the algorithm's own, else "float64" on a CPU and "float32" on an accelerator;
        never "float32" where that would round away what rows of data say.
    engine: "numpyro" or "pyro", where the program leaves it in doubt.
    guide: for "svi", the author's own program that draws the unknowns, or an automatic guide of the library, a class or an object;
        or the name of a family of ours, a setting of "svi". With one of the author's `learning_rate` holds from the first step on.
    by_row: whether a NumPyro program says one row of its data, whose parameters are learned from all rows. By default it means what
        NumPyro makes of it on the whole data, but for models of the collection that say rows and programs that do not run whole.
    init: where it begins. Of a sampler: values by site, {"theta": 10.0}, of the site's shape or one for each chain; or a fit, or
        its directory, whose draws chains go on from. Of a learner from rows: a learned fit, whose parameters count by name.
    loggers: "tensorboard", "mlflow", an object of `pg.loggers` or one of your own, or a list of them: they are told the loss as it
        goes and the verdict at the end, for which the fit is judged. One that fails is left out, and the fit's notes say so.
    coordinator, num_processes, process_id: as in jax.distributed.initialize. Each process makes the same call, with a number of its
        own, and runs its share of a sampler's chains, or takes its share of the rows of a learner's batches; all return all draws
        or parameters, and the first writes the run, as one process would. Processes that torchrun started do the same with Pyro
        programs, without these words.

    Ctrl-C returns the Fit of what is there. Raises TypeError or ValueError for bad input before anything is compiled,
    Incompatible where the program cannot carry the algorithm, FileExistsError for a directory that holds a run.
    """
    seed = whole_numbers.seed(seed)
    with joining.joined(coordinator, num_processes, process_id) as team:
        telling = Telling(asked_for(loggers, out) if team is None or team.first else [])
        if auto := inference == suggestions.AUTO:
            said = {
                "args": args,
                "kwargs": kwargs,
                "engine": engine,
                "guide": guide,
                "by_row": by_row,
                "precision": precision,
            }
            inference = default_algorithm(program, data, **said)
        where = out if team is None or team.first else None
        algorithm, store, precision, model, target = asked(
            program, data, inference, args=args, kwargs=kwargs, out=where, overwrite=overwrite, precision=precision, engine=engine,
            guide=guide, by_row=by_row, **settings,
        )  # fmt: skip
        if auto and inference not in ("nuts", "svi"):
            target.notes = (
                *target.notes,
                f"No inference was named: {algorithm.name} is the one that serves this program best.",
            )
        init = load(init) if isinstance(init, str | Path) else init
        target, begin_at = begun(init, target, algorithm, seed)
        run = Run(model, target, algorithm, seed, precision, store)
        run.begin_at, run.telling, run.team = begin_at, telling, team
        record = record_of(program, model, algorithm, target, seed, precision) if store or team else {}
        if record and begin_at:
            record["init"] = starts.digest(init, algorithm)
        check_together(run, record)

        def begin() -> None:
            if store:
                told = {"loggers": written(telling.loggers)} if telling.loggers else {}
                store.create(record | told, arrays_of(target), overwrite)
                if begin_at:
                    store.put("begin", begin_at)

        with store.writing() if store else contextlib.nullcontext():
            return drive(run, progress, begin)


def default_algorithm(program: Any, data: Any, **said: Any) -> str:
    """The algorithm of a fit that names none: the model's own, "svi" for an author's guide, "nuts", else the best that can.

    said: how the program is to be read, as `pg.fit` has it. Raises what "nuts" says where nothing takes the program.
    """
    if callable(said.get("guide")):
        return "svi"
    if not isinstance(program, Target) and (own := model_of(program).inference):
        return own
    if isinstance(program, Completable) and (found := suggestions.best(_plain(program, data, **said), most=1)):
        return found[0]
    try:
        asked(program, data, "nuts", suggested=1, **said)
    except NotFinite:
        raise
    except (
        Incompatible,
        ValueError,
    ) as error:  # a ValueError where finite unknowns cannot be summed out, or of bad data
        instead = getattr(error, "instead", ())
        with contextlib.suppress(Exception):
            instead = instead or suggestions.best(_plain(program, data, **said), most=1)
        if instead:
            return instead[0]
        raise
    return "nuts"


def _plain(
    program: Any, data: Any, *, args: Any = (), kwargs: Any = None, engine: Any = None, by_row: Any = None, precision: Any = None,
    guide: Any = None,
) -> Target:  # fmt: skip
    program, data = apart(declared(program, None, by_row), data, args, kwargs)
    return conditioned(program, data, engine, precision or "float64")[1]


def asked(
    program: Program,
    data: Any,
    inference: str | Inference,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    precision: str | None = None,
    engine: str | None = None,
    guide: Callable[..., Any] | str | None = None,
    by_row: bool | None = None,
    suggested: int = suggestions.FEW,
    **settings: Any,
) -> tuple[Inference, Store | None, str, Model, Target]:
    """What `fit` is asked for, checked, before anything runs: algorithm, directory, precision, model and target; see there.

    suggested: how many algorithms are tried for an error to name.
    """
    if isinstance(guide, str):  # a family of ours, by its name: a setting of "svi"
        settings, guide = {**settings, "guide": guide}, None
    program, data = apart(declared(program, guide, by_row), data, args, kwargs)
    if not isinstance(program, Target) and (pair := model_of(program)).guide is not None:
        inference, settings = pairs.as_word(inference, settings)
        if inference == "svi":
            found = pairs.read_together(pair, given_to(pair, data), engine)
            program = program if found is pair else found
    preset: dict[str, Any] = {}
    if isinstance(inference, str):
        inference, preset = meant(word := inference, program, data, engine)
        if guide is not None and (word, inference) == ("svi", "amortised_svi"):
            preset = {"decay": "constant", **preset}  # what the libraries' own loops do
        preset = {k: v for k, v in preset.items() if k not in settings}
        settings = preset | settings
    try:
        algorithm = catalog.inference(inference, settings)
    except TypeError as error:
        if inference in WHOLE and "batch_size" in settings:
            conditioned(program, data, engine, precision or "float64")  # a program that does not run says that first
            raise TypeError(f"{error}\n{WHOLE_DATA}") from None
        raise
    store = Store(out) if out is not None else None
    if store:
        store.check_free(overwrite)
    own = precision is None
    precision = precision or held_precision(algorithm.precision, program, data) or default_precision(program)
    read = read_for(algorithm, program)
    model, target = conditioned(read, data, engine, precision)
    better = (
        (precision_on(algorithm, target) or default_precision(program)) if own and algorithm.precision else precision
    )
    if precision == "float32" and better == "float64":
        precision, (model, target) = better, conditioned(read, data, engine, better)
    taken: str = getattr(target, "precision", precision)
    if taken != precision:
        if not own:
            raise ValueError(f"The program does not run in {precision}; leave precision out.\n{target.notes[-1]}")
        precision = taken
    hiding: Sequence[Variable] = getattr(target, "hidden", ())
    if read is not program and target.engine == "numpyro" and hiding:
        hidden = ", ".join(repr(v.name) for v in hiding)
        target.notes = (
            *target.notes,
            f"The program is read as one of a single row, with {hidden} of its own: see by_row.",
        )
    algorithm = _cut(algorithm, target) if "batch_size" in preset else algorithm
    target = fitting(algorithm, target, lambda: suggestions.best(target, algorithm, suggested))
    missing.check(target)
    return algorithm, store, precision, model, target


def _cut(algorithm: Any, target: Target) -> Any:
    """The algorithm with the model's own batch cut to the rows that are learned from: nobody asked for one."""
    if not isinstance(target, Generative):
        return algorithm
    rows = target.num_rows - (algorithm.held_rows(target.num_rows) if hasattr(algorithm, "held_rows") else 0)
    return dataclasses.replace(algorithm, batch_size=rows) if 0 < rows < algorithm.batch_size else algorithm


def begun(init: Any, target: Target, algorithm: Inference, seed: int) -> tuple[Target, starts.Chains | None]:
    """The target whose parameters begin where init says, or where its chains begin; raises where it says neither."""
    if init is None or not isinstance(target, Generative):
        return target, None if init is None else starts.given(init, target, algorithm, seed)
    if isinstance(init, starts.Learned):
        return begun_at(target, init), None
    if not isinstance(init, LearnedFit):
        raise TypeError(f"init is {init}; expected a fit that learned parameters from rows.")
    target = begun_at(target, init.answer)
    algorithm.check_begun(target, init)
    return target, None


def _by_itself(*args: Any, **keywords: Any) -> Fit:
    """A fit that a fit asks for, of this process alone."""
    with torchrun.apart():
        return fit(*args, **keywords)


RUNNER.fit = _by_itself
