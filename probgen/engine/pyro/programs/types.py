"""Floating types of Pyro programs: tensors that a program closes over, or makes itself, in the precision of the run.

Torch adds a float32 tensor to a float64 one, but multiplies no matrices of the two. A program that raises for that is run again
where every floating tensor that reaches an operation has the run's type: data closed over, weights and buffers of modules,
`torch.zeros(3, dtype=torch.float32)`. Numbers are not changed by that: a float32 is a float64.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from probgen.algorithm import Incompatible
from probgen.programs.about import About
from probgen.programs.pinned import Pinned

REALS = (torch.float32, torch.float64)
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
MIXED = re.compile(r"dtype|scalar type|\b(Double|Float|ComplexDouble|ComplexFloat)\b|type \((float|double)\)")
IN_SINGLE = "Computed in float32, for the program mixes types in float64: {}"
_CASTS = (torch.Tensor.float, torch.Tensor.double)
_local = threading.local()


class Lifted(About):
    """A program whose floating tensors all have the run's type; one object for one program."""

    def __init__(self, program: Callable[..., Any]) -> None:
        self.program = program

    def __call__(self, *args: Any, **data: Any) -> Any:
        with lifting(torch.get_default_dtype()):
            return self.program(*args, **data)


def lifted(program: Any) -> Lifted:
    """The program with its tensors lifted, the same object every time."""
    if isinstance(program, Lifted):
        return program
    if not isinstance(program, Pinned):
        return Lifted(program)
    found = vars(program).get("_lifted")
    if found is None:
        found = vars(program)["_lifted"] = Lifted(program)
    return found


def in_its_type(program: Any, run: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The program, lifted where it mixes types, and what `run` of it gives."""
    try:
        return program, run(program)
    except (RuntimeError, ValueError) as error:
        if not is_mixed(error):
            raise
        first = error
    with suppress(Exception):
        found = lifted(program)
        return found, run(found)
    raise first


def in_one_type(prepare: Callable[[Any, str], Any], program: Any, precision: str) -> Any:
    """The target that `prepare(program, precision)` makes: of the program, of the program lifted, or in float32, whichever runs.

    Raises what the program as it is raises, where none does, or what else is wrong with it in float32.
    """
    try:
        return prepare(program, precision)
    except (RuntimeError, ValueError) as error:
        if not is_mixed(error):
            raise
        first = error
    try:
        return prepare(lifted(program), precision)
    except Incompatible:  # its types are no matter
        raise
    except Exception:
        pass
    if precision == "float32":
        raise first
    try:
        target = prepare(program, "float32")
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # beside its types something else is wrong
        raise (first if is_mixed(error) else error) from None
    target.notes = (*target.notes, IN_SINGLE.format(str(first).strip().splitlines()[0]))
    return target


def is_mixed(error: BaseException) -> bool:
    """Whether an error of torch's is about the types of tensors."""
    return isinstance(error, RuntimeError | ValueError) and bool(MIXED.search(str(error)))


def is_lifted(program: Any) -> bool:
    """Whether a program, or one that it wraps, is lifted."""
    for _ in range(4):
        if isinstance(program, Lifted):
            return True
        program = getattr(program, "program", None)
    return False


@contextmanager
def lifting(kind: torch.dtype) -> Iterator[None]:
    """A scope in which operations take floating tensors in this type."""
    if getattr(_local, "active", False):
        yield
        return
    _local.active = True
    try:
        with _Lift(kind):
            yield
    finally:
        _local.active = False


class _Lift(TorchFunctionMode):
    """Gives every function of torch its floating tensors, and the types that it is told, in one type."""

    kept = WeakIdKeyDictionary()  # tensor -> (its version, type, the lifted one), of tensors that stand outside of runs

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind
        self.other = {k: kind for k in REALS if k is not kind} | {
            COMPLEX[k]: COMPLEX[kind] for k in REALS if k is not kind
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            found = func(*args, **(kwargs or {}))
            return self.other.get(found, found) if isinstance(found, torch.dtype) else found
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            return func(*self._into(args), **(kwargs or {}))  # what is written into stays itself
        result = func(*map(self._up, args), **{k: v if k == "out" else self._up(v) for k, v in (kwargs or {}).items()})
        return self._up(result) if func in _CASTS else result

    def _into(self, args: Any) -> Any:
        """The arguments of what changes its first one, in that one's type."""
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or first.dtype not in (*self.other, *self.other.values()):
            return args
        of = lambda x: x.to(first.dtype) if isinstance(x, torch.Tensor) and x.dtype in REALS else x  # noqa: E731
        return (first, *map(of, args[1:]))

    def _up(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value) if value.dtype in self.other else value
        if isinstance(value, torch.dtype):
            return self.other.get(value, value)
        if type(value) in (list, tuple):
            return type(value)(map(self._up, value))
        return value

    def _tensor(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor in the run's type; that of one closed over is made once, outside of graphs that are being captured."""
        known = self.kept.get(x)
        if known is not None and known[:2] == (x._version, self.kind):
            return known[2]
        found = x.to(self.other[x.dtype])
        plain = not x.requires_grad and not is_functorch_wrapped_tensor(x)
        if plain and get_proxy_mode() is None:
            self.kept[x] = (x._version, self.kind, found)
        return found
