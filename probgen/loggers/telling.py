"""All loggers of a fit: found by their words, told after every checkpoint, left out where they fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from probgen import watch
from probgen.algorithm import Inference, Sampler, closest
from probgen.loggers.logger import METHODS, About, Ending, Logger
from probgen.loggers.mlflow import MLflow
from probgen.loggers.series import points
from probgen.loggers.tensorboard import TensorBoard

WORDS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
NONE = "none"
log = logging.getLogger("probgen")


def asked(loggers: Any, out: str | Path | None, *, new: bool = True) -> tuple[Any, ...]:
    """The loggers that a user asks for, by words and objects, ready to begin.

    out: the run's directory. new: whether the run begins.
    Raises ValueError for an unknown word, TypeError for what is no logger, ImportError for a missing package.
    """
    given = [] if loggers is None else [*loggers] if isinstance(loggers, list | tuple) else [loggers]
    given = [] if given == [NONE] else given
    found = tuple(_one(logger) for logger in given)
    for i, logger in enumerate(found):
        if any(logger is other or (_named(logger) and logger == other) for other in found[:i]):
            raise ValueError(f"loggers has {_word(logger)} twice; it would be told every step twice.")
        if isinstance(logger, Logger):
            logger.check(Path(out) if out is not None else None, new)
    return found


def _one(logger: Any) -> Any:
    if isinstance(logger, str):
        if logger not in WORDS:
            raise ValueError(f"Unknown logger {logger!r}.{closest(logger, WORDS)} Known: {', '.join(WORDS)}.")
        return WORDS[logger]()
    mute = isinstance(logger, Logger) and type(logger).log is Logger.log
    if mute or isinstance(logger, type) or not all(callable(getattr(logger, name, None)) for name in METHODS):
        raise TypeError(
            f"loggers has {logger!r}, which is no logger: an object with begin(about), log(step, values) and end(ending), such as "
            f"one of a class that inherits from pg.loggers.Logger.\nBy a word: {', '.join(WORDS)}."
        )
    return logger


def _named(logger: Any) -> str:
    """The word of a logger; "" of a user's own."""
    return next((word for word, kind in WORDS.items() if type(logger) is kind), "")


def _word(logger: Any) -> str:
    return _named(logger) or type(logger).__name__


def written(loggers: Sequence[Any]) -> list[dict[str, Any]]:
    """What run.json says of them: those of ours by word and settings, objects by their class alone."""
    found = []
    for logger in loggers:
        own = [f.name for f in fields(logger) if f.init] if _named(logger) and is_dataclass(logger) else []
        settings = {k: v if v is None else str(v) for k in own for v in [getattr(logger, k)]}
        found.append({"word": _named(logger), "kind": type(logger).__name__, "settings": settings})
    return found


def going_on(given: Any, record: Mapping[str, Any], out: Path | None) -> Telling:
    """The loggers of a run that goes on: those given, else those that it was begun with, as far as they have words."""
    kept = [] if given is not None else record.get("loggers", [])
    own = [WORDS[said["word"]](**said["settings"]) for said in kept if said["word"] in WORDS]
    found = Telling(asked(given if given is not None else own, out, new=False))
    found.notes += [
        f"Its logger {said['kind']} was an object, and is not told of this session: pass loggers=[...] again."
        for said in kept
        if said["word"] not in WORDS
    ]
    return found


def _said(error: BaseException) -> str:
    """An error in a line, whatever its own words raise."""
    with contextlib.suppress(Exception):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


class Telling:
    """The loggers of one session of a run. Whatever they raise is said once in `notes`, and ends their logging alone."""

    def __init__(self, loggers: Sequence[Any] = ()):
        self.last: dict[Any, int] = {}
        self.notes: list[str] = []
        self.loggers = list(loggers)
        self.step = 0

    def begin(self, run: Any, facts: Mapping[str, Any]) -> None:
        """run: with its algorithm, directory and the step where it goes on."""
        self.step = run.step
        algorithm: Inference = run.algorithm
        about = About(algorithm.settings(), facts, run.step, run.store.path if run.store else None)
        for logger in self.loggers[:]:
            with self._guarded(logger), watch.doing(f"the logger {_word(logger)} begins"):
                done = logger.begin(about)
                # it may have more than the last checkpoint: what was lost with the process is made again, and told already
                self.last[id(logger)] = run.step if done is None else max(0, min(int(done), algorithm.total_steps))

    def log(self, run: Any, seconds: float) -> None:
        """After a checkpoint: the points since the last one, and how long a step took, in seconds."""
        algorithm: Inference = run.algorithm
        each, before = seconds / max(1, run.step - self.step), self.step
        warmup = algorithm.num_warmup if isinstance(algorithm, Sampler) else None
        for logger in self.loggers[:]:
            with self._guarded(logger), watch.doing(f"the logger {_word(logger)} writes"):
                last = self.last[id(logger)]
                for step, values in points(run.records, last, run.step, algorithm.total_steps, run.over, warmup):
                    logger.log(step, values | ({"seconds_per_step": each} if step > before else {}))
                    self.last[id(logger)] = step
                if isinstance(logger, Logger):
                    logger.flush()
        self.step = run.step

    def end(self, state: str, step: int, judge: Callable[[], Any] | None = None) -> None:
        """Tell how the run ended; judge: gives the verdict, None where there is none to give."""
        if not self.loggers:
            return
        ending = Ending(state, step)
        if judge is not None:
            try:
                verdict = judge()
                found = {finding.check: finding.status for finding in verdict.findings}
                ending = Ending(state, step, verdict.status, str(verdict), found)
            except (Exception, KeyboardInterrupt) as error:  # the fit is there, and is not lost for its verdict
                ending = Ending(state, step, "", f"It could not be judged: {type(error).__name__}: {error}")
        for logger in self.loggers[:]:
            with self._guarded(logger), watch.doing(f"the logger {_word(logger)} ends"):
                logger.end(ending)

    @contextlib.contextmanager
    def _guarded(self, logger: Any) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit, GeneratorExit) as error:  # Ctrl-C is the user's
            self.loggers = [other for other in self.loggers if other is not logger]
            at = self.last.get(id(logger), self.step)
            told = f"The logger {_word(logger)} failed after step {at} and was left out from there: {_said(error)}"
            self.notes.append(told)
            log.warning("%s", told)
