"""The runner: conditions a program, drives any kernel in chunks, shows progress, checkpoints, resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probgen import (
    arguments,
    catalog,
    dims,
    engine,
    fixed,
    looking,
    missing,
    pairs,
    runtime,
    scales,
    seal,
    starts,
    suggestions,
    watch,
    whole_numbers,
)  # fmt: skip
from probgen.algorithm import Inference, Learner, Sampler, closest, fitting
from probgen.arguments import Arranged
from probgen.autoguides import is_auto, recorded, restored, unwrapped
from probgen.data import check, check_names, on_host
from probgen.inputs import DROP
from probgen.latent import LatentFit
from probgen.model import Model
from probgen.pinned import Pinned, pins
from probgen.prediction import FAULTS
from probgen.result import Fit, LearnedFit
from probgen.store import CorruptRun, Store
from probgen.target import START, Bounded, Learnable, Target

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
        model = Model(program.structure.program)  # type: ignore[attr-defined]
        return model, _prepared_again(model, program, precision)
    program, data = apart(program, data)
    model = _model(program)
    raw = _given(model, data)
    target = prepared(model, raw, engine, precision)
    if levels := getattr(target, "levels", None):
        model = dataclasses.replace(model, coords={**levels, **model.coords})
    return dims.labelled(model, target, raw), target


def _prepared_again(model: Model, target: Target, precision: str) -> Target:
    """The target of a learned model on its own data: no check, as what is known in part has no keyword of the program."""
    chosen = engine.load(target.engine)
    return chosen.guided(chosen.prepare(model.program, on_host(target.data), precision, None), None, None)


def apart(
    program: Program, data: Any = None, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> tuple[Program, Any]:
    """A program whose data are named leaves, and these; both as they are where they are that already. See `arguments`."""
    if isinstance(program, Target):
        if args or kwargs:
            raise TypeError("args and kwargs are for programs; this is a learned model with data.")
        return program, data
    model = _model(program)
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
        given = _given(model, data)
    if not isinstance(given, Mapping):
        return program, data
    found, leaves = arguments.taken_apart(model.program, args, given)
    return (program if found is model.program else _arranged(model, found)), leaves


def _model(program: Program) -> Model:
    """The model of a name, the model itself, or one of a plain program."""
    if isinstance(program, str):
        return catalog.model(program)
    if isinstance(program, Model):
        return program
    if callable(program):
        return Model(arguments.decorated(program))
    raise TypeError(f"Got a {type(program).__name__}; expected a program, a Model or a name in the catalogue.")


def _arranged(model: Model, program: Arranged) -> Model:
    """The model of its program arranged, guide and critic called in the same way; what it derives is among the leaves."""
    guide, critic = (arguments.alike(each, program) for each in (model.guide, model.critic))
    return dataclasses.replace(model, program=program, guide=guide, critic=critic, derived=None)


def _declared(program: Program, guide: Callable[..., Any] | None, by_row: bool | None) -> Program:
    """The program with a guide, or with how it is to be read."""
    if by_row is None and guide is not None and is_auto(unwrapped(guide)[0]):
        by_row = False  # it draws all unknowns of the program, on its whole data
    said = {k: v for k, v in {"guide": guide, "by_row": by_row}.items() if v is not None}
    if not said:
        return program
    if isinstance(program, Target):
        raise TypeError(f"{next(iter(said))} is for programs; this is a learned model with data.")
    return dataclasses.replace(_model(program), **said)


def _read_for(algorithm: Inference, program: Program) -> Program:
    """The program as an algorithm that learns from rows alone reads it, where nothing is declared."""
    if isinstance(program, Target) or not issubclass(algorithm.needs, Learnable) or algorithm.flat_prior:
        return program
    model = _model(program)
    return program if model.reads_rows is not None else dataclasses.replace(model, by_row=True)


def given(program: Program, data: Any) -> Any:
    """The data that a program is run on: what is given, or the model's own; see `fit`."""
    return _given(_model(program), data)


