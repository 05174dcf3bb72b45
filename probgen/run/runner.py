"""The runner: drives any kernel in chunks, shows progress, writes checkpoints, stops at Ctrl-C."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np

from probgen import engine, runtime, watch
from probgen.algorithm import Incompatible, Inference, Learner, Sampler
from probgen.data.large import stored
from probgen.fits import seal
from probgen.fits.bridge import BridgeFit
from probgen.fits.completed import CompletedFit
from probgen.fits.diffusion import DiffusionFit
from probgen.fits.field import FieldFit
from probgen.fits.fit import Fit
from probgen.fits.implicit import ImplicitFit
from probgen.fits.latent import LatentFit
from probgen.fits.learned import LearnedFit
from probgen.fits.text import TextFit, of_a_text
from probgen.loggers.telling import Telling
from probgen.model import Model
from probgen.processes.chains import SharedChains
from probgen.processes.peers import Team
from probgen.processes.rows import SharedRows
from probgen.programs.bridging import Bridging
from probgen.programs.completable import PartlyKnown
from probgen.programs.fields import Field
from probgen.programs.pinned import pins
from probgen.run import starts, verdicts
from probgen.run.store import Checkpoints, Store
from probgen.target import Bounded, Diffused, Generative, Implicit, Target
from probgen.versions import versions


def scope_of(run: Run) -> contextlib.AbstractContextManager[None]:
    return runtime.compile_cache() if run.target.engine == "numpyro" else contextlib.nullcontext()


class Run:
    """A run in progress: what is asked for, and what is there."""

    def __init__(
        self, model: Model, target: Target, algorithm: Inference, seed: int, precision: str, store: Store | None
    ):
        self.model, self.target, self.algorithm, self.seed = model, target, algorithm, seed
        self.precision, self.store = precision, store
        self.records: list[Mapping[str, np.ndarray]] = []
        self.whole: dict[str, np.ndarray] = {}  # of chains, whose number of steps is known: room for all of them
        self.wide: dict[str, np.ndarray] = {}  # what stays on disk, without steps
        self.step, self.seconds, self.compiling = 0, 0.0, 0.0
        self.state: Mapping[str, np.ndarray] | None = None
        self.starts: Mapping[str, np.ndarray] = {}
        self.begin_at: starts.Chains | None = None
        self.telling = Telling()
        self.team: Team | None = None

    @property
    def num_chains(self) -> int:
        return self.algorithm.num_chains if isinstance(self.algorithm, Sampler) else 1

    @property
    def over(self) -> bool:
        """Whether all steps are done, or a learner has converged."""
        done = bool(self.records) and "converged" in self.records[-1] and self.records[-1]["converged"][:, -1].all()
        return bool(self.step >= self.algorithm.total_steps or done)

    @property
    def note(self) -> dict[str, float]:
        """What is written beside a state."""
        return {"step": self.step, "seconds": self.seconds, "compiling": self.compiling}

    def executor(self) -> Any:
        """What runs its chains, or its steps, those of other processes included."""
        make = partial(
            engine.load(self.target.engine).Executor, self.algorithm, self.target, self.seed, self.num_chains
        )
        if not self.team:
            return make()
        if isinstance(self.algorithm, Sampler):
            return SharedChains(self.team, lambda share: make(share=share), self.num_chains)
        return SharedRows(self.team, lambda team: make(team=team))

    def agreed(self, size: int, stops: bool) -> tuple[int, bool]:
        """How many steps come next, and whether the run stops: the same in all processes."""
        return self.team.agreed(size, stops) if self.team else (size, stops)

    def add(self, records: Mapping[str, np.ndarray]) -> None:
        """Append a chunk."""
        if self.store:
            self.store.append(self.step, records)
        self.records.append(self._held(records))
        self.step += next(iter(records.values())).shape[1]

    def hold(self, records: Mapping[str, Any]) -> None:
        """Begin with the records of steps that are done."""
        self.records = [self._held(records)] if records else []

    def _held(self, records: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Records from the run's step on as they are held in memory: of a run on disk, not what would be too much of it."""
        if not isinstance(self.algorithm, Sampler):
            return records
        kept, total = {}, self.algorithm.total_steps
        for key, value in records.items():
            count = value.shape[1]
            if self.store and value.ndim > 2 and value.nbytes // max(1, count) * total > stored.IN_MEMORY:
                self.wide[key] = np.empty((value.shape[0], 0, *value.shape[2:]), value.dtype)
                continue
            if key not in self.whole:
                self.whole[key] = np.empty((value.shape[0], total, *value.shape[2:]), value.dtype)
            self.whole[key][:, self.step : self.step + count] = value
            kept[key] = self.whole[key][:, self.step : self.step + count]
        return kept

    def _joined(self) -> dict[str, Any]:
        if self.whole or self.wide:
            on_disk = self.store.wide(self.step, self.wide) if self.store and self.wide else {}
            return {**on_disk, **{k: v[:, : self.step] for k, v in self.whole.items()}}
        if len(self.records) == 1:
            return dict(self.records[0])
        return {k: np.concatenate([r[k] for r in self.records], axis=1) for k in self.records[0]}

    def find_starts(self, executor: Any) -> None:
        """Keep where the starting paths of adapting samplers ended."""
        with contextlib.suppress(AttributeError):
            self.starts = {"ends": executor.read("warmup.start.ends"), "elbos": executor.read("warmup.start.elbos")}
        if self.store and self.starts:
            self.store.put("starts", self.starts)

    def result(self, answer: Mapping[str, np.ndarray]) -> Fit:
        """The Fit of what is there."""
        kinds = {
            Diffused: DiffusionFit,
            Bounded: LatentFit,
            Bridging: BridgeFit,
            Implicit: ImplicitFit,
            Generative: TextFit if of_a_text(self.target) else LearnedFit,
            PartlyKnown: CompletedFit,
            Field: FieldFit,
            Target: Fit,
        }
        kind = next(fit for offered, fit in kinds.items() if isinstance(self.target, offered))
        return kind(
            model=self.model, target=self.target, inference=self.algorithm, seed=self.seed, precision=self.precision,
            records=self._joined(), answer=dict(answer), seconds=self.seconds, state=dict(self.state or {}),
            directory=self.store.path if self.store else None, complete=self.over, starts=dict(self.starts), runner=RUNNER,
            compiling=self.compiling,
        )  # fmt: skip


