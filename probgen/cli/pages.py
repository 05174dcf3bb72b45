"""probgen plot, report: a run as a picture, or as a page."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import PICTURES, Folder, Output, _check_new


@dataclass(frozen=True)
class Plot:
    """Draw one picture of a run: what tells most of it, or one by its name.

    probgen plot runs/schools pairs --var-names mu tau -o pairs.png
    """

    run_: Folder
    """the run's directory"""
    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None
    """which: pairs, chains, posterior, loss, samples, ...; a name that it does not have is answered with those that it has"""
    var_names: Annotated[tuple[str, ...], arg(metavar="SITE ...")] = ()
    """of draws, which sites, mu, or which numbers of one, theta[3]"""
    out: Output = None
    """the picture (.png, .svg, .pdf); by default NAME.png in the run's directory"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a file that is there already"""
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """show it in the default browser"""

    def run(self) -> int:
        from probgen.run import load

        out = self.out or self.run_ / f"{(self.name or 'plot').strip().lower().replace(' ', '_')}.png"
        if out.suffix not in PICTURES:
            raise ValueError(f"{out} is no picture (.png, .svg, .pdf); say for example -o {out.with_suffix('.png')}")
        _check_new(self.out, self.overwrite)
        load(self.run_).plot(self.name, var_names=self.var_names or None).savefig(out, dpi=150)
        return _told(out, self.open)


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page on a run.

    probgen report runs/schools --open
    """

    run_: Folder
    """the run's directory"""
    out: Output = None
    """the page; by default report.html in the run's directory"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a page that is there already"""
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """show it in the default browser; a page of the run's directory is written anew"""

    def run(self) -> int:
        from probgen.run import load

        out, own = self.out or self.run_ / "report.html", self.out is None and self.open
        _check_new(None if own else out, self.overwrite)
        return _told(load(self.run_).report(out, self.overwrite), self.open)


def _told(path: Path, shown: bool) -> int:
    """Say where a file is, and show it where there is a display."""
    print(path)
    if shown and not _opened(path):
        print(f"There is no browser to show it in here. Open {path.resolve()} in yours.", file=sys.stderr)
    return 0


def _opened(path: Path) -> bool:
    return _shown(path.resolve().as_uri())


def _shown(url: str) -> bool:
    """Whether the default browser took a page; without a display only one that $BROWSER names is asked."""
    import webbrowser

    here = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    return bool(here) and webbrowser.open(url)
