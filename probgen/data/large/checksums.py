"""A checksum in a file of arrays: it tells damage that leaves the form of the file as it is, a flipped bit or a tail of zeros."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

BLANK = "0" * 8  # where the checksum goes: it is taken of the file with this in its place
MARK = re.compile(rb'(?<="crc32":")[0-9a-f]{8}(?=")')


def written(arrays: Mapping[str, np.ndarray], note: Mapping[str, str] | None = None) -> bytes:
    """Arrays and a note as safetensors, with their CRC-32 (ISO 3309) in the header."""
    content = save(dict(arrays), {**(note or {}), "crc32": BLANK})
    at = content.index(f'"crc32":"{BLANK}"'.encode()) + len('"crc32":"')
    return b"".join((content[:at], f"{zlib.crc32(content):08x}".encode(), content[at + len(BLANK) :]))


def check(path: str | os.PathLike[str]) -> None:
    """Raise ValueError where a file's checksum is not that of what it holds; files of older versions have none."""
    with open(path, "rb") as file:
        size = file.read(8)
        header = file.read(min(int.from_bytes(size, "little"), Path(path).stat().st_size))
        found = MARK.search(header)
        if found is None:
            return
        now = zlib.crc32(MARK.sub(BLANK.encode(), header), zlib.crc32(size))
        while piece := file.read(2**20):
            now = zlib.crc32(piece, now)
    if now != int(found[0], 16):
        raise ValueError("its checksum is not that of what it holds")
