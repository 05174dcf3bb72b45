"""Where in the user's own code an error arose."""

from __future__ import annotations

import linecache
import traceback

from probgen.programs.contents import is_library


def place_of(error: BaseException) -> str:
    """The innermost line of the user's own that an error passed, as the end of a sentence; empty where there is none."""
    own = [
        (f, line) for f, line in traceback.walk_tb(error.__traceback__) if not is_library(f.f_globals.get("__name__"))
    ]
    if not own:
        return ""
    frame, number = own[-1]
    file = frame.f_code.co_filename
    return f", at line {number} of {file.rpartition('/')[2]}: {linecache.getline(file, number).strip()[:80]}"