def _given(model: Model, data: Any) -> Any:
    """The program's data: a mapping; what the model makes of a data set's name, of rows, or of nothing; and what it derives."""
    if isinstance(data, str):
        data = model.named_data(data)
    elif hasattr(data, "__array__"):
        data = model.given_rows(data)
    return model.whole(model.default_data() if data is None else data)


def prepared(model: Model, data: Mapping[str, Any], engine_name: str | None, precision: str) -> Target:
    """The engine's target of a model's program, its guide and its critic, on checked data."""
    chosen = engine.load(engine_name or engine.detect(model.program))
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision is {precision!r}; known: float32, float64")
    checked = check(model.program, looking.kept(data) if isinstance(data, Mapping) else data, precision)

    def prepare(data: Mapping[str, Any]) -> Target:
        target = chosen.prepare(model.program, data, precision, model.reads_rows)
        return chosen.guided(target, model.guide, model.critic)

    try:
        target, used, levels = looking.settled(model.program, data, checked, precision, prepare)
    except FAULTS as error:
        if told := looking.unreadable(data):
            raise ValueError(told + (f"\n{DROP}" if "NaN" in told else "")) from error
        shapes = ", ".join(f"{k}: {v.shape}" for k, v in checked.items() if isinstance(v, np.ndarray)) or "no arrays"
        raise ValueError(f"The program does not run on this data ({shapes}).\n{error}") from error
    if levels and chosen.as_numbers(target, tuple(levels)):
        raise ValueError(looking.unreadable(data))
    target.notes = (*target.notes, *looking.told(used, levels))
    target.levels = levels
    return target


