"""Run the examples, and the fits of the pictures of "Read a verdict" and of the map, for the next build of the site.

    python docs/draw.py [--fresh] [--map] [--jobs 2] [NAME ...]

What has not changed since it was run last is left; --fresh runs it anew. Of the map the quick ones are drawn, with --map all.
NAME is a part of a name: `python docs/draw.py map-bayes`.

What fails is named at the end, and is the exit code. `make docs` does this.
"""

import argparse
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import kept  # noqa: E402
import pictures  # noqa: E402
from good_and_bad import CHECKS  # noqa: E402

WIDTH, COLOURS = 560, 128  # of a picture of the site
LINES = 60  # of what an example printed, at most
LONGEST = 1800  # seconds of one


def examples() -> dict[str, Path]:
    """Every example, by the name under which it is kept."""
    return {f"example-{path.stem}": path for path in sorted((DOCS.parent / "examples").glob("*.py"))}


@functools.cache
def checks() -> dict[str, str]:
    """The pictures of "Read a verdict", and of what they are made: to read the source of a function takes a while."""
    return {f"check-{name}": kept.digest(check.source()) for name, check in CHECKS.items()}


def sources() -> dict[str, str]:
    """What is made, and of what."""
    of_the_map = {f"map-{name}": kept.digest(pictures.source(topic)) for name, topic in pictures.topics().items()}
    return checks() | of_the_map | {name: kept.digest(path.read_text()) for name, path in examples().items()}


def asked(name: str, words: list[str], whole_map: bool) -> bool:
    """Whether a thing is to be made: all but the slow ones of the map, or those whose names have one of the words."""
    if words:
        return any(word in name for word in words)
    return whole_map or name.removeprefix("map-") not in pictures.SLOW


def work(name: str, folder: Path) -> dict[str, Any]:
    """Make one thing in a process of its own; what is told of it."""
    kind, _, own = name.partition("-")
    script = {"example": "example.py", "check": "good_and_bad.py", "map": "pictures.py"}[kind]
    words = [DOCS / script, examples().get(name, own), folder]
    environment = os.environ | {
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    with (
        tempfile.TemporaryDirectory() as away,
        open(folder / "said", "w+") as said,
        open(folder / "wrong", "w+") as wrong,
    ):
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=away, env=environment, stdout=said, stderr=wrong
        )  # fmt: skip
        late = threading.Timer(LONGEST, process.kill)
        late.start()
        _, status, used = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        printed, failed = (Path(file.name).read_text() for file in (said, wrong))
    (folder / "said").unlink()
    (folder / "wrong").unlink()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}. {failed[-2000:]}")
    for picture in folder.glob("*.png"):
        picture.write_bytes(small(picture))
    told = folder / "told.json"
    made = json.loads(told.read_text()) if told.exists() else {"printed": shown(printed)}
    return made | {"cpu": used.ru_utime + used.ru_stime}


def shown(text: str) -> str:
    """What was printed, without what is of this machine alone, and not all of it where it is long."""
    lines = [line.rstrip() for line in text.strip().splitlines() if tempfile.gettempdir() not in line]
    return "\n".join([*lines[:LINES], *([f"... {len(lines) - LINES} lines more"] if len(lines) > LINES else [])])


def small(path: Path) -> bytes:
    """A picture at the page's width, in few colours."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def main(names: list[str], fresh: bool, whole_map: bool = False, jobs: int = 2) -> int:
    """Make what is not there, so many at a time; the number of things that failed."""
    wanted = {name: key for name, key in sources().items() if asked(name, names, whole_map)}
    if not wanted:
        print(f"Nothing is called {' or '.join(names)}. Known: {', '.join(sources())}", file=sys.stderr)
        return 1
    wanted = {name: key for name, key in wanted.items() if fresh or not kept.found(name, key)}
    began, failed, computed = time.perf_counter(), [], 0.0
    pool = ThreadPoolExecutor(jobs)
    try:
        made = {pool.submit(kept.make, n, key, functools.partial(work, n)): n for n, key in wanted.items()}
        for job in as_completed(made):
            try:
                told = job.result()
            except Exception as error:
                failed.append(made[job])
                print(f"{made[job]} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            else:
                computed += told["cpu"]
                print(f"{made[job]}: {told['seconds']:.0f} s, {told['cpu']:.0f} s of CPU", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    seconds = f"{time.perf_counter() - began:.0f} s in all, {computed:.0f} s of CPU"
    print(f"{len(wanted) - len(failed)} run, {seconds}; failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--map", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    given = parser.parse_args()
    sys.exit(main(given.names, given.fresh, given.map, given.jobs))
