"""Which processes make a fit: this one alone, those that meet at a coordinator, or those that torchrun started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from probgen.processes import torchrun
from probgen.processes.peers import Team, connected


@contextlib.contextmanager
def joined(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Iterator[Team | None]:
    """The processes of one fit, for the time of the block; None where it is of this one alone. See `pg.fit`."""
    team: Team
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise TypeError("num_processes and process_id need coordinator='HOST:PORT', where the processes meet.")
        if not torchrun.started():
            yield None
            return
        team = torchrun.Torchrun()
    else:
        team = connected(coordinator, num_processes, process_id)
    try:
        yield team
    except BaseException as error:
        team.leave(error)
        raise
    team.leave(None)
