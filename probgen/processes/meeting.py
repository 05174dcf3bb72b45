"""Where processes meet before JAX connects them: all are there, each once, and all count to the same number.

JAX ends a process that cannot reach the coordinator, with a trace of C++; so it is found out here first, over a plain connection
to the same port, within a time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

LINE = 4096  # bytes of a message, at most
STRANGER = 5.0  # seconds in which whoever connects must say who it is
AGAIN = 0.1  # seconds between two attempts to connect


def address(coordinator: str) -> tuple[str, int]:
    """Host and port; ValueError for anything else."""
    host, _, port = str(coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"coordinator is {coordinator!r}; expected HOST:PORT, such as '127.0.0.1:1234'.")
    return host.strip("[]"), int(port)


def meet(host: str, port: int, num: int, index: int, patience: float) -> None:
    """Return when all are there; raises ConnectionError, or ValueError where they do not go together."""
    if num == 1:
        return
    deadline = time.monotonic() + patience
    if index == 0:
        with _listening(port) as server:
            _host(server, num, deadline, f"port {port}")
    else:
        _guest(host, port, num, index, deadline)


# ---- the first process -------------------------------------------------------------------------------------------------


def _listening(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is taken by another program" if error.errno == errno.EADDRINUSE else "is not this user's to take"
            raise ConnectionError(f"Port {port} of this machine {why}: choose another for coordinator.") from error
        raise


def _host(server: socket.socket, num: int, deadline: float, where: str) -> None:
    """Wait for the others, then let all of them go on; where they do not go together, tell all of them why."""
    guests: dict[int, socket.socket] = {}
    try:
        while len(guests) < num - 1:
            left = deadline - time.monotonic()
            missing = ", ".join(str(i) for i in range(1, num) if i not in guests)
            if left <= 0:
                raise ConnectionError(f"Process {missing} of {num} did not come to {where} in time. Was it started?")
            server.settimeout(min(left, 1.0))
            with contextlib.suppress(TimeoutError):
                _welcome(server.accept()[0], guests, num)
            for i in [i for i, guest in guests.items() if _gone(guest)]:
                guests.pop(i).close()  # it may be started again
        _tell(guests, {"go": True})
    except BaseException as error:
        _tell(guests, {"error": str(error) or type(error).__name__})
        raise
    finally:
        for guest in guests.values():
            guest.close()


def _welcome(guest: socket.socket, guests: dict[int, socket.socket], num: int) -> None:
    """Take in one that connects; whoever is none of ours is sent away."""
    said = _read(guest, STRANGER)
    index = said.get("process_id")
    if not isinstance(index, int) or "num_processes" not in said:
        guest.close()
        return
    why = ""
    if said["num_processes"] != num:
        why = f"Process {index} counts {said['num_processes']} processes, process 0 counts {num}: say the same num_processes."
    elif index in guests or not 0 < index < num:
        why = f"Two processes have process_id {index}: each needs a number of its own, from 0."
    guests[-1 if why else index] = guest
    if why:
        raise ValueError(why)


def _gone(guest: socket.socket) -> bool:
    """Whether one that waits has ended: nothing is to be read of it before."""
    guest.setblocking(False)
    try:
        return not guest.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _tell(guests: Mapping[int, socket.socket], what: Mapping[str, Any]) -> None:
    for guest in guests.values():
        with contextlib.suppress(OSError):
            guest.settimeout(STRANGER)
            guest.sendall(json.dumps(what).encode()[: LINE - 1] + b"\n")


# ---- the others --------------------------------------------------------------------------------------------------------


def _guest(host: str, port: int, num: int, index: int, deadline: float) -> None:
    """Knock until the first process opens, then wait until it lets all go on."""
    where, why = f"{host}:{port}", ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), min(left, 5.0)) as door:
                door.sendall(json.dumps({"process_id": index, "num_processes": num}).encode() + b"\n")
                said = _read(door, max(0.1, deadline - time.monotonic()))
        except socket.gaierror as error:
            raise ConnectionError(f"coordinator: the host {host!r} is not known ({error}).") from error
        except OSError as error:
            said, why = {}, str(error)
        if said.get("go"):
            return
        if "error" in said:
            raise ConnectionError(f"Process 0 at {where} cannot go on: {said['error']}")
        time.sleep(AGAIN)
    raise ConnectionError(
        f"No coordinator at {where} in time{f' ({why})' if why else ''}: process 0 must be started with the same coordinator, "
        f"and its port be open to this machine; or all {num} processes had come already, one of them as process {index} too."
    )


def _read(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """One line of JSON; nothing where there is none in time."""
    deadline, said = time.monotonic() + seconds, b""
    with contextlib.suppress(OSError, ValueError):
        while not said.endswith(b"\n") and len(said) < LINE and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            part = connection.recv(LINE)
            if not part:
                break
            said += part
        found = json.loads(said)
        return found if isinstance(found, dict) else {}
    return {}
