"""Names with a slash, as `handlers.scope` makes them: a DataTree and netCDF have none, so there "a/b" is "a.b"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "name_in_program"  # the attribute of a variable that holds its own name


def plain(dataset: Any) -> Any:
    """A Dataset that a DataTree takes: slashes in its names are dots there, or underscores where that name is taken."""
    words = [str(k) for k in (*dataset.variables, *dataset.dims) if "/" in str(k)]
    if not words:
        return dataset
    taken, names = {str(k) for k in (*dataset.variables, *dataset.dims)}, {}
    for word in dict.fromkeys(words):
        names[word] = next(new for new in (word.replace("/", mark) for mark in (".", "_", "__")) if new not in taken)
        taken.add(names[word])
    renamed = dataset.rename(names)
    for word, name in names.items():
        if name in renamed.variables:
            renamed[name].attrs[NAME] = word
    return renamed


def own(dataset: Any) -> Any:
    """The inverse: variables by their names in the program."""
    names = owned(dataset)
    found = dataset.rename(names) if names else dataset
    for name in names.values():
        found[name].attrs.pop(NAME, None)
    return found


def owned(dataset: Any) -> Mapping[str, str]:
    """From names in a DataTree to those in the program, where they differ."""
    return {str(k): v.attrs[NAME] for k, v in dataset.variables.items() if NAME in v.attrs}
