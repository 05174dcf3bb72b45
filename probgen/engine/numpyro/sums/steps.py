"""A jaxpr as flat steps: calls put in line, values numbered, each step run by NumPy where that has a word for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.extend.core import Literal

INLINE = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
}
SCATTERS = {"scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter_add", "scatter_mul"}
MOVES = {"gather", "dynamic_slice", "dynamic_update_slice", *SCATTERS}  # where JAX moves an index that is out of range
RANDOM = ("random", "threefry", "rng", "iota_32x2", "shard_map", "pure_callback", "io_callback", "debug")
INDEXING = {
    "op", "_getitem", "__getitem__", "get", "take", "_take", "take_along_axis", "add", "set", "multiply", "mul", "divide", "power",
    "min", "max", "apply", "segment_sum", "segment_prod", "segment_max", "segment_min", "dynamic_slice", "dynamic_slice_in_dim",
    "dynamic_index_in_dim", "dynamic_update_slice", "dynamic_update_slice_in_dim", "dynamic_update_index_in_dim", "gather",
    "scatter", "scatter_add", "scatter_mul", "scatter_min", "scatter_max", "reraise_with_filtered_traceback",
}  # fmt: skip
JAX, NUMPYRO = (str(Path(str(package.__file__)).parent) for package in (jax, numpyro))


@dataclass(frozen=True)
class Step:
    """One operation: numbers of the values that it takes and gives; `shapes` of what it takes."""

    primitive: Any
    params: Mapping[str, Any]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    own: bool = True  # whether the program indexes, and not a function of JAX for its own ends

    @property
    def name(self) -> str:
        return self.primitive if isinstance(self.primitive, str) else self.primitive.name


class Flat:
    """The steps of a jaxpr with its calls put in line, its values numbered."""

    def __init__(self, number: Iterator[int]):
        self.number, self.steps, self.constants = number, [], {}

    def _constant(self, value: Any) -> int:
        n = next(self.number)
        self.constants[n] = value
        return n

    def add(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[int], caller: str = "") -> tuple[int, ...]:
        """Put the steps of a jaxpr, called by this name, behind those that are there; the numbers of its outputs."""
        numbers = dict(zip(jaxpr.constvars, map(self._constant, constants), strict=True))
        numbers |= zip(jaxpr.invars, arguments, strict=True)

        def at(atom: Any) -> int:
            if isinstance(atom, Literal):
                return self._constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            return numbers[atom]

        for eqn in jaxpr.eqns:
            takes = tuple(map(at, eqn.invars))
            shapes = tuple(getattr(v.aval, "shape", ()) for v in eqn.invars)
            dtypes = tuple(getattr(v.aval, "dtype", None) for v in eqn.invars)
            if eqn.params.get("name") == "_one_hot":
                classes = {"classes": eqn.outvars[0].aval.shape}
                self.steps.append(Step("one_hot", classes, takes, (), shapes, dtypes))
            if (inner := _called(eqn)) is not None:
                name = eqn.params.get("name", "")
                gives = self.add(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), takes, name)
                numbers |= zip(eqn.outvars, gives, strict=True)
                continue
            gives = tuple(next(self.number) for _ in eqn.outvars)
            numbers |= zip(eqn.outvars, gives, strict=True)
            self.steps.append(
                Step(
                    eqn.primitive,
                    eqn.params,
                    takes,
                    gives,
                    shapes,
                    dtypes,
                    eqn.primitive.name not in MOVES or _is_own(eqn, caller),
                )
            )
        return tuple(map(at, jaxpr.outvars))


def _called(eqn: Any) -> Any:
    """The jaxpr that an equation only calls; None for other equations."""
    if eqn.primitive.name not in INLINE:
        return None
    return next((eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params), None)


def _is_own(eqn: Any, caller: str) -> bool:
    """Whether an equation's indices are the program's; caller: the compiled function that it stands in."""
    frames = getattr(eqn.source_info.traceback, "frames", ())
    last = ""
    for frame in frames:
        if not frame.file_name.startswith(JAX):
            return (not last or last in INDEXING) and not frame.file_name.startswith(NUMPYRO)
        last = frame.function_name.rpartition(".")[2]
    return not frames or caller in INDEXING


# ---- by NumPy


def _select(which: Any, *cases: Any) -> Any:
    return np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)


def _broadcast(x: Any, *, shape: Any, broadcast_dimensions: Any, **_: Any) -> Any:
    whole = [1] * len(shape)
    for d, n in zip(broadcast_dimensions, np.shape(x), strict=True):
        whole[d] = n
    return np.broadcast_to(np.reshape(x, whole), shape)


def _slice(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any, **_: Any) -> Any:
    strides = strides or [1] * len(start_indices)
    return x[tuple(slice(*ends) for ends in zip(start_indices, limit_indices, strides, strict=True))]


def _dynamic_slice(x: Any, *starts: Any, slice_sizes: Any, **_: Any) -> Any:
    ends = zip(starts, slice_sizes, np.shape(x), strict=True)
    return x[tuple(slice(at := min(max(int(i), 0), n - size), at + size) for i, size, n in ends)]


def _iota(*, dtype: Any, shape: Any, dimension: int, **_: Any) -> Any:
    line = np.arange(shape[dimension], dtype=dtype)
    return np.broadcast_to(line.reshape([-1 if d == dimension else 1 for d in range(len(shape))]), shape)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values, **_: function(*values)


BY_NUMPY: dict[str, Callable[..., Any]] = {
    **{k: _plain(f) for k, f in {
        "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "max": np.maximum, "min": np.minimum,
        "select_n": _select, "copy": np.asarray, "copy_p": np.asarray, "clamp": lambda low, x, high: np.clip(x, low, high),
    }.items()},
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "iota": _iota,
    "convert_element_type": lambda x, *, new_dtype, **_: np.asarray(x).astype(new_dtype),
    "squeeze": lambda x, *, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "reshape": lambda x, *, new_sizes, **_: np.reshape(x, new_sizes),
    "transpose": lambda x, *, permutation, **_: np.transpose(x, permutation),
    "concatenate": lambda *values, dimension, **_: np.concatenate(values, dimension),
}  # fmt: skip


def run(step: Step, values: list[Any]) -> list[Any]:
    """What a step gives."""
    if step.name in BY_NUMPY:
        return [BY_NUMPY[step.name](*map(np.asarray, values), **step.params)]
    given = [v if hasattr(v, "aval") else jnp.asarray(v, d) for v, d in zip(values, step.dtypes, strict=True)]
    found = step.primitive.bind(*given, **step.params)
    return [np.asarray(v) for v in found] if step.primitive.multiple_results else [np.asarray(found)]
