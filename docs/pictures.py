"""Run one command of the map of the lectures and draw its picture: python docs/pictures.py TOPIC FOLDER

`draw.py` does this for all but those of SLOW, and with --map for these too.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

from probgen.cli import lectures, main

SLOW = (  # more than forty seconds of a processor each
    "conditional_gan", "cycle_gan", "dcgan", "ddpm", "explicit_implicit", "flow_matching", "guidance", "inverse", "masked",
    "pixels", "progressive", "scores", "scores_of_samples", "sequences", "sound", "vae_gan", "vq_vae",
)  # fmt: skip


def topics() -> dict[str, lectures.Topic]:
    """Those whose command makes a run, which has a picture."""
    return {name: topic for name, topic in lectures.topics().items() if " --out " in topic.command}


def source(topic: lectures.Topic) -> str:
    """What a picture is made of."""
    return f"{topic.command}\n{topic.picture}"


def draw(topic: lectures.Topic, folder: Path) -> None:
    """Run the command in a folder of its own and keep its picture."""
    run = re.search(r"--out (\S+)", topic.command)
    assert run is not None
    with tempfile.TemporaryDirectory() as away:
        os.chdir(away)
        if main([*topic.command.split()[1:], "--no-progress"]) > 2:
            raise SystemExit("the command failed")
        if main(["plot", run.group(1), *([topic.picture] if topic.picture else []), "-o", str(folder / "picture.png")]):
            raise SystemExit("there is no picture")


if __name__ == "__main__":
    draw(topics()[sys.argv[1]], Path(sys.argv[2]).resolve())
