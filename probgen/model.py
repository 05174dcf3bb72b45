"""Model: a program and what belongs to it (data, dimension names, oracle)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probgen.data.fixed import is_setting
from probgen.data.inputs import read

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Oracle:
    """What is known exactly about a model, from outside the program; the shared tests hold every model to it.

    kind: "closed form", "quadrature" or "log density" (an independent formula in NumPy/SciPy).
    log_density: `(values, data) -> float`, the joint log density, in nats, of constrained unknowns `values` (one array a
        site) and `data`, up to a constant that depends on neither.
    moments: `data -> {site: (mean, sd)}`, exact posterior moments, where they are known.
    """

    kind: str
    log_density: Callable[[Mapping[str, Any], Data], float]
    moments: Callable[[Data], Mapping[str, tuple[Any, Any]]] | None = None


@dataclass(frozen=True)
class Model:
    """A plain NumPyro or Pyro program with its own data, the names of its dimensions and its oracle.

    program: called with the data as keywords; observed sites are found by tracing it, never by name.
    data: its default data set, or a function that makes it. NumPy arrays are data; Python numbers, strings and None are
        static settings of the program.
    dims: names of the event dimensions of a variable, `{"theta": ["school"]}`.
    coords: labels along the named dimensions, `{"school": ["A", "B", ...]}`.
    oracle: an independent statement of what is right.
    guide: of a program of one row with hidden sites, the program that draws them given the row, for "svi"; called with the same
        keywords, of which it may take fewer. Without one, normals whose means and scales are a network of the row.
    critic: of a program with hidden sites, what judges its points, for learners that want one; called with the data's keywords, of
        which it may take fewer, it returns a logit, (), large for data, and features, (feature,), that points are compared by.
    settings: what suits its learners, by the names of their settings; they count where the learner is given by its name.
    inference: the name of the learner of a fit that names none; by default the best that takes the program.
    rows: the data of the program for an array of rows (row, ...), so that a named data set can be given to it; a program of pairs
        takes several arrays, a conditional one rows and their `label`, which data sets with classes have. A NumPyro program with
        them says one row of its data, a Pyro program a batch of rows.
    by_row: whether a NumPyro program says one row of its data, by default where `rows` or a critic is given. Else it means
        what NumPyro makes of it on the whole data.
    derived: what the program is given besides its data and computes from them, such as the scales of rows: called with the data,
        it returns keywords, which count where the data do not have them.
    begins: of a program with inputs, those of a point that is drawn where nobody says them, such as silence before a sound: called
        with the data, it returns keywords.
    reference: the name of its posterior in posteriordb, where there is one.
    """

    program: Callable[..., Any]
    data: Data | Callable[[], Data] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    oracle: Oracle | None = None
    guide: Callable[..., Any] | None = None
    critic: Callable[..., Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    inference: str | None = None
    rows: Callable[..., Data] | None = None
    by_row: bool | None = None
    derived: Callable[[Data], Data] | None = None
    begins: Callable[[Data], Data] | None = None
    reference: str | None = None

    @property
    def reads_rows(self) -> bool | None:
        """Whether the program says one row of its data; None where nothing is declared."""
        if self.by_row is not None:
            return self.by_row
        return True if self.rows is not None or self.critic is not None else None

    def default_data(self) -> dict[str, Any]:
        """The model's own data set, as a new dictionary."""
        return dict(self.data() if callable(self.data) else self.data)

    def whole(self, data: Any) -> Any:
        """Data with what is derived from them; what is no mapping as it is."""
        if self.derived is None or not isinstance(data, Mapping):
            return data
        return {**self.derived(data), **data}

    @property
    def takes(self) -> tuple[str, ...]:
        """The names of the arrays that `rows` takes."""
        known = inspect.signature(self.rows).parameters.values() if self.rows else ()
        return tuple(p.name for p in known if p.default is p.empty)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The names of the settings by which `rows` makes rows of what it is given, such as `context` of a text.

        `label` is an array that may come with the rows, of data sets with classes: (row,).
        """
        known = inspect.signature(self.rows).parameters.values() if self.rows else ()
        return tuple(p.name for p in known if p.default is not p.empty)

    def named_data(self, *names: Any, **settings: Any) -> dict[str, Any]:
        """The program's data for a named data set, or several, arrays of rows among them; TypeError for a model that learns from
        no rows, or from other arrays; ValueError for a data set without the classes that the model asks for.

        settings: those of `cuts`.
        """
        from probgen.data.values.sounds import is_sound
        from probgen.datasets import CLASSES, is_picture, is_text, labels, load

        what = " and ".join(f"the data set {n!r}" if isinstance(n, str) else "an array" for n in names)
        if self.rows is None:
            return self.given_rows(np.empty(0), what=what)
        if self.reads_rows and (one := [n for n in names if isinstance(n, str) and is_picture(n)]):
            raise TypeError(
                f"{one[0]!r} is one picture, and {self.program.__name__} learns from rows of {' and '.join(self.takes)}; "
                "the model 'texture' takes one."
            )
        if "context" not in self.cuts and (one := [n for n in names if isinstance(n, str) and is_text(n)]):
            raise TypeError(
                f"{one[0]!r} is a text, and {self.program.__name__} learns from rows of numbers; 'transformer' takes a text."
            )
        if self.takes[1:] != ("rate",) and (one := [n for n in names if isinstance(n, str) and is_sound(n)]):
            raise TypeError(
                f"{one[0]!r} is a sound, and {self.program.__name__} learns from {' and '.join(self.takes)}; "
                "the model 'wavenet' takes one."
            )
        found = [load(n) if isinstance(n, str) else n for n in names]
        arrays = [x for each in found for x in (each if isinstance(each, tuple) else (each,))]
        if self.takes[1:] == ("label",) and len(arrays) == 1 and isinstance(names[0], str):
            arrays.append(labels(names[0]))
        if "label" in self.cuts and "label" not in settings and len(names) == 1 and isinstance(names[0], str):
            settings |= {"label": labels(names[0])} if names[0] in CLASSES else {}
        return self.given_rows(*arrays, what=what, **settings)

    def given_rows(self, *arrays: Any, what: str = "an array", **settings: Any) -> dict[str, Any]:
        """The program's data for arrays of rows; TypeError for a model that does not learn from rows, or from so many arrays."""
        if self.rows is None:
            names = [*inspect.signature(self.program).parameters]
            raise TypeError(
                f"{self.program.__name__} does not say how it takes {what}: name it, as in {{{(names or ['x'])[0]!r}: rows}}.\n"
                f"Its arguments: {', '.join(names) or 'none'}. In the shell: a .npz file, or columns of a .csv, of these names."
            )
        if len(arrays) == len(self.takes) + 1 and "label" in self.cuts:
            arrays, settings = arrays[:-1], {**settings, "label": arrays[-1]}
        if len(arrays) != len(self.takes):
            raise TypeError(
                f"{self.program.__name__} learns from rows of {' and '.join(self.takes)}; {what} gives {len(arrays)} of "
                f"{len(self.takes)} arrays.\nPass data=({', '.join(self.takes)}{',' * (len(self.takes) == 1)}), or a mapping."
            )
        made = (x if i and is_setting(x) else _rows(x, "context" in self.cuts) for i, x in enumerate(arrays))
        return dict(self.rows(*made, **settings))

    @property
    def doc(self) -> str:
        """The program's docstring, or that of its file."""
        import sys

        own = inspect.getdoc(self.program)
        module = sys.modules.get(self.program.__module__)
        return own or (inspect.getdoc(module) if module else None) or ""


def _rows(x: Any, texts: bool = False) -> np.ndarray:
    """An array of rows; of a model that takes texts also the characters of one."""
    if texts and isinstance(x, np.ndarray) and x.dtype.kind == "U" and x.size:
        return x
    x = read("rows", x) if np.size(x) else np.asarray(x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"The rows are an array of shape {x.shape}; expected (row, ...), not empty.")
    return x
