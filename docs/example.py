"""Run one example as a script and keep what it prints and draws: python docs/example.py EXAMPLE FOLDER"""

import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def run(path: Path, folder: Path) -> None:
    """Every figure that the example saves goes into the folder too; a last fit is drawn where it saves none."""
    mpl.use("agg")
    save, drawn = Figure.savefig, []

    def keep(figure: Any, *given: Any, **keywords: Any) -> None:
        save(figure, *given, **keywords)
        if not isinstance(given[0], str | Path):  # a picture of a report
            return
        drawn.append(figure)
        save(figure, folder / f"{len(drawn)}.png", dpi=100, facecolor="white")

    Figure.savefig = keep
    sys.argv = [str(path)]
    found = runpy.run_path(str(path), run_name="__main__")
    if not drawn and (fits := [value for value in found.values() if hasattr(value, "diagnose")]):
        save(fits[-1].plot(), folder / "1.png", dpi=100, facecolor="white")


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