@watch.interruptible()
def fit(
    program: Program,
    data: Mapping[str, Any] | np.ndarray | str | None = None,
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
    **settings: Any,
) -> Fit:
    """Fit a program to data by any algorithm that its structure allows.

    program: a plain NumPyro or Pyro program, a Model, a name in the catalogue, or what a learned fit's `condition` gives.
    data: mapping from the program's parameters to what it takes: arrays of any library, containers of arrays, settings, words,
        tables, functions; for a model that learns from rows also an array (row, ...) or the name of a data set (`probgen.data`);
        by default the model's own data.
    args, kwargs: the same as the program would be called with.
    inference: a name (`probgen list`) or a settings object (`pg.inference.NUTS(num_chains=8)`); `settings` change it. By default
        "nuts", or what serves best a program that it does not take: "gibbs", "mle", "svi", ...; "svi" where a guide is given.
    seed: the run is a function of program, data, settings and seed.
    out: a directory to write draws and state to, chunk by chunk, so that `pg.resume(out)` can go on after a crash.
    overwrite: replace a run that is there already.
    progress: a bar on stderr; by default where that is a terminal.
    precision: "float64" or "float32"; by default the algorithm's own, else "float64" on a CPU and "float32" on an accelerator;
        never "float32" where that would round away what rows of data say.
    engine: "numpyro" or "pyro", where the program leaves it in doubt.
    guide: for "svi", the author's own program that draws the unknowns, or an automatic guide of the library, a class or an object;
        or the name of a family of ours, a setting of "svi".
    by_row: whether a NumPyro program says one row of its data, whose parameters are learned from all rows. By default it means what
        NumPyro makes of it on the whole data, but for models of the collection that say rows and programs that do not run whole.
    init: where it begins. Of a sampler: values by site, {"theta": 10.0}, of the site's shape or one for each chain; or a fit, or
        its directory, whose draws chains go on from. Of a learner from rows: a learned fit, whose parameters count by name.

    Ctrl-C returns the Fit of what is there. Raises TypeError or ValueError for bad input before anything is compiled,
    Incompatible where the program cannot carry the algorithm, FileExistsError for a directory that holds a run.
    """
    seed = whole_numbers.seed(seed)
    if auto := inference == suggestions.AUTO:
        said = {
            "args": args,
            "kwargs": kwargs,
            "engine": engine,
            "guide": guide,
            "by_row": by_row,
            "precision": precision,
        }
        inference = suggestions.default(program, data, **said)
    algorithm, store, precision, model, target = asked(
        program, data, inference, args=args, kwargs=kwargs, out=out, overwrite=overwrite, precision=precision, engine=engine,
        guide=guide, by_row=by_row, **settings,
    )  # fmt: skip
    if auto and inference not in ("nuts", "svi"):
        target.notes = (
            *target.notes,
            f"No inference was named: {algorithm.name} is the one that serves this program best.",
        )
    begin_at = None
    if init is not None and isinstance(target, Learnable):
        target = _begun(target, _parameters(init))
    elif init is not None:
        begin_at = starts.given(init, target, algorithm, seed)

    def begin() -> None:
        if store:
            store.create(_record(program, model, algorithm, target, seed, precision), _arrays(target), overwrite)
            if begin_at:
                store.put("begin", begin_at)

    with store.writing() if store else contextlib.nullcontext():
        run = Run(model, target, algorithm, seed, precision, store)
        run.begin_at = begin_at
        return _drive(run, progress, begin)


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
    **settings: Any,
) -> tuple[Inference, Store | None, str, Model, Target]:
    """What `fit` is asked for, checked, before anything runs: algorithm, directory, precision, model and target; see there."""
    if isinstance(guide, str):  # a family of ours, by its name: a setting of "svi"
        settings, guide = {**settings, "guide": guide}, None
    program, data = apart(_declared(program, guide, by_row), data, args, kwargs)
    if not isinstance(program, Target) and (pair := _model(program)).guide is not None:
        inference, settings = pairs.as_word(inference, settings)
        if inference == "svi":
            found = pairs.read_together(pair, _given(pair, data), engine)
            program = program if found is pair else found
    if isinstance(inference, str):
        inference, suggested = meant(inference, program, data, engine)
        settings = suggested | settings
    try:
        algorithm = catalog.inference(inference, settings)
    except TypeError as error:
        if inference in WHOLE and "batch_size" in settings:
            raise TypeError(f"{error}\n{WHOLE_DATA}") from None
        raise
    store = Store(out) if out is not None else None
    if store:
        store.check_free(overwrite)
    own = precision is None
    precision = precision or _held(algorithm.precision, program, data) or default_precision(program)
    read = _read_for(algorithm, program)
    model, target = conditioned(read, data, engine, precision)
    better = (_on(algorithm, target) or default_precision(program)) if own and algorithm.precision else precision
    if precision == "float32" and better == "float64":
        precision, (model, target) = better, conditioned(read, data, engine, better)
    if (taken := getattr(target, "precision", precision)) != precision:
        if not own:
            raise ValueError(f"The program does not run in {precision}; leave precision out.\n{target.notes[-1]}")
        precision = taken
    if read is not program and target.engine == "numpyro" and getattr(target, "hidden", ()):
        hidden = ", ".join(repr(v.name) for v in target.hidden)  # type: ignore[attr-defined]
        target.notes = (
            *target.notes,
            f"The program is read as one of a single row, with {hidden} of its own: see by_row.",
        )
    target = fitting(algorithm, target, lambda: suggestions.best(target, algorithm))
    missing.check(target)
    return algorithm, store, precision, model, target


def _parameters(init: LearnedFit | str | Path) -> Mapping[str, np.ndarray]:
    """Learned parameters, unconstrained."""
    found = init if isinstance(init, Fit) else load(init)
    if not isinstance(found, LearnedFit):
        raise TypeError(f"init is {found}; expected a fit that learned parameters from rows.")
    return found.answer