def check_together(run: Run, record: Mapping[str, Any]) -> None:
    """Raise where the processes of a run cannot make it together, or were asked for different things."""
    team = run.team
    if team is None:
        return
    if why := team.refuses(run.target.engine, isinstance(run.algorithm, Sampler)) or run.algorithm.unshared(run.target):
        team.over = True  # in all of them
        raise Incompatible(why)
    if isinstance(run.algorithm, Sampler):
        team.share(run.num_chains)
    begin = {k: v.tolist() for k, v in (run.begin_at or {}).items()}
    ours, *theirs = team.records({"record": record, "step": run.step, "begin": begin})
    for number, other in enumerate(theirs, 1):
        told = seal.between(ours["record"], other["record"])
        told += [f"its {k}" for k in ("versions", "engine", "by_row") if ours["record"][k] != other["record"][k]]
        told += [f"its {k}" for k in ("step", "begin") if ours[k] != other[k]]
        if told:
            raise ValueError(f"Process {number} was asked for something else than process 0: {'; '.join(told)}.")


class Runner:
    """What a fit is given to start another run, and to be written down: the words of the files above, which set them."""

    fit: Callable[..., Fit]
    save: Callable[..., None]

    def judged(self, fit: Fit, verdict: Any) -> None:
        """Keep the verdict on a fit beside the run that this process wrote; one that was loaded is only read."""
        if vars(fit).get("_written"):
            verdicts.keep(fit, verdict)


RUNNER = Runner()


