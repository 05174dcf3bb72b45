"""Arguments of any kind: what a program takes, told apart into named data, and put together again when it is called.

A program that takes arrays and settings by name is left as it is. For any other (containers of arrays, positional arguments), the
leaves become data with names such as `batch.x` or `args[0]`, and `Arranged` puts them back in their places.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probgen.data.fixed import Fixed, is_setting, plain
from probgen.data.inputs import is_numbers
from probgen.programs.autoguides import is_auto, unwrapped

Node = tuple  # ("leaf", name) | ("dict" | "list" | "tuple", items) | ("object", class, items)
VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the leaves stand: of positional arguments in order, and of keywords by name."""

    args: tuple[Node, ...] = ()
    kwargs: tuple[tuple[str, Node], ...] = ()

    @property
    def is_flat(self) -> bool:
        """Whether every argument is a leaf, given by the keyword of its name."""
        return not self.args and all(node == ("leaf", name) for name, node in self.kwargs)

    @property
    def leaves(self) -> list[str]:
        """The names of all leaves."""
        return [name for node in (*self.args, *(n for _, n in self.kwargs)) for name in _leaves(node)]


class Arranged:
    """A program that is called with leaves by name, and calls the user's with the arguments that they make up."""

    def __init__(self, program: Callable[..., Any], layout: Layout):
        self.program, self.layout = program, layout
        for word in ("__name__", "__qualname__", "__doc__", "__module__"):
            if isinstance(found := getattr(program, word, None), str):
                setattr(self, word, found)
        self.__wrapped__ = program
        self.__signature__ = _signature(program, layout)

    def __call__(self, **leaves: Any) -> Any:
        args = [_built(node, leaves) for node in self.layout.args]
        kwargs = {k: _built(node, leaves) for k, node in self.layout.kwargs if _is_there(node, leaves)}
        return self.program(*args, **kwargs)

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return getattr(self.program, "base", self.program)

    def held(self, hold: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Arranged:
        """The same of a program that is held to what it reads; one object for one program and layout."""
        return arranged(hold(self.program), self.layout)

    def given(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their names in the user's program as leaves; leaves as they are."""
        places = {
            **dict(self.layout.kwargs),
            **{_positional(self.program, i): n for i, n in enumerate(self.layout.args)},
        }
        found: dict[str, Any] = {}
        for name, value in data.items():
            if name in places and places[name][0] != "leaf":
                node, leaves = flattened(name, value)
                if node != places[name]:
                    raise ValueError(
                        f"Data {name!r} has another form than the fit's: {_told(node)}, not {_told(places[name])}."
                    )
                found |= leaves
            else:
                found[places[name][1] if name in places else name] = value
        return found


_found: OrderedDict[Any, Arranged] = OrderedDict()


def arranged(program: Callable[..., Any], layout: Layout) -> Arranged:
    """The program with a layout: the same object for the same two."""
    key = (id(program), layout)
    if key not in _found or _found[key].program is not program:
        _found[key] = Arranged(program, layout)
    _found.move_to_end(key)
    while len(_found) > 64:
        _found.popitem(last=False)
    return _found[key]


def taken_apart(
    program: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The program of named leaves, and the leaves; the program itself where its arguments are such already.

    Raises TypeError where the arguments do not fit the program's parameters.
    """
    if not isinstance(kwargs, Mapping):
        raise TypeError(
            f"kwargs is a {type(kwargs).__name__}; expected a mapping from the program's parameters to values."
        )
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise TypeError(f"args is a {type(args).__name__}; expected a tuple of the program's positional arguments.")
    placed, named = _by_name(program, list(args), dict(kwargs))
    data: dict[str, Any] = {}

    def node(name: str, value: Any) -> Node:
        found, leaves = flattened(name, value)
        data.update(leaves)
        return found

    positional = tuple(node(_positional(program, i), v) for i, v in enumerate(placed))
    layout = Layout(positional, tuple((k, node(k, v)) for k, v in named.items()))
    return (program if layout.is_flat else arranged(program, layout)), data


def decorated(program: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPyro handler that was written as a decorator, `@handlers.reparam(config=...)`, with the signature of its program.

    The library gives it that where the program is passed to the handler, and forgets it here.
    """
    inner = getattr(program, "fn", None)
    if type(program).__module__.startswith("numpyro.") and callable(inner) and not hasattr(program, "__wrapped__"):
        functools.update_wrapper(program, decorated(inner), updated=[])
    return program


def _parameters(program: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(program).parameters.values())
    except (TypeError, ValueError):
        return []


def _by_name(program: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional arguments by the names of their parameters, where these have names to be called by."""
    parameters = _parameters(program)
    only = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    given = {p.name: kwargs.pop(p.name) for p in only if p.name in kwargs}
    if given and not args:  # data by name, of parameters without one
        args = [given.get(p.name, p.default) for p in only]
        while only and args and only[len(args) - 1].name not in given:
            args.pop()
        if missing := [p.name for p, v in zip(only, args, strict=False) if v is p.empty]:
            raise TypeError(f"Missing data: {', '.join(missing)}.")
    if not args:
        return [], kwargs
    label = getattr(program, "__name__", "the program")
    if parameters:
        try:
            inspect.signature(program).bind_partial(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"The arguments do not fit {label}{inspect.signature(program)}: {error}.") from None
    if not parameters or any(p.kind in POSITIONAL for p in parameters):
        return args, kwargs
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return [], {**dict(zip(names, args, strict=False)), **kwargs}


def _positional(program: Callable[..., Any], index: int) -> str:
    """The name of a positional argument: its parameter's, or its place among the others."""
    parameters = [p for p in _parameters(program) if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if index < len(parameters) and parameters[index].kind not in (inspect.Parameter.VAR_POSITIONAL, VAR_KEYWORD):
        return parameters[index].name
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    before = sum(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    return f"{rest}[{index - before}]"


def flattened(name: str, value: Any) -> tuple[Node, dict[str, Any]]:
    """A value's form and its leaves by name: entries of `opts` are `opts.scale`, of lists `opts[0]`."""
    parts = _parts(value)
    if parts is None:
        return ("leaf", name), {name: value if _is_leaf(value) else Fixed(value)}
    kind, items, word = parts
    nodes, leaves = [], {}
    for key, item in items:
        node, found = flattened(word.format(name, key), item)
        nodes.append((key, node))
        leaves |= found
    return (*kind, tuple(nodes)), leaves


def _parts(value: Any) -> tuple[tuple, list[tuple[Any, Any]], str] | None:
    """The entries of a container of arrays; None for what is one thing."""
    kind = type(value)
    if kind is dict or kind is OrderedDict:
        return ("dict",), list(value.items()), "{}.{}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        record: Any = value
        return ("object", kind), list(zip(record._fields, record, strict=True)), "{}.{}"
    if kind in (list, tuple) and any(map(_has_arrays, value)) and not (kind is list and is_numbers(value)):
        return (kind.__name__,), list(enumerate(value)), "{}[{}]"
    if _is_record(value):
        return ("object", kind), list(vars(value).items()), "{}.{}"
    if kind is types.SimpleNamespace:
        return ("object", kind), list(vars(value).items()), "{}.{}"
    return None


def _is_record(value: Any) -> bool:
    """Whether a value is a dataclass of arrays that its fields make again."""
    held = getattr(value, "__dict__", {})
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or not any(map(_has_arrays, held.values())):
        return False
    try:
        again = type(value)(**held)
    except Exception:
        return False
    return vars(again).keys() == held.keys() and all(vars(again)[k] is v for k, v in held.items())


def _has_arrays(value: Any) -> bool:
    """Whether there is an array in a value, or in a container of it."""
    if _parts(value) is not None:
        return True
    return hasattr(value, "__array__") and not np.isscalar(value) and not isinstance(value, np.generic)


def _is_leaf(value: Any) -> bool:
    """Whether a value is a setting, or an array of any library, or a list of numbers; else the program gets it as it is."""
    if value is None or is_setting(value) or isinstance(value, np.generic):
        return True
    frame = type(value).__name__ in ("DataFrame", "Dataset", "DataTree") or isinstance(value, str | type)
    if frame or (callable(value) and not hasattr(value, "__array__")):
        return False
    if type(value).__module__.startswith(("numpy", "torch", "jax", "pandas", "xarray", "scipy")):
        return not type(value).__module__.startswith(("torch.nn", "jax._src.random"))
    return hasattr(value, "__array__") or isinstance(value, list | tuple)


def _leaves(node: Node) -> Iterator[str]:
    if node[0] == "leaf":
        yield node[1]
    else:
        for _, inner in node[-1]:
            yield from _leaves(inner)


def _is_there(node: Node, leaves: Mapping[str, Any]) -> bool:
    return node[0] != "leaf" or node[1] in leaves


def _built(node: Node, leaves: Mapping[str, Any]) -> Any:
    """The argument that leaves make up."""
    if node[0] == "leaf":
        return plain(leaves.get(node[1]))
    items = {key: _built(inner, leaves) for key, inner in node[-1]}
    if node[0] == "object":
        return node[1](**items)
    return items if node[0] == "dict" else {"list": list, "tuple": tuple}[node[0]](items.values())


def _told(node: Node) -> str:
    return f"{node[1].__name__ if node[0] == 'object' else node[0]} of {', '.join(_leaves(node))}"


def _signature(program: Callable[..., Any], layout: Layout) -> inspect.Signature:
    """Of the leaves: those that are whole parameters, with their defaults, and whatever else there is."""
    known = {p.name: p for p in _parameters(program)}
    whole = [name for name, node in layout.kwargs if node[0] == "leaf" and name in known]
    rest = [
        p
        for p in known.values()
        if p.name not in dict(layout.kwargs) and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    rest = rest[len([p for p in rest if p.kind is p.POSITIONAL_OR_KEYWORD][: len(layout.args)]) :]
    own = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=known[k].default) for k in whole]
    own += [p.replace(kind=p.KEYWORD_ONLY) for p in rest]
    return inspect.Signature([*own, inspect.Parameter("leaves", inspect.Parameter.VAR_KEYWORD)])


def alike(guide: Callable[..., Any] | None, program: Callable[..., Any]) -> Callable[..., Any] | None:
    """A guide of an arranged program, called with the same arguments: by place, or those of its parameters' names."""
    if (
        guide is None
        or not isinstance(program, Arranged)
        or isinstance(guide, Arranged)
        or is_auto(unwrapped(guide)[0])
    ):
        return guide
    parameters = _parameters(guide)
    if any(p.kind is p.VAR_KEYWORD for p in parameters) or not parameters:
        return arranged(guide, program.layout)
    names = {p.name for p in parameters}
    return arranged(guide, Layout(program.layout.args, tuple((k, n) for k, n in program.layout.kwargs if k in names)))


# ---- on disk -------------------------------------------------------------------------------------------------------


def written(layout: Layout) -> dict[str, Any]:
    """A layout as JSON."""
    return {"args": [_written(n) for n in layout.args], "kwargs": [[k, _written(n)] for k, n in layout.kwargs]}


def _written(node: Node) -> list[Any]:
    if node[0] == "leaf":
        return list(node)
    head = ["object", f"{node[1].__module__}:{node[1].__qualname__}"] if node[0] == "object" else [node[0]]
    return [*head, [[key, _written(inner)] for key, inner in node[-1]]]


def read(record: Mapping[str, Any]) -> Layout:
    """The layout of JSON. LookupError for a class that cannot be imported again."""
    return Layout(tuple(_read(n) for n in record["args"]), tuple((k, _read(n)) for k, n in record["kwargs"]))


def _read(node: list[Any]) -> Node:
    if node[0] == "leaf":
        return tuple(node)
    head: tuple = (node[0],)
    if node[0] == "object":
        module, _, name = node[1].partition(":")
        try:
            head = ("object", functools.reduce(getattr, name.split("."), importlib.import_module(module)))
        except (ImportError, AttributeError) as error:
            raise LookupError(f"The class {node[1]} of the data cannot be imported again ({error}).") from error
    return (*head, tuple((key, _read(inner)) for key, inner in node[-1]))


def laid_out(guide: Any, program: Any) -> Any:
    """An automatic guide of the user's program, called as what an engine has made of that is: with leaves by name, where it is."""
    for _ in range(8):
        if isinstance(program, Arranged):
            return Arranged(guide, program.layout)
        program = getattr(program, "program", None)
    return guide
