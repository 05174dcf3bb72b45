"""`pg.sbc`: simulations of a program, fitted in this process or in others, and what their ranks say."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from probgen import runtime, watch
from probgen.algorithm import Inference, Sampler
from probgen.calibration.kept import kept
from probgen.calibration.ranking import FAILED, NUM_RANKED, RANKED, Asked, Ranked, Simulation, Study
from probgen.calibration.result import SBC, uniformity, uniforms
from probgen.data.whole_numbers import seed as whole_seed
from probgen.data.whole_numbers import whole
from probgen.model import Model
from probgen.processes import pool, sending
from probgen.processes.outcomes import DIED, Outcome

MOST = 100_000  # simulations, which are drawn at once
Note = Callable[[int, Simulation, Ranked | str], None]


@watch.interruptible()
def sbc(
    program: str | Model | Callable[..., Any],
    inference: str | Inference = "nuts",
    *,
    num_simulations: int = 100,
    seed: int = 0,
    data: Mapping[str, Any] | None = None,
    precision: str = "float64",
    engine: str | None = None,
    num_workers: int | None = None,
    num_threads: int | None = None,
    client: Any = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> SBC:
    """Simulation-based calibration of an algorithm on a program.

    program, inference, precision, engine, settings: as for `pg.fit`; a sampler named by a word runs one chain.
    num_simulations: data sets drawn and fitted. One compiled program serves all of them.
    data: its shapes, settings and covariates are used; the observed arrays are replaced by simulated ones.
    num_workers, num_threads, client: fit in processes, on this machine or by dask, as `pg.sweep` does; by default in this one. The
        ranks are the same. A simulation whose process dies is tried once more, then left out and named.
    out: a folder for what came of each simulation: the same call again makes only those that are not there.
    overwrite: make anew what is there of another study.

    The verdict's false-alarm rate is at most 1 % for a warning and 0.1 % for a failure. Raises ValueError where the
    program cannot simulate its data: it has a factor, an improper prior, an observed value that is not an argument by
    itself, or the data are also an input, as lagged values are; ChangedRun where `out` is of another study, RunInUse while
    another process writes there.
    """
    num_simulations, seed = whole("num_simulations", num_simulations), whole_seed(seed)
    if not 20 <= num_simulations <= MOST:
        raise ValueError(
            f"num_simulations is {num_simulations:,}; a test of uniformity needs 20 or more, at most {MOST:,}."
        )
    workers, threads = pool.asked(client, num_workers, num_threads)
    if client is not None and out is None:
        raise TypeError("client needs out, a folder that its workers share.")
    asked = Asked(program, inference, data, precision, engine, settings)
    study = asked.study
    with study.scope(), contextlib.ExitStack() as until:
        todo = study.simulations(seed, num_simulations)
        files = until.enter_context(kept(Path(out), program, study, seed, overwrite)) if out is not None else None
        found = files.those(todo) if files else {}
        left = {i: simulation for i, simulation in todo.items() if i not in found}
        note: Note = files.note if files else lambda i, simulation, what: None
        if client is None and workers is None and threads is None:
            found |= _here(study, left, note)
        elif left:
            where = contextlib.nullcontext(out) if out is not None else tempfile.TemporaryDirectory()
            with where as folder:
                sent = sending.pickled(replace(asked, data=sending.plain(data)))
                with contextlib.closing(pool.outcomes(sent, left, Path(folder), client, workers, threads)) as each:
                    found |= dict(_in_processes(each, left, note))
        return _summarised(study, [found[i] for i in todo])


def _here(study: Study, todo: Mapping[int, Simulation], note: Note) -> dict[int, Ranked | str]:
    """What came of simulations; on a CPU a thread a core for NumPyro, after a first one that traces everything."""

    def job(number: int) -> Ranked | str:
        found = study.rank(todo[number].truth, todo[number].seed)
        note(number, todo[number], found)
        return found

    def scoped(number: int) -> Ranked | str:
        with runtime.several():
            return job(number)

    if study.target.engine != "numpyro" or runtime.accelerator():
        return {number: job(number) for number in todo}
    work = [functools.partial(scoped, number) for number in todo]
    return dict(zip(todo, watch.apart(work[:1]) + watch.apart(work[1:], runtime.cores()), strict=True))


def _in_processes(
    each: Iterable[tuple[int, Outcome]], todo: Mapping[int, Simulation], note: Note
) -> Iterator[tuple[int, Ranked | str]]:
    """The same by other processes; raises what a simulation raised there."""
    for number, outcome in each:
        if outcome.status == DIED:
            yield number, f"simulation {number}: {outcome.error}"
            continue
        if outcome.status not in (RANKED, FAILED):
            raise RuntimeError(f"Simulation {number}: {outcome.error}")
        found = outcome.error if outcome.status == FAILED else Ranked(**outcome.figures)
        note(number, todo[number], found)
        yield number, found


def _summarised(study: Study, found: list[Ranked | str]) -> SBC:
    good = [f for f in found if isinstance(f, Ranked)]
    failures = tuple(f for f in found if isinstance(f, str))
    if len(good) < 20:
        raise ValueError(f"{len(failures)} of {len(found)} simulations could not be fitted; the first: {failures[0]}.")
    ranks = np.stack([f.ranks for f in good])
    drawn = study.algorithm.settings().get("num_samples") or study.algorithm.settings().get("num_draws") or NUM_RANKED
    chains = study.algorithm.num_chains if isinstance(study.algorithm, Sampler) else 1
    num_ranked = min(NUM_RANKED, drawn * chains)
    p_values = uniformity(uniforms(ranks, num_ranked))
    return SBC(study.names, ranks, num_ranked, p_values, np.stack([f.ess for f in good]), failures)
