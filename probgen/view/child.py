"""The process that makes a report: python -m probgen.view.child RUN FOLDER PARENT; it ends when its parent does."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path


def main(run: str, folder: str, parent: str) -> int:
    """Write report.html and verdict.json into a folder, or what went wrong into `error`."""
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    out = Path(folder)
    try:
        _make(Path(run), out)
    except BaseException as error:  # a program may do anything, such as leave Python
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        (out / "error").write_text(f"{type(error).__name__}: {text}".strip(), encoding="utf-8")
        return 1
    return 0


def _make(run: Path, out: Path) -> None:
    from probgen.report import page
    from probgen.run import load, verdicts

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a changed program: the verdict's notes say it
        made = page(load(run))
    made.write(out / "report.html")
    (out / "verdict.json").write_text(json.dumps(verdicts.written(made.verdict)))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
