"""probgen view: a folder of runs in the browser."""

from __future__ import annotations

import contextlib
import errno
import html
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from probgen.cli.pages import _shown

if TYPE_CHECKING:
    from probgen.view.serving import Server

PORT = 8649  # where none is said


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Ctrl-C ends the block in good order, and so does `kill`, once or more often."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while what was made is removed
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _door(folder: Path, url: str) -> Path:
    """A page of this user's alone that leads to an address: what a browser is started with, every user of the machine can read."""
    door = folder / "open.html"
    door.touch(0o600)
    door.write_text(
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={html.escape(url)}">'
    )
    return door


@dataclass(frozen=True)
class View:
    """Look at a folder of runs in the browser.

    probgen view runs/ --open

    A table of runs with their verdicts, curves while a run goes on, two runs side by side, and the report of each. The page is for
    this machine alone, and changes nothing in the folder. Ctrl-C ends it.
    """

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")] = Path("runs")
    """holds runs, in folders of folders too"""
    port: Annotated[int | None, arg(metavar="PORT")] = None
    """of http://127.0.0.1:PORT/; 0 takes a free one. By default 8649, or a free one where that is taken"""
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """show it in the default browser"""
    token: bool = True
    """let in who knows the printed address; without it, every user of this machine"""

    def run(self) -> int:
        with _ended(), self._server() as server, tempfile.TemporaryDirectory(prefix="probgen-view-") as own:
            print(f"{self.folder}: {server.url}   (Ctrl-C ends it)", flush=True)
            if self.open and not _shown(_door(Path(own), server.url).as_uri() if self.token else server.url):
                print(f"There is no browser to show it in here. Open {server.url} in yours.", file=sys.stderr)
            server.serve_forever()
        print("\nEnded.", file=sys.stderr)
        return 0

    def _server(self) -> Server:
        from probgen.view.serving import Server

        if self.port is not None and not 0 <= self.port < 65536:
            raise ValueError(f"--port is {self.port}; expected 0 to 65535, 0 for a free one.")
        try:
            return Server(self.folder, PORT if self.port is None else self.port, self.token)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if self.port is None:
                return Server(self.folder, 0, self.token)
            raise OSError(
                f"Port {self.port} is taken, or not yours: choose another, or --port 0 for a free one."
            ) from error
