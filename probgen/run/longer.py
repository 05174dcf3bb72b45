"""More draws of a run that is done: `pg.extend`."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from probgen import watch
from probgen.algorithm import Incompatible, Inference, Learner, Sampler
from probgen.data.whole_numbers import whole
from probgen.fits import seal
from probgen.fits.fit import Fit
from probgen.loggers.telling import going_on
from probgen.processes import torchrun
from probgen.run import verdicts
from probgen.run.record import changes
from probgen.run.resuming import load
from probgen.run.runner import Run, drive
from probgen.run.store import Store


@watch.interruptible()
def extend(
    fit: Fit | str | Path, num_samples: int | None = None, *, num_steps: int | None = None, program: Any = None,
    progress: bool | None = None, loggers: Any = None,
) -> Fit:  # fmt: skip
    """Go on with a run that is done: the result is bit for bit that of one run of the whole length.

    fit: a fit, or the directory of one. A fit with a directory goes on there; killed on the way, `pg.resume` ends it.
    num_samples: how many more draws of each chain; nothing adapts any more. num_steps: how many more steps of a learner.
    program: as in `pg.resume`, for a directory whose program cannot be imported again.
    progress, loggers: as in `pg.resume`.

    Returns a new fit; the old one stays. Raises Incompatible where the steps depend on how many there are, as in a schedule.
    """
    torchrun.refuse("all of this run")
    fit = fit if isinstance(fit, Fit) else load(fit, program)
    longer = _longer(fit, num_samples, num_steps)
    if not fit.state:
        raise ValueError("The state of this run is lost, without which it cannot go on.")
    seal.check_seen(fit.target)
    store = Store(fit.directory) if fit.directory else None
    with store.writing() if store else contextlib.nullcontext():
        if store:
            _rewrite(store, fit, longer)
        run = _at_its_end(fit, longer, store)
        run.telling = going_on(loggers, store.record() if store else {}, store.path if store else None)
        return drive(run, progress)


def _longer(fit: Fit, num_samples: int | None, num_steps: int | None) -> Inference:
    """The settings with so many more draws or steps; raises where a longer run would not go the same way."""
    name = "num_samples" if isinstance(fit.inference, Sampler) else "num_steps"
    given = {"num_samples": num_samples, "num_steps": num_steps}
    if given[name] is None or any(v is not None for k, v in given.items() if k != name):
        raise TypeError(f"{fit.inference.name} goes on by {name}: pg.extend(fit, {name}=...), how many more.")
    if (more := whole(name, given[name])) <= 0:
        raise ValueError(f"{name} is {more}; it is how many more, and must be above 0.")
    if isinstance(fit.inference, Learner) and fit.complete and fit.num_steps < fit.inference.total_steps:
        raise ValueError(
            f"{fit.inference.name} has converged after {fit.num_steps} steps: there is nothing more to learn."
        )
    longer = dataclasses.replace(fit.inference, **{name: getattr(fit.inference, name) + more})
    if longer.kernel() != fit.inference.kernel():
        raise Incompatible(
            f"The steps of {fit.inference.name} depend on how many there are (a schedule): a longer run is another one.\n"
            f"Fit anew with {name}={getattr(longer, name)}, or go on from its parameters: pg.fit(..., init=fit)."
        )
    return longer


def _at_its_end(fit: Fit, longer: Inference, store: Store | None) -> Run:
    run = Run(fit.model, fit.target, longer, fit.seed, fit.precision, store)
    run.hold(fit.records)
    run.step, run.seconds = fit.num_steps, fit.seconds
    run.compiling = fit.compiling
    run.state, run.starts = fit.state, fit.starts
    return run


def _rewrite(store: Store, fit: Fit, longer: Inference) -> None:
    """run.json with the new length: from then on the run is one that is not done, which `pg.resume` ends."""
    if changed := changes(store, _at_its_end(fit, fit.inference, store)):
        raise seal.ChangedRun(f"{store.path} cannot go on: changed since it was begun: {'; '.join(changed)}.")
    if (there := store.arrays("state.safetensors")[1]["step"]) != fit.num_steps:
        raise ValueError(
            f"{store.path} is at step {there}, this fit at step {fit.num_steps}: another one went on there.\n"
            f"pg.extend({str(store.path)!r}, ...) goes on where it is."
        )
    if not verdicts.is_of(fit, store.path):
        raise ValueError(
            f"{store.path} holds another run than this fit: it was written anew.\n"
            f"pg.extend({str(store.path)!r}, ...) goes on with what is there; fit.save keeps this fit elsewhere."
        )
    store.drop("answer")
    record = store.record()
    record["inference"] = {**record["inference"], "settings": longer.settings()}
    store.rewrite(seal.resealed(record) if "seal" in record else record)
