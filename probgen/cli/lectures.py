"""The lectures that the collection follows, topic by topic; what is said of each stands in lectures.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Topic:
    """One topic.

    part: the page of the map that it stands on. models, algorithms: words of the catalogue; none where the collection has nothing.
    command: what to type. picture: of `probgen plot`; "" for what tells most of such a fit. seen: what is seen in it.
    oracle: what holds it in the tests. trouble: what goes wrong, and how that is seen.
    """

    part: str
    title: str
    models: tuple[str, ...]
    algorithms: tuple[str, ...]
    trouble: str
    command: str = ""
    oracle: str = ""
    picture: str = ""
    seen: str = ""


@dataclass(frozen=True)
class Lecture:
    """One lecture: its title and the names of its topics, in order."""

    title: str
    topics: tuple[str, ...]


@functools.cache
def _read() -> Mapping[str, Any]:
    return tomllib.loads((Path(__file__).parent / "lectures.toml").read_text(encoding="utf-8"))


def parts() -> dict[str, str]:
    """Titles of the map's pages, by name."""
    return dict(_read()["parts"])


def topics() -> dict[str, Topic]:
    """All topics, by name."""
    return {name: Topic(**_tuples(told)) for name, told in _read()["topics"].items()}


def lectures() -> dict[str, Lecture]:
    """All lectures, by name."""
    return {name: Lecture(**_tuples(told)) for name, told in _read()["lectures"].items()}


def of(lecture: str) -> list[Topic]:
    """The topics of a lecture, in order; ValueError, with the known names, for another."""
    from probgen.algorithm import closest

    known = lectures()
    if lecture not in known:
        raise ValueError(f"Unknown lecture {lecture!r}.{closest(lecture, known)}\nKnown: {', '.join(known)}.")
    every = topics()
    return [every[name] for name in known[lecture].topics]


def _tuples(told: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
