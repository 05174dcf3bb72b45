"""What a run is doing: Ctrl-C at any moment, work in threads that can be left, and a word when nothing moves for a minute."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import itertools
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

log = logging.getLogger("probgen")

# ---- Ctrl-C ------------------------------------------------------------------------------------------------------------


class CtrlC:
    """The handler of SIGINT while a program is fitted.

    Before there are draws, KeyboardInterrupt is raised at once; but not within XLA's compiler, which makes Python crash at its
    end. Where Python drops it, it comes again. While it `keeps` draws, the first Ctrl-C is noted, so that draws and state belong
    together; a second one raises.
    """

    def __init__(self) -> None:
        self.keeps = self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.keeps and not self.pressed:
            self.pressed = True
        elif _compiles(frame):
            _press_again()
        else:
            raise KeyboardInterrupt


def _compiles(frame: FrameType | None) -> bool:
    """Whether a frame is inside of XLA's compiler."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(COMPILER):
            return True
        frame = frame.f_back
    return False


def _press_again() -> None:
    """Ctrl-C a moment later."""
    again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    again.daemon = True
    again.start()


@contextlib.contextmanager
def _undropped() -> Iterator[None]:
    """Where Python drops a KeyboardInterrupt, Ctrl-C is pressed again: in finalisers and in what collects garbage.

    JAX has such a callback: a sixth of the interrupts while it traced a long program came to nothing.
    """
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        _press_again() if told.exc_type is KeyboardInterrupt else before(told)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


COMPILER = os.path.join("jax", "_src", "compiler.py")


@contextlib.contextmanager
def interruptible() -> Iterator[CtrlC]:
    """Handle SIGINT for the time of the block; left alone in a second thread, and where the user has a handler.

    Within another such block it is that block's handler.
    """
    ctrl_c, handler = CtrlC(), signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is not signal.default_int_handler:
        yield handler if main and isinstance(handler, CtrlC) else ctrl_c
        return
    signal.signal(signal.SIGINT, ctrl_c)
    try:
        with _undropped():
            yield ctrl_c
    except KeyboardInterrupt:
        _leave_beside()
        _loaded()
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def unseen() -> bool:
    """Whether nobody watches a bar on stderr: it is no terminal, and no cell of a notebook."""
    notebook = type(sys.stderr).__module__.startswith("ipykernel.")
    return not (notebook or (hasattr(sys.stderr, "isatty") and sys.stderr.isatty()))


# ---- work in threads that can be left ----------------------------------------------------------------------------------


def apart(jobs: Sequence[Callable[[], Any]], workers: int = 1) -> list[Any]:
    """The results of jobs, run by a few threads; raises the first error of a job.

    KeyboardInterrupt leaves at once: what has begun ends by itself, the rest is dropped. XLA cannot be stopped within an
    execution or a compilation, and Python cannot end in good order beside one; see `_leave`.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(jobs)):
        waiting.put(i)
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    left, over = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not left.is_set() and not errors:
                i = waiting.get_nowait()
                try:
                    results[i] = jobs[i]()
                except BaseException as error:
                    errors.append(error)
        over.release()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            over.acquire()
    except BaseException:
        left.set()
        _leave(threads)
        raise
    if errors:
        raise errors[0]
    return results


class Beside:
    """A job in a thread beside the caller's own work; `result()` waits for it, and raises what it raised.

    Python waits for it at its end; after Ctrl-C it is left.
    """

    def __init__(self, job: Callable[[], Any]) -> None:
        self._job, self._over = job, threading.Event()
        self._found: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        with _starting:
            if not _beside:
                atexit.register(finish)
            _beside[:] = [thread for thread in _beside if thread.is_alive()] + [self._thread]
        self._thread.start()

    def _work(self) -> None:
        try:
            self._found = self._job()
        except BaseException as error:
            self._error = error
        del self._job  # and what it holds
        self._over.set()

    def result(self) -> Any:
        try:
            while not self._over.wait(1.0):
                if not self._thread.is_alive() and not self._over.is_set():  # a fork has no threads
                    raise RuntimeError(
                        "What a process began in a thread ended with a fork of it. Start processes by spawn."
                    )
        except BaseException:
            _leave_beside()
            raise
        if self._error:
            raise self._error
        return self._found


_beside: list[threading.Thread] = []
_left: list[threading.Thread] = []


def _leave(threads: list[threading.Thread]) -> None:
    if not _left:
        atexit.register(_end)
    _left.extend(threads)


def _leave_beside() -> None:
    if alive := [thread for thread in _beside if thread.is_alive()]:
        _leave(alive)
    _beside.clear()


def finish() -> None:
    """Wait for what was begun and not left; Python does at its end."""
    for thread in _beside:
        thread.join()


def _end() -> None:
    """At the end of Python: where work that was left goes on still, end as by Ctrl-C; Python would crash beside it."""
    deadline = time.monotonic() + 1.0
    for thread in _left:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in _left):
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


# ---- loaded while XLA is waited for --------------------------------------------------------------------------------------

LATER = ("arviz_stats",)  # a second of a first verdict


_ahead: list[threading.Thread] = []


@functools.cache
def load_ahead() -> None:
    """Begin to load in a thread what a process will need later; an import that fails is told where it is asked for."""
    thread = threading.Thread(target=_load, daemon=True, name="probgen-ahead")
    _ahead.append(thread)
    thread.start()
    atexit.register(_loaded)


def _loaded() -> None:
    """Wait for what is loaded: Python cannot end in good order beside an import, and forgets Ctrl-C where one ends after it."""
    for thread in _ahead:
        thread.join()


def _load() -> None:
    for name in LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


# ---- the watchdog ------------------------------------------------------------------------------------------------------

PATIENCE = 60.0  # seconds without progress before a word
_doing: dict[int, tuple[str, float]] = {}  # what is being done, and since when
_number = itertools.count()


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """What the block does, as it is told where it takes more than a minute."""
    i = next(_number)
    _doing[i] = (what, time.monotonic())
    _start()
    try:
        yield
    finally:
        del _doing[i]


_watcher: threading.Thread | None = None
_starting = threading.Lock()


def _start() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # a fork has no threads
        with _starting:
            if _watcher is None or not _watcher.is_alive():
                _watcher = threading.Thread(target=_watch, daemon=True, name="probgen-watch")
                _watcher.start()


def _watch() -> None:
    """Tells of everything that takes long: after a minute, then after twice as long each time."""
    told: dict[int, float] = {}
    while True:
        time.sleep(PATIENCE / 12)
        now, current = time.monotonic(), dict(_doing)
        told = {i: when for i, when in told.items() if i in current}
        for i, (what, since) in current.items():
            if now - since >= told.get(i, PATIENCE):
                told[i] = 2 * (now - since)
                log.warning("No progress for %.0f s: %s. Ctrl-C stops the run.", now - since, what)
