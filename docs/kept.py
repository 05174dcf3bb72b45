"""What a build of the site makes by running things, kept in build/made until its source changes.

build/made/NAME/made.json    what is told of it, the key of its source, and of the package that made it
build/made/NAME/*.png        its pictures
"""

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MADE = ROOT / "build" / "made"
NOTE = "made.json"


def digest(*texts: str) -> str:
    """Of what a thing is made of."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


@functools.cache
def package() -> str:
    """Of every file of the package: where it is another, what is kept was made by an older one, and the page says so."""
    files = [p for folder in ("probgen", "models", "inference") for p in sorted((ROOT / folder).rglob("*.py"))]
    return digest(*(path.read_text() for path in files))


def found(name: str, key: str) -> dict[str, Any] | None:
    """What is told of a thing, where it was made of this source; `older`: by a package that has changed since."""
    try:
        told = json.loads((MADE / name / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return told | {"older": told["package"] != package()} if told.get("key") == key else None


def make(name: str, key: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Make a thing anew: `work` writes its pictures into a folder and tells what there is to tell."""
    scratch = MADE / f"{name}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    began = time.perf_counter()
    told = work(scratch) | {"key": key, "package": package(), "seconds": time.perf_counter() - began}
    (scratch / NOTE).write_text(json.dumps(told, indent=1))
    shutil.rmtree(MADE / name, ignore_errors=True)
    scratch.rename(MADE / name)
    return told


def pictures(name: str) -> list[Path]:
    """In the order in which they were drawn."""
    return sorted((MADE / name).glob("*.png"))
