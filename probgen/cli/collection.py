"""probgen list, show, matrix: what there is."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import _field_docs, _is_file, _program


@dataclass(frozen=True)
class List:
    """List the models and the algorithms, or the data sets, one line each.

    probgen list --lecture energies
    """

    data: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """the data sets that --data of other commands takes by name"""
    lecture: str | None = None
    """the topics of a lecture, each with its models, algorithms and a command: zoo_1, zoo_2, generative_models,
    deep_generative_models or energies"""

    def run(self) -> int:
        from probgen import catalog

        if self.data:
            print(_data_sets())
            return 0
        if self.lecture is not None:
            print(_topics(self.lecture))
            return 0
        for title, group in (("Models", "probgen.models"), ("Inference", "probgen.inference")):
            print(f"{title}\n{_listing(catalog.modules(group))}\n")
        print(
            "probgen show NAME tells more of each; probgen matrix, which inference fits which model; probgen list --data, data."
        )
        return 0


def _data_sets() -> str:
    from probgen.data.values.named import sets
    from probgen.datasets import PICTURES

    found = sets()
    width, wide = max(len(s.name) for s in found), max(len(s.shape) for s in found)
    lines = []
    for s in found:
        marks = [word for word, there in (("classes", s.classes), ("held-out rows", s.held_out)) if there]
        lines.append(
            f"  {s.name:{width}}  {s.rows:6,} of {s.shape:{wide}}  {s.told}"
            + (f" ({', '.join(marks)})" if marks else "")
        )
    licences = [
        f"  {text}: {', '.join(s.name for s in found if s.licence == text)}"
        for text in dict.fromkeys(s.licence for s in found)
    ]
    told = "probgen fit MODEL --data NAME learns from one, --data NAME,NAME from two.\n"
    told += f"One picture, for texture: {', '.join(PICTURES)}, or a .png or .jpg file.\n"
    told += "One text, for transformer: a .txt file."
    return "\n".join(["Data", *lines, "", "Licences", *licences, "", told])


def _topics(lecture: str) -> str:
    from probgen.cli import lectures

    lines = [lectures.lectures()[lecture].title] if lecture in lectures.lectures() else []
    for topic in lectures.of(lecture):
        words = " ".join(topic.models) + (f"  by {' '.join(topic.algorithms)}" if topic.algorithms else "")
        lines += [f"  {topic.title}", f"    {words or 'not in the collection'}"]
        lines += [f"    {topic.command}"] if topic.command else []
    return "\n".join([*lines, "", "probgen show NAME tells more of a model or an algorithm."])


def _listing(modules: Mapping[str, str]) -> str:
    lines, folder = [], ""
    width = max(map(len, modules), default=0)
    for word, module in modules.items():
        if (parent := module.partition(":")[0].split(".")[-2:-1] or [module])[0] != folder:
            folder = parent[0]
            lines.append(f"  {folder}/")
        lines.append(f"    {word:{width}}  {_first_line(module)}")
    return "\n".join(lines)


def _first_line(module: str) -> str:
    """The first line of a module's docstring, read without importing the module."""
    import ast
    import importlib.util

    spec = importlib.util.find_spec(module.partition(":")[0])
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) if spec and spec.origin else None
    return (doc or "").partition("\n")[0]


