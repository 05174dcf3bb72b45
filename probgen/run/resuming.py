"""Runs on disk: go on with one, read one, write one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen import engine, watch
from probgen.algorithm import Learner
from probgen.data.large.stored import Stored, numbers_at_once
from probgen.fits import seal
from probgen.fits.fit import Fit
from probgen.loggers.telling import Telling, going_on
from probgen.processes import joining
from probgen.run.conditioning import Program
from probgen.run.record import arrays_of, changes, record_of, restored_run
from probgen.run.runner import RUNNER, Run, check_together, drive, scope_of, settled
from probgen.run.store import CorruptRun, Store


@watch.interruptible()
def resume(
    out: str | Path, program: Program | None = None, *, data: Mapping[str, Any] | None = None, progress: bool | None = None,
    loggers: Any = None,
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None,
) -> Fit:  # fmt: skip
    """Go on with a run after a crash or Ctrl-C: the result is bit for bit that of an uninterrupted run.

    On a CPU that holds of NumPyro programs where probgen is imported before anything has run in JAX, or in neither process: it asks
    XLA for small loops as one function, which rounds otherwise.
    program: only for a program that cannot be imported again, such as one typed into a notebook.
    data: only for data that cannot be kept on disk, such as functions made in a notebook.
    loggers: as in `pg.fit`; by default those of words that it was begun with, which go on where they were. "none" for none.
    coordinator, num_processes, process_id: as in `pg.fit`, of any number of processes, which all read `out`.
    Raises FileNotFoundError without a run there, CorruptRun where a file cannot be read (the draws are kept).
    """
    with joining.joined(coordinator, num_processes, process_id) as team:
        store = Store(out)
        record = store.record()  # there is one
        writes = team is None or team.first
        telling = going_on(loggers, record, store.path) if writes else Telling()
        with store.writing() if writes else contextlib.nullcontext():
            run = _where_it_was(store, program, data, writes)
            run.telling = telling
            run.team, run.store = team, store if writes else None
            check_together(run, record)
            return drive(run, progress)


def _where_it_was(store: Store, program: Program | None, data: Mapping[str, Any] | None, writes: bool = True) -> Run:
    """A run as its last checkpoint left it; raises ChangedRun where its program, data or settings are others.

    writes: whether steps that no checkpoint counts are removed.
    """
    run = restored_run(store, program, data)
    if changed := changes(store, run):
        raise seal.ChangedRun(
            f"{store.path} cannot go on: changed since it was begun: {'; '.join(changed)}.\n"
            "Its draws would be of two posteriors. Put it back, or fit anew in another directory."
        )
    _tell_rewritten(store, run)
    if store.has("state.safetensors"):
        state, note = store.arrays("state.safetensors")
        if writes:
            store.forget_after(note["step"])
        records, at = store.records(note["step"])
        if at != note["step"]:
            raise CorruptRun(f"{store.path / 'draws'}: segments end at step {at}, the state is at step {note['step']}.")
        run.hold(records)
        run.step, run.seconds, run.state = at, note["seconds"], state
        run.compiling = note.get("compiling", 0.0)
    elif writes:
        store.forget_after(0)
    return run


def load(out: str | Path, program: Program | None = None, *, data: Mapping[str, Any] | None = None) -> Fit:
    """The Fit of a directory, finished or not.

    Where the state cannot be read, all draws on disk are; else those that it counts.
    """
    store = Store(out)
    run = restored_run(store, program, data)
    if changed := changes(store, run):
        _tell(
            run,
            f"{store.path}: changed since the run was begun: {'; '.join(changed)}. What is computed now mixes two programs.",
        )
    else:
        _tell_rewritten(store, run)
    step = None
    if store.has("state.safetensors"):
        try:
            run.state, note = store.arrays("state.safetensors")
            step, run.seconds, run.compiling = note["step"], note["seconds"], note.get("compiling", 0.0)
        except CorruptRun as error:
            _tell(run, f"{str(error).splitlines()[0]} All draws on disk are read; the run cannot go on.")
    records, run.step = store.records(step)
    if step is not None and run.step < step:
        _tell(
            run,
            f"{store.path / 'draws'}: segments end at step {run.step}, the state is at step {step}: the rest is gone.",
        )
    run.records = [records] if records else []
    if not run.records:
        raise ValueError(f"{store.path} holds no draws yet. Go on with pg.resume({str(store.path)!r}).")
    if store.has("answer.safetensors"):
        return settled(run.result(store.arrays("answer.safetensors")[0]))
    return settled(run.result(_answer(run) if isinstance(run.algorithm, Learner) and run.state else {}))


def _tell(run: Run, told: str) -> None:
    """Warn the caller of `load`, and note it for the verdict."""
    run.target.notes = (*getattr(run.target, "notes", ()), told)
    warnings.warn(told, stacklevel=3)


def _tell_rewritten(store: Store, run: Run) -> None:
    """Note where a run's program has other code than it was begun with, and the same density as far as that was compared."""
    record = store.record()
    if told := seal.rewritten(record, run.target) if "seal" in record else "":
        run.target.notes = (*getattr(run.target, "notes", ()), told)


def _answer(run: Run) -> Mapping[str, np.ndarray]:
    """What a learner that is not done would answer now."""
    with scope_of(run):
        executor = engine.load(run.target.engine).Executor(run.algorithm, run.target, run.seed, run.num_chains)
        executor.restore(run.state)
        return executor.answer()


def parts(records: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Records of all steps in pieces that are held at once: where each begins, and (chain, step, ...)."""
    steps = next(iter(records.values())).shape[1]
    wide = [v for v in records.values() if isinstance(v, Stored)]
    size = min([steps, *(numbers_at_once(v.size // v.shape[1]) for v in wide)])
    for start in range(0, steps, size):
        yield start, {k: np.asarray(v[:, start : start + size]) for k, v in records.items()}


def save(fit: Fit, out: str | Path, overwrite: bool = False) -> None:
    """Write a Fit as a run's directory; see `Fit.save`."""
    store = Store(out)
    record = record_of(fit.model, fit.model, fit.inference, fit.target, fit.seed, fit.precision)
    store.check_free(overwrite)
    with store.writing():
        store.create(record, arrays_of(fit.target), overwrite)
        for start, records in parts(fit.records):
            store.append(start, records)
        store.commit(fit.state, {"step": fit.num_steps, "seconds": fit.seconds, "compiling": fit.compiling})
        for name, arrays in (("answer", fit.answer), ("starts", fit.starts)):
            if arrays:
                store.put(name, arrays)


RUNNER.save = save
