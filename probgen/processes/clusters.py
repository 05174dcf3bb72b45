"""Jobs on dask.distributed: a task there drives a worker process of its machine, as it is done on this one.

The task itself goes through the folder of the runs, which all machines share: what dask holds for a worker is lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import uuid
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from probgen.processes.crews import Crew, Unreadable
from probgen.processes.outcomes import DIED, Job, Outcome

_crews: dict[str, Crew] = {}  # of this process, by the call that they work for


def check(client: Any) -> None:
    """TypeError for what is no client of dask.distributed that waits for its results."""
    if not all(callable(getattr(client, word, None)) for word in ("submit", "run", "cancel")):
        raise TypeError(f"client is a {type(client).__name__}; expected a dask.distributed.Client.")
    if getattr(client, "asynchronous", False):
        raise TypeError("client is asynchronous; expected a dask.distributed.Client that waits for its results.")


def on_dask(
    client: Any, task: bytes, jobs: Mapping[Any, Job], folder: Path, num_threads: int
) -> Generator[tuple[Any, Outcome], None, None]:
    """The outcomes of jobs as they come, by the workers of a client."""
    distributed: Any = importlib.import_module("distributed")
    key = uuid.uuid4().hex[:12]
    file = folder.absolute() / f"task-{key}.pickle"
    file.write_bytes(task)
    whose: dict[Any, Any] = {}
    try:
        for name, job in jobs.items():
            whose[client.submit(_made, key, str(file), job, num_threads, pure=False)] = name
        for future in distributed.as_completed(list(whose)):
            yield whose[future], _outcome(future)
    finally:
        client.cancel([future for future in whose if not future.done()])
        client.run(_over, key)
        file.unlink(missing_ok=True)


def _outcome(future: Any) -> Outcome:
    """What a task returned; what dask says of one whose workers died."""
    try:
        return future.result()
    except Unreadable:
        raise
    except Exception as error:
        return Outcome(DIED, f"{type(error).__name__}: {error}")


def _made(key: str, file: str, job: Job, num_threads: int) -> Outcome:
    """One job, on a worker of dask."""
    if key not in _crews:
        path = Path(file)
        _crews.setdefault(key, Crew(path.read_bytes(), num_threads, path.parent / "workers.log"))
    return _crews[key].run(job)


async def _over(key: str) -> None:
    """Stop what a call has on a worker of dask, beside its event loop."""
    with contextlib.suppress(KeyError):
        await asyncio.to_thread(_crews.pop(key).stop)
