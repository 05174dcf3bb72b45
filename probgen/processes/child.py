"""What a worker process does: reads its task, then jobs, and answers each with its outcome, until its input ends.

Both ways go in pickles, over standard input and what was standard output; whatever a program prints goes to standard error.
The end of the input is the wish to stop: the fit that runs is interrupted, which leaves a run that can be gone on with.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import threading
from typing import Any

READY, UNREADABLE = "ready", "unreadable"
GRACE = 30.0  # seconds from the end of the input to the end of the process


def main() -> None:
    """The process, from its start to its end."""
    from probgen import runtime  # noqa: F401  before anything starts JAX: the order of its operations

    inbox, outbox = _streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have had ignored
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(inbox, jobs), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _work(jobs, outbox)


def _streams() -> tuple[Any, Any]:
    """The two ways; in their place standard input is empty, and what is printed goes to standard error."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return inbox, outbox


def _read(inbox: Any, jobs: queue.SimpleQueue[Any]) -> None:
    """Every message as bytes; None, and an interrupt of what runs, where there will be no more."""
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            jobs.put(pickle.load(inbox))
    jobs.put(None)
    last = threading.Timer(GRACE, os._exit, (1,))
    last.daemon = True
    last.start()
    _interrupt()


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _work(jobs: queue.SimpleQueue[Any], outbox: Any) -> None:
    task = jobs.get()
    if task is None:
        return
    try:
        wide, task = pickle.loads(task)
        if wide is not None:
            os.environ["JAX_ENABLE_X64"] = str(int(wide))  # read where JAX is loaded
        task = pickle.loads(task)
    except Exception as error:
        _answer(outbox, (UNREADABLE, f"{type(error).__name__}: {error}"))
        return
    _answer(outbox, (READY, ""))
    while (job := jobs.get()) is not None:
        _answer(outbox, task.outcome(pickle.loads(job)))


def _answer(outbox: Any, message: Any) -> None:
    pickle.dump(message, outbox)
    outbox.flush()