def drive(run: Run, progress: bool | None, begin: Callable[[], None] = lambda: None) -> Fit:
    """Run to the end, or to Ctrl-C; `begin` makes the run's directory."""
    with scope_of(run):
        executor = run.executor()
        begun, before = time.perf_counter() - run.seconds, run.compiling
        if run.state is None:
            begin()
            executor.init(starts.flat(run.begin_at))
            _check_start(run, executor)
            run.find_starts(executor)
        else:
            executor.restore(run.state)
        run.telling.begin(run, facts(run))
        checkpoints = Checkpoints(run.store) if run.store else None
        try:
            tick = time.perf_counter()
            for records in _chunks(run, executor, progress):
                took = time.perf_counter() - tick
                run.add(records)
                run.seconds = time.perf_counter() - begun
                run.compiling = before + getattr(executor, "compiling", 0.0)
                if run.store or run.team:
                    run.state = executor.state()
                if checkpoints and run.state is not None:
                    checkpoints.offer(run.state, run.note)
                run.telling.log(run, took)
                tick = time.perf_counter()
            if checkpoints:
                checkpoints.write()
            answer: dict[str, np.ndarray] = {}
            if isinstance(run.algorithm, Learner):
                answer = executor.answer()
            run.state = executor.state()
        except BaseException as error:
            run.telling.end("stopped" if isinstance(error, KeyboardInterrupt) else "failed", run.step)
            raise
        run.seconds = time.perf_counter() - begun
        run.compiling = before + getattr(executor, "compiling", 0.0)
    if run.store and answer:
        run.store.put("answer", answer)
    fit = settled(run.result(answer))
    with contextlib.suppress(Exception):  # nothing was written that could be read
        vars(fit)["_written"] = verdicts.stamp(run.store.path) if run.store else None
    vars(fit)["_said"] = run.telling.notes
    run.telling.end("finished" if run.over else "stopped", run.step, fit.diagnose if run.over else None)
    return fit


def facts(run: Run) -> dict[str, Any]:
    """What a logger is told of a run beside its settings."""
    names = {
        "model": getattr(run.model.program, "__name__", "program"),
        "algorithm": run.algorithm.name,
        "engine": run.target.engine,
    }
    return {**names, "precision": run.precision, "seed": run.seed, **versions()}


def settled(fit: Fit) -> Fit:
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
    disable = (watch.unseen() if progress is None else not progress) or bool(run.team and not run.team.first)
    with (
        watch.interruptible() as ctrl_c,
        tqdm(total=total, initial=run.step, disable=disable, unit="step", desc=run.algorithm.name) as bar,
    ):
        if ctrl_c.pressed:  # of a run within a run
            raise KeyboardInterrupt
        ctrl_c.keeps = bool(run.step)
        try:
            while not run.over:
                size, stops = run.agreed(size, ctrl_c.pressed)
                if stops:
                    break
                tick = time.perf_counter()
                records = _advanced(run, executor, min(size, total - run.step))
                ctrl_c.keeps = True
                rate = next(iter(records.values())).shape[1] / (time.perf_counter() - tick)
                before = run.step
                yield records
                size = int(np.clip(rate * max(0.5, run.seconds / 50), 1, 16 * size))
                bar.update(run.step - before)
                bar.set_postfix(_headline(run, records), refresh=False)
        finally:
            ctrl_c.keeps = False


def _advanced(run: Run, executor: Any, size: int) -> Mapping[str, np.ndarray]:
    """So many steps; where the learner converges, no more than up to there, whatever the clock made of the chunk."""
    ends = isinstance(run.algorithm, Learner) and (not run.records or "converged" in run.records[-1])
    begun = executor.state() if ends and size > 1 else None
    records = executor.advance(run.step, size)
    if "converged" not in records or begun is None:
        return records
    over = records["converged"].all(0)
    if not over[:-1].any():
        return records
    executor.restore(begun)
    return executor.advance(run.step, int(np.argmax(over)) + 1)


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
    bad, target = [], cast("Any", run.target)
    with contextlib.suppress(AttributeError):  # of continuous unknowns the sites are known one by one
        z = executor.read("z")[int(np.argmin(finite))]
        bad = [f"{k} ({v})" for k, v in target.terms(z).items() if not np.isfinite(v)]
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