@dataclass(frozen=True)
class Show:
    """Show a model (docstring, data, source, which algorithms fit) or an algorithm (docstring, settings).

    probgen show rbm
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """a model or an algorithm of `probgen list`, or file.py:function"""

    def run(self) -> int:
        from probgen import catalog
        from probgen.algorithm import closest

        models, algorithms = catalog.modules("probgen.models"), catalog.modules("probgen.inference")
        shown = []
        if self.name in models or _is_file(self.name):
            shown.append(_about_model(self.name))
        if self.name in algorithms:
            shown.append(_about_algorithm(self.name))
        if not shown:
            hint = closest(self.name, {**models, **algorithms})
            raise ValueError(f"Unknown model or algorithm {self.name!r}.{hint}\n`probgen list` shows all.")
        print("\n\n".join(shown))
        return 0


def _about_model(word: str) -> str:
    import numpy as np

    from probgen import catalog
    from probgen.model import Model
    from probgen.run import conditioned, suggestions

    program = _program(word)
    found = catalog.model(program) if isinstance(program, str) else program
    model = found if isinstance(found, Model) else Model(found)
    parts = [p for p in (model.program, model.guide, model.critic) if p is not None]
    about = "\n\n\n".join([f"{model.doc}\n", *(_source(part) for part in parts)])
    if model.settings:
        about += f"\n\nSettings that suit it, of learners by name:\n{_lines([f'  {k} = {v!r}' for k, v in model.settings.items()])}"
    data = model.default_data()
    if not data and _is_file(word):
        return about
    _, target = conditioned(program, data)
    shapes = [f"  {k}: {f'{v.dtype} {v.shape}' if isinstance(v, np.ndarray) else repr(v)}" for k, v in data.items()]
    sites = [f"  {site.name}: {site.kind} {site.shape}" for site in target.sites]
    names = ", ".join(suggestions.working(target)) or "none"
    return (
        f"{about}\n\nData:\n{_lines(shapes)}\nSites:\n{_lines(sites)}\n"
        f"Engine: {target.engine}. Offers: {target.offers}.\nInference that fits, best first: {names}."
    )


def _source(program: Any) -> str:
    import inspect

    try:
        return inspect.getsource(program).rstrip()
    except (OSError, TypeError):
        return f"# {getattr(program, '__name__', type(program).__name__)}: its source is not in a file"


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) or "  none"


def _wrapped(names: Sequence[str], indent: str) -> str:
    return textwrap.fill(", ".join(names), 110, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _about_algorithm(word: str) -> str:
    import inspect

    from probgen import catalog

    kind = catalog.algorithm(word)
    about = inspect.getdoc(sys.modules[kind.__module__]) or inspect.getdoc(kind) or ""
    documented = _field_docs(kind)
    settings = []
    for f in fields(kind):
        default = "required" if (value := _default(f)) is MISSING else repr(value)
        settings.append(f"  {f.name} = {default}" + (f"\n      {documented[f.name]}" if f.name in documented else ""))
    bias = f"\nBias: {kind.bias}" if kind.bias else ""
    return (
        f"{about}\n\nSettings of {kind.__name__}:\n{_lines(settings)}\n"
        f"Needs a {kind.needs.offers} target. Engines: {', '.join(kind.engines)}.{bias}"
    )


@dataclass(frozen=True)
class Matrix:
    """Print which inference fits which models, models of the same algorithms together: derived from the types, or found by asking.

    probgen matrix --engine pyro

    pg.matrix() is the same as a table of models by algorithms.
    """

    engine: Literal["numpyro", "pyro"] | None = None
    """only the programs of one engine"""
    tried: bool = False
    """ask every algorithm to take every model: seconds a model, and no mark that a fit would refuse"""

    def run(self) -> int:
        from probgen.run import offers

        if sys.stderr.isatty():
            print("Every model is looked at: this takes a minute.", file=sys.stderr)
        table = offers.matrix(self.engine, tried=self.tried)
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, row in zip(table.model.values, table.values, strict=True):
            alike.setdefault(tuple(map(str, table.inference.values[row])), []).append(str(name))
        for words, models in sorted(alike.items(), key=lambda pair: -len(pair[1])):
            print(_wrapped(models, "") + ":\n" + (_wrapped(words, "    ") or "    none") + "\n")
        if not self.tried:
            print(
                "By type: an algorithm may still refuse what it finds in a program. --tried asks each, seconds a model."
            )
        if left_out := table.attrs["left_out"]:
            print(f"\nLeft out, for they need torch and pyro-ppl (pip install 'probgen[pyro]'): {', '.join(left_out)}.")
        return 0


def _default(f: Any) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()