def _begun(target: Target, answer: Mapping[str, np.ndarray]) -> Target:
    """The target whose parameters begin at learned ones."""
    if not isinstance(target, Learnable):
        raise TypeError("init is for programs with parameters that are learned from rows; this one has none.")
    found = target.begun(answer)
    found.notes = target.notes
    return found


def meant(word: str, program: Program, data: Any = None, engine_name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The algorithm that a word means for a program, and the settings that suit the model.

    "svi" of a program that learns from rows is amortised, with a guide of the author's on the whole data it is guided; "mle" of
    parameters on the whole data is a climb.
    """
    if isinstance(program, Target):
        return word, {}
    model = _model(program)
    if word in READINGS and isinstance(given := _given(model, data), Mapping):
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


def _arrays(target: Target) -> dict[str, np.ndarray]:
    return fixed.written(target.data)[0]


def default_precision(program: Program) -> str:
    """float32 for a JAX program on an accelerator, else float64."""
    if "jax" in sys.modules and runtime.accelerator():
        return "float32"
    return "float64"


def _on(algorithm: Inference, target: Target) -> str | None:
    """The algorithm's precision on a target that it may take."""
    fits = isinstance(target, algorithm.needs) and target.engine in algorithm.engines
    return algorithm.precision_on(target) if fits else algorithm.precision


def _held(precision: str | None, program: Program, data: Any) -> str | None:
    """An algorithm's precision; double where single would round away what the data say, as of rows around ten million."""
    if precision != "float32" or isinstance(program, Target):
        return precision
    return "float64" if scales.need_double(given(program, data)) else precision


@watch.interruptible()
def resume(
    out: str | Path, program: Program | None = None, *, data: Mapping[str, Any] | None = None, progress: bool | None = None
) -> Fit:  # fmt: skip
    """Go on with a run after a crash or Ctrl-C: the result is bit for bit that of an uninterrupted run.

    program: only for a program that cannot be imported again, such as one typed into a notebook.
    data: only for data that cannot be kept on disk, such as functions made in a notebook.
    Raises FileNotFoundError without a run there, CorruptRun where a file cannot be read (the draws are kept).
    """
    store = Store(out)
    store.record()  # there is one
    with store.writing():
        return _drive(_where_it_was(store, program, data), progress)


def _where_it_was(store: Store, program: Program | None, data: Mapping[str, Any] | None) -> Run:
    """A run as its last checkpoint left it; raises ChangedRun where its program, data or settings are others."""
    run = _restored(store, program, data)
    if changed := _changes(store, run):
        raise seal.ChangedRun(
            f"{store.path} cannot go on: changed since it was begun: {'; '.join(changed)}.\n"
            "Its draws would be of two posteriors. Put it back, or fit anew in another directory."
        )
    if store.has("state.safetensors"):
        state, note = store.arrays("state.safetensors")
        store.forget_after(note["step"])
        records, at = store.draws(note["step"])
        if at != note["step"]:
            raise CorruptRun(f"{store.path / 'draws'}: segments end at step {at}, the state is at step {note['step']}.")
        run.records, run.step, run.seconds, run.state = [records] if records else [], at, note["seconds"], state
    else:
        store.forget_after(0)
    return run


def load(out: str | Path, program: Program | None = None, *, data: Mapping[str, Any] | None = None) -> Fit:
    """The Fit of a directory, finished or not.

    Where the state cannot be read, all draws on disk are; else those that it counts.
    """
    store = Store(out)
    run = _restored(store, program, data)
    if changed := _changes(store, run):
        told = f"{store.path}: changed since the run was begun: {'; '.join(changed)}. What is computed now mixes two programs."
        run.target.notes = (*getattr(run.target, "notes", ()), told)
        warnings.warn(told, stacklevel=2)
    step = None
    with contextlib.suppress(CorruptRun):
        run.state, note = store.arrays("state.safetensors")
        step, run.seconds = note["step"], note["seconds"]
    records, run.step = store.draws(step)
    run.records = [records] if records else []
    if not run.records:
        raise ValueError(f"{store.path} holds no draws yet. Go on with pg.resume({str(store.path)!r}).")
    if store.has("answer.safetensors"):
        return run.result(store.arrays("answer.safetensors")[0])
    return run.result(_answer(run) if isinstance(run.algorithm, Learner) and run.state else {})


def _answer(run: Run) -> Mapping[str, np.ndarray]:
    """What a learner that is not done would answer now."""
    with _scope(run):
        executor = engine.load(run.target.engine).Executor(run.algorithm, run.target, run.seed, run.num_chains)
        executor.restore(run.state)
        return executor.answer()


def _scope(run: Run) -> contextlib.AbstractContextManager[None]:
    return runtime.compile_cache() if run.target.engine == "numpyro" else contextlib.nullcontext()


def save(fit: Fit, out: str | Path, overwrite: bool = False) -> None:
    """Write a Fit as a run's directory; see `Fit.save`."""
    store = Store(out)
    record = _record(fit.model, fit.model, fit.inference, fit.target, fit.seed, fit.precision)
    store.check_free(overwrite)
    with store.writing():
        store.create(record, _arrays(fit.target), overwrite)
        store.append(0, fit.records)
        store.commit(fit.state, {"step": fit.num_steps, "seconds": fit.seconds})
        for name, arrays in (("answer", fit.answer), ("starts", fit.starts)):
            if arrays:
                store.put(name, arrays)


class Run:
    """A run in progress: what is asked for, and what is there."""

    def __init__(
        self, model: Model, target: Target, algorithm: Inference, seed: int, precision: str, store: Store | None
    ):
        self.model, self.target, self.algorithm, self.seed = model, target, algorithm, seed
        self.precision, self.store = precision, store
        self.records: list[Mapping[str, np.ndarray]] = []
        self.step, self.seconds = 0, 0.0
        self.state: Mapping[str, np.ndarray] | None = None
        self.starts: Mapping[str, np.ndarray] = {}
        self.begin_at: starts.Chains | None = None

    @property
    def num_chains(self) -> int:
        return self.algorithm.num_chains if isinstance(self.algorithm, Sampler) else 1

    @property
    def over(self) -> bool:
        """Whether all steps are done, or a learner has converged."""
        done = bool(self.records) and "converged" in self.records[-1] and self.records[-1]["converged"][:, -1].all()
        return self.step >= self.algorithm.total_steps or done

    def add(self, records: Mapping[str, np.ndarray]) -> None:
        """Append a chunk, cut where the learner converged."""
        if "converged" in records and records["converged"].any():
            stop = int(np.argmax(records["converged"].all(0))) + 1
            records = {k: v[:, :stop] for k, v in records.items()}
        self.records.append(records)
        if self.store:
            self.store.append(self.step, records)
        self.step += next(iter(records.values())).shape[1]

    def find_starts(self, executor: Any) -> None:
        """Keep where the starting paths of adapting samplers ended."""
        with contextlib.suppress(AttributeError):
            self.starts = {"ends": executor.read("warmup.start.ends"), "elbos": executor.read("warmup.start.elbos")}
        if self.store and self.starts:
            self.store.put("starts", self.starts)

    def result(self, answer: Mapping[str, np.ndarray]) -> Fit:
        """The Fit of what is there."""
        joined = {k: np.concatenate([r[k] for r in self.records], axis=1) for k in self.records[0]}
        kind = LatentFit if isinstance(self.target, Bounded) else LearnedFit
        kind = kind if isinstance(self.target, Learnable) else Fit
        return kind(
            model=self.model, target=self.target, inference=self.algorithm, seed=self.seed, precision=self.precision,
            records=joined, answer=dict(answer), seconds=self.seconds, state=dict(self.state or {}),
            directory=self.store.path if self.store else None, complete=self.over, starts=dict(self.starts),
        )  # fmt: skip


def _drive(run: Run, progress: bool | None, begin: Callable[[], None] = lambda: None) -> Fit:
    """Run to the end, or to Ctrl-C; `begin` makes the run's directory."""
    with _scope(run):
        executor = engine.load(run.target.engine).Executor(run.algorithm, run.target, run.seed, run.num_chains)
        begun = time.perf_counter() - run.seconds
        if run.state is None:
            begin()
            executor.init(starts.flat(run.begin_at))
            _check_start(run, executor)
            run.find_starts(executor)
        else:
            executor.restore(run.state)
        for records in _chunks(run, executor, progress):
            run.add(records)
            run.seconds = time.perf_counter() - begun
            if run.store:
                run.store.commit(executor.state(), {"step": run.step, "seconds": run.seconds})
        answer: dict[str, np.ndarray] = {}
        if isinstance(run.algorithm, Learner):
            answer = executor.answer()
        run.state = executor.state()
        run.seconds = time.perf_counter() - begun
    if run.store and answer:
        run.store.put("answer", answer)
    return _settled(run.result(answer))


def _settled(fit: Fit) -> Fit:
    """The fit, its draws computed at once where the program reads what could change before they are asked for."""
    if any(pin.reads.mutable or pin.reads.unknown for pin in pins(fit.target)) and fit.z.shape[1]:
        with contextlib.suppress(Exception):  # told when they are asked for
            fit.draws  # noqa: B018
    seal.remember(fit.target)
    return fit


def _chunks(run: Run, executor: Any, progress: bool | None) -> Iterator[Mapping[str, np.ndarray]]:
    """Records of chunk after chunk, sized by the clock to about half a second, with a progress bar.

    Ctrl-C waits for the end of a chunk, so that draws and state belong together, but for the first one; a second Ctrl-C
    does not wait.
    """
    from tqdm.auto import tqdm

    total, size = run.algorithm.total_steps, 16
    disable = None if progress is None else not progress
    with (
        watch.interruptible() as ctrl_c,
        tqdm(total=total, initial=run.step, disable=disable, unit="step", desc=run.algorithm.name) as bar,
    ):
        if ctrl_c.pressed:  # of a run within a run
            raise KeyboardInterrupt
        ctrl_c.keeps = bool(run.step)
        try:
            while not run.over and not ctrl_c.pressed:
                tick = time.perf_counter()
                records = executor.advance(run.step, min(size, total - run.step))
                ctrl_c.keeps = True
                rate = next(iter(records.values())).shape[1] / (time.perf_counter() - tick)
                before = run.step
                yield records
                size = int(np.clip(rate * max(0.5, run.seconds / 50), 1, 16 * size))
                bar.update(run.step - before)
                bar.set_postfix(_headline(run, records), refresh=False)
        finally:
            ctrl_c.keeps = False


def _headline(run: Run, records: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a watcher wants to see beside the rate."""
    if "loss" in records:
        return {"loss": f"{np.mean(records['loss'][:, -50:]):.4g}"}
    shown: dict[str, Any] = {"phase": "warm-up" if run.step < getattr(run.algorithm, "num_warmup", 0) else "sampling"}
    if "diverging" in records:
        shown["divergences"] = sum(int(r["diverging"].sum()) for r in run.records)
    return shown


def _check_start(run: Run, executor: Any) -> None:
    """ValueError where no start with a finite density was found, naming the sites whose density is not."""
    if not isinstance(run.algorithm, Sampler):
        return
    finite = np.isfinite(executor.read("log_density")).reshape(run.num_chains, -1).all(axis=1)
    if finite.all() or _searched(run, executor, finite):
        return
    bad = []
    with contextlib.suppress(AttributeError):  # of continuous unknowns the sites are known one by one
        z = executor.read("z")[int(np.argmin(finite))]
        bad = [f"{k} ({v})" for k, v in run.target.terms(z).items() if not np.isfinite(v)]  # type: ignore[attr-defined]
    if run.store:
        run.store.remove()
    raise ValueError(
        "No starting point with a finite log density was found. "
        f"Not finite at the last one tried: {', '.join(bad) or 'their sum'}.\n"
        "Check that the observed data lie in the support of their distributions."
    )


def _searched(run: Run, executor: Any, finite: np.ndarray) -> bool:
    """Whether a search finds starts for the chains that have none; the others keep theirs."""
    if run.begin_at is not None or (points := starts.found(run.target, run.num_chains, run.seed)) is None:
        return False
    executor.init(np.where(finite[:, None], executor.read("z"), points))
    return bool(np.isfinite(executor.read("log_density")).all())


# ---- the record of a run -----------------------------------------------------------------------------------------


def _record(
    program: Program, model: Model, algorithm: Inference, target: Target, seed: int, precision: str
) -> dict[str, Any]:
    static = fixed.written(target.data)[1]
    layout = arguments.written(model.program.layout) if isinstance(model.program, Arranged) else None
    record = {
        "probgen": versions()["probgen"],
        "program": _reference(program, model.program) | _companions(program, model),
        "engine": target.engine,
        "by_row": model.by_row,
        "dims": {k: list(v) for k, v in model.dims.items()},
        "coords": dims.to_json(model.coords),
        "inference": {"name": algorithm.name, "settings": algorithm.settings()},
        "seed": seed,
        "precision": precision,
        "static": static,
        **({"layout": layout} if layout else {}),
        "versions": versions(),
    }
    return record | {"seal": seal.sealed(record, target, _arrays(target))}


def _reference(program: Program, function: Callable[..., Any]) -> dict[str, str]:
    """How to find a program again: a catalogue name, or the module or file and the name in it."""
    if isinstance(program, str):
        return {"model": program}
    if isinstance(function, Pinned | Arranged):
        return _reference(function.program, function.program)
    if base := getattr(function, "base", None):  # a program with learned parameters
        return {**_reference(base, base), "parameters": " ".join(function.parameters)}
    owner = function.func if isinstance(function, functools.partial) else function
    module = getattr(owner, "__module__", "") or ""
    for word, path in catalog.modules("probgen.models").items():
        if path == module and catalog.model(word).program is function:
            return {"model": word}
    where = sys.modules.get(module)
    file = getattr(where, "__file__", None) or ""
    label = getattr(function, "__qualname__", "")
    if _at(where, label) is not function:  # a partial, a callable object, a decorated function
        label = next((key for key, value in vars(where).items() if value is function), "") if where else ""
    return {"module": module, "file": str(Path(file).resolve()) if file else "", "name": label}


COMPANIONS = ("guide", "critic")


def _companions(program: Program, model: Model) -> dict[str, Any]:
    """How to find a guide and a critic again that are not the catalogue's own."""
    if isinstance(program, str):
        return {}
    found = {k: getattr(model, k) for k in COMPANIONS}
    made = {k: recorded(*unwrapped(v), model.program) for k, v in found.items() if v is not None}
    return {k: made[k] or _reference(v, v) for k, v in found.items() if v is not None}


def _at(module: Any, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        return None


def _find_program(reference: Mapping[str, str]) -> Program:
    if "auto" in reference:
        return restored(reference)
    if "model" in reference:
        return reference["model"]
    module, name, file = reference["module"], reference["name"], reference["file"]
    running = sys.modules.get("__main__")
    same = getattr(running, "__file__", None)
    try:
        if not name:
            raise ImportError("no variable of its module holds it")
        of_a_file = module in ("__main__", "__mp_main__") or module.startswith(FILE)
        if not of_a_file and importlib.util.find_spec(module) is not None:
            return functools.reduce(getattr, name.split("."), importlib.import_module(module))
        if same and file and Path(same).resolve() == Path(file):
            return functools.reduce(getattr, name.split("."), running)
        return from_file(file, name)
    except (AttributeError, ImportError, LookupError, OSError, ValueError) as error:
        raise LookupError(
            f"The program {name!r} of {file or module} cannot be imported again ({error}).\n"
            "Pass it: pg.resume(directory, program)."
        ) from error


FILE = "probgen_file_"  # begins the name of a module that was made of a file


def from_file(path: str | Path, name: str) -> Program:
    """A program, or a Model, of a Python file; the file is imported under a name that no other module has.

    Imported again where it has been edited.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    module = f"{FILE}{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if getattr(sys.modules.get(module), "__probgen_content__", None) != content:
        spec = importlib.util.spec_from_file_location(module, file)
        loaded = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        loaded.__probgen_content__ = content  # type: ignore[attr-defined]
        sys.modules[module] = loaded
        try:
            source = file.read_bytes()  # not by the loader, whose bytecode is that of an edit in the same second
            exec(compile(source, str(file), "exec"), vars(loaded))
        except BaseException:
            del sys.modules[module]
            raise
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module])
    except AttributeError as error:
        raise LookupError(f"{path} has no {name!r}.{closest(name, vars(sys.modules[module]))}") from error


def _restored(store: Store, program: Program | None, data: Mapping[str, Any] | None = None) -> Run:
    record = store.record()
    given = store.arrays("data.safetensors")[0]
    arrays = {k: v for k, v in given.items() if not k.endswith(START)}
    starts = {k.removesuffix(START): v for k, v in given.items() if k.endswith(START)}
    algorithm = catalog.inference(record["inference"]["name"], _tuples(record["inference"]["settings"]))
    chosen = program if program is not None else _find_program(record["program"])
    data = fixed.restored(arrays, record["static"]) if data is None else apart(chosen, data)[1]
    if labels := record["program"].get("parameters"):
        base = catalog.model(chosen).program if isinstance(chosen, str) else chosen
        chosen = engine.load(record["engine"]).with_parameters(base, data, labels.split(" "), record["precision"])
    if kept := {k: v for k, v in record["program"].items() if k in COMPANIONS}:
        base = catalog.model(chosen) if isinstance(chosen, str) else chosen
        base = base if isinstance(base, Model) else Model(base)
        own = {k for k in kept if program is not None and getattr(base, k) is not None}
        chosen = dataclasses.replace(base, **{k: _find_program(v) for k, v in kept.items() if k not in own})
    by_row = record.get(
        "by_row", issubclass(algorithm.needs, Learnable) or None
    )  # runs of before it was said are of rows
    chosen = _declared(chosen, None, by_row)
    if layout := record.get("layout"):
        chosen = _model(chosen)
        chosen = _arranged(chosen, arguments.arranged(chosen.program, arguments.read(layout)))
    model, target = conditioned(chosen, data, record["engine"], record["precision"])
    named = {"dims": record["dims"], "coords": dims.from_json(record["coords"])}
    model = dataclasses.replace(model, **{k: {**getattr(model, k), **v} for k, v in named.items()})
    target = fitting(algorithm, target, list)
    target = _begun(target, starts) if starts else target
    run = Run(model, target, algorithm, record["seed"], record["precision"], store)
    run.starts = store.arrays("starts.safetensors")[0] if store.has("starts.safetensors") else {}
    run.begin_at = store.arrays("begin.safetensors")[0] if store.has("begin.safetensors") else None
    return run


def _changes(store: Store, run: Run) -> list[str]:
    """What of a run is not as it was begun, in words."""
    record = store.record()
    if "seal" not in record:
        run.target.notes = (*getattr(run.target, "notes", ()), seal.UNSEALED)
        return []
    with _scope(run):
        return seal.changes(record, run.target, store.arrays("data.safetensors")[0])


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def versions() -> dict[str, str]:
    """Versions of probgen, Python and the packages that a result depends on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("probgen", "jax", "numpyro", "torch", "pyro-ppl", "numpy", "arviz-stats"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
