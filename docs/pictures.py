"""Run the commands of the map of the lectures and draw their pictures into build/pictures, for the next build of the site.

    python docs/pictures.py [TOPIC ...]     all in an hour on two cores; one that is there already is left

A command that fails is named at the end, and is the exit code.
"""

import io
import os
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

from PIL import Image

from probgen.cli import lectures, main

OUT = Path(__file__).parent.parent / "build" / "pictures"
WIDTH = 640  # pixels


def draw(name: str, topic: lectures.Topic) -> None:
    """Run one topic's command in a folder of its own and keep its picture."""
    out = re.search(r"--out (\S+)", topic.command)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if main([*topic.command.split()[1:], *(["--no-progress"] if out else [])]) > 1:
            raise RuntimeError("the command failed")
        if out is None:
            return
        if main(["plot", out.group(1), *([topic.picture] if topic.picture else []), "-o", "picture.png"]):
            raise RuntimeError("there is no picture")
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{name}.png").write_bytes(small(Path("picture.png")))


def small(path: Path) -> bytes:
    """A picture at the page's width, in 64 colours."""
    image = Image.open(path).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def run(names: list[str]) -> int:
    """Draw them; the number of topics whose command failed."""
    failed = []
    for name, topic in lectures.topics().items():
        if not topic.command or (name not in names if names else (OUT / f"{name}.png").exists()):
            continue
        began = time.perf_counter()
        try:
            draw(name, topic)
        except Exception:
            failed.append(name)
            traceback.print_exc()
        print(f"---- {name}: {time.perf_counter() - began:.0f} s", flush=True)
    print(f"failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
