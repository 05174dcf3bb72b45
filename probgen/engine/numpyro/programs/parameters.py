"""Programs with parameters: what they register, and the same programs with parameters as data."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_uniform

from probgen import runtime
from probgen.data.fixed import is_setting, plain
from probgen.engine.numpyro.programs.messengers import Free
from probgen.engine.numpyro.programs.stated import as_reals
from probgen.engine.numpyro.programs.structure import settings


@dataclass(frozen=True)
class Learned:
    """A program whose parameters (`numpyro.param`) are data: a keyword for every array, `W` or `net$params[0]`.

    Parameters with a constraint are given as unconstrained values, through NumPyro's bijection.
    """

    program: Callable[..., Any]
    trees: tuple[tuple[str, Any], ...]  # parameter site and the tree of its value
    constraints: tuple[Any, ...] = field(compare=False)  # of each; they have no hash, and the program decides on them

    def __call__(self, **data: Any) -> Any:
        values = {}
        for (site, tree), constraint in zip(self.trees, self.constraints, strict=True):
            leaves = [biject_to(constraint)(data.pop(label)) for label in labels(site, tree)]
            values[site] = jax.tree.unflatten(tree, leaves)
        return handlers.substitute(self.program, data=values)(**data)

    def constrained(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Labelled arrays of parameters as the program sees them, in its constraints."""
        found = {}
        for (site, tree), constraint in zip(self.trees, self.constraints, strict=True):
            found |= {label: biject_to(constraint)(arrays[label]) for label in labels(site, tree)}
        return found

    def unconstrained(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `constrained`."""
        found = {}
        for (site, tree), constraint in zip(self.trees, self.constraints, strict=True):
            found |= {label: biject_to(constraint).inv(arrays[label]) for label in labels(site, tree)}
        return found

    def at(self, arrays: Mapping[str, Any]) -> Callable[..., Any]:
        """The program with its parameters at labelled arrays, in their constraints."""
        values = {
            site: jax.tree.unflatten(tree, [arrays[label] for label in labels(site, tree)]) for site, tree in self.trees
        }
        return handlers.substitute(self.program, data=values)

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return self.program

    @property
    def parameters(self) -> tuple[str, ...]:
        """The keywords of the parameters' arrays."""
        return tuple(label for site, tree in self.trees for label in labels(site, tree))

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "program")


def labels(site: str, tree: Any) -> list[str]:
    """Names of the arrays of a parameter site's value."""
    one = tree == jax.tree.structure(0)
    return [site] if one else [f"{site}[{i}]" for i in range(tree.num_leaves)]


def initial(program: Callable[..., Any], data: Mapping[str, Any], key: Any) -> dict[str, tuple[Any, Any]]:
    """Every parameter site's initial value and its constraint, the program run once with a key."""
    started = handlers.substitute(handlers.seed(lambda: program(**data), key), substitute_fn=init_to_uniform)
    free = Free()
    with free:
        trace = handlers.trace(started).get_trace()  # started, so that measures without draws do no harm
    sites = {name: trace[name] for name in trace if name in free.names}
    return {
        k: (as_reals(site["value"]), site["kwargs"].get("constraint", constraints.real)) for k, site in sites.items()
    }


@functools.lru_cache(maxsize=64)
def wrapped(program: Callable[..., Any], static: tuple, shapes: tuple) -> Learned:
    """The program with its parameters as data."""
    abstract = {k: jax.ShapeDtypeStruct(shape, dtype) for k, shape, dtype in shapes}
    seen: list[tuple[tuple[str, Any], Any]] = []

    def look(data: Mapping[str, Any]) -> None:
        found = initial(program, {**data, **{k: v for k, v, _ in static}}, jax.random.key(0))
        seen.extend(((site, jax.tree.structure(value)), constraint) for site, (value, constraint) in found.items())

    jax.eval_shape(look, abstract)
    return Learned(program, tuple(tree for tree, _ in seen), tuple(constraint for _, constraint in seen))


def has_parameters(program: Callable[..., Any], data: Mapping[str, Any]) -> bool:
    """Whether the program registers parameters when it is run forward, on the first row of data that it does not take whole."""
    needed = {k for k, p in inspect.signature(program).parameters.items() if p.default is inspect.Parameter.empty}
    arrays = {k: np.asarray(v) for k, v in data.items() if not is_setting(v) and k in needed}
    static = {k: v for k, v in data.items() if is_setting(v)}
    whole = {k: np.asarray(v) for k, v in data.items() if k not in static}
    static = {k: plain(v) for k, v in static.items()}
    rows = {k: v[0] if v.ndim else v for k, v in arrays.items()}
    looked = {**data, **static}  # as they are, for programs that look at them
    for given, closed in ((arrays, static), (rows, static), (whole, static), ({}, looked)):
        found: list[bool] = []
        with contextlib.suppress(Exception):
            jax.eval_shape(lambda a: found.append(bool(initial(program, {**a, **closed}, jax.random.key(0)))), given)  # noqa: B023
            return found[0]
    return False


def with_parameters(
    program: Callable[..., Any], data: Mapping[str, Any], parameters: list[str], precision: str
) -> Learned:
    """The program whose named parameters are in the data."""
    with runtime.jax_scope(precision):
        rest = {k: v for k, v in data.items() if k not in parameters and not k.endswith((" known", " value"))}
        arrays = {k: v for k, v in rest.items() if isinstance(v, np.ndarray)}
        static = settings({k: v for k, v in rest.items() if k not in arrays})
        return wrapped(program, static, tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items())))


def initial_arrays(program: Any, arrays: Mapping[str, Any], static: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """The initial values of a program's parameters as labelled arrays, unconstrained; program: what has the author's in it."""
    found = {}
    for site, (value, constraint) in initial(program.program, {**arrays, **static}, key).items():
        leaves, tree = jax.tree.flatten(value)
        found |= {k: biject_to(constraint).inv(x) for k, x in zip(labels(site, tree), leaves, strict=True)}
    return found


def moved(parameters: Any, by: float = 0.1) -> Any:
    """Parameters a bit off, by normal noise: in general position, where they begin at 0 or at 1. The same at every call."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x) + by * rng.standard_normal(x.shape).astype(x.dtype), parameters)
