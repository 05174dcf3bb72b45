"""Arrays in files that vanish with them: what is computed of draws that are too many to hold."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def array(shape: tuple[int, ...], dtype: Any, folder: Path | None) -> np.ndarray:
    """An array of zeros in a file without a name, in `folder` where that can be written, else among the system's temporary files.

    Its pages are read where they are looked at, and the system may take them back at any time. OSError where the disk has no room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        except OSError:  # a folder that is only read
            file = stack.enter_context(tempfile.TemporaryFile())
        try:
            if hasattr(
                os, "posix_fallocate"
            ):  # now, where it can be told: a full disk ends a process that writes to a mapping
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            where = folder or tempfile.gettempdir()
            raise OSError(
                f"{size / 2**30:.1f} GB of scratch for this fit's draws do not fit in {where}: {error}."
            ) from error
        return np.ndarray(shape, dtype, buffer=mmap.mmap(file.fileno(), size))


def release(values: Any) -> None:
    """Lets go of the memory of an array in scratch, which stays in its file; nothing for any other array."""
    while isinstance(values, np.ndarray):
        values = values.base
    if isinstance(values, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.madvise(mmap.MADV_DONTNEED)
