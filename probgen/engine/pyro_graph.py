"""The gradient of a torch log density as one compiled graph.

`make_fx` captures value and gradient as a graph of tensor operations with the data as arguments, and Inductor compiles
it; called without Dynamo's guards it costs about 10 us on a small regression, against 1,000 us for eager Pyro. A graph
has no Python in it, so what the program decides in Python from the values of tensors cannot be captured: the compiled
gradient is compared with the eager one before it is used, and where it cannot serve the eager one does, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from probgen.runtime import cores

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]

Density = Callable[..., torch.Tensor]
Tensors = Sequence[torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]

_MASKS = (torch.bool, torch.uint8)
_INDEXING = (
    torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
)  # fmt: skip
_SMALL = 1 << 15  # elements of the largest array below which one thread is faster than a team
_POINTS = 3  # random points at which a captured graph is compared with the program


class Derived:
    """The tensors that were computed from some given ones."""

    def __init__(self, tensors: Tensors) -> None:
        self._known = WeakIdKeyDictionary()
        self.add(tensors)

    def add(self, values: Any) -> None:
        """Add every tensor in a nest."""
        for leaf in tree_leaves(values):
            if isinstance(leaf, torch.Tensor):
                self._known[leaf] = True

    def has(self, values: Any) -> bool:
        """Whether any tensor in a nest is one of them."""
        return any(isinstance(leaf, torch.Tensor) and leaf in self._known for leaf in tree_leaves(values))


class Watch:
    """Notes whether a computation reads values of the given tensors into Python, or draws random numbers.

    with Watch(tensors) as watch: ...
    watch.reads, watch.random
    """

    def __init__(self, tensors: Tensors) -> None:
        self.reads = self.random = False
        self.derived = Derived(tensors)
        self._modes: tuple[Any, ...] = (_Calls(self), _Dispatch(self))

    def __enter__(self) -> Watch:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def note(self, func: Any, arguments: Any, result: Any) -> None:
        """Take note of one operation."""
        self.random |= torch.Tag.nondeterministic_seeded in func.tags
        if not self.derived.has(arguments):
            return
        if func is torch.ops.aten.index.Tensor:  # boolean masks select as many rows as they have ones
            self.reads |= any(i is not None and i.dtype in _MASKS for i in arguments[0][1])
        else:
            self.reads |= bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))
        self.derived.add(result)


class _Dispatch(TorchDispatchMode):
    """Shows a Watch every operation."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.watch.note(func, (args, kwargs), result)
        return result


class _Calls(TorchFunctionMode):
    """Shows a Watch the ways out of torch that are no operation."""

    _exits = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__)

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._exits and self.watch.derived.has(args):
            self.watch.reads = True
        return func(*args, **(kwargs or {}))


class _Constants(TorchDispatchMode):
    """Evaluates, while a graph is captured, what its arguments do not reach and what a compiler could not.

    Values read of constants, like the indices of a sequential plate, are what they are. Boolean masks become integer
    indices, for a compiler does not know their number of ones: the distributions of triangular matrices have such.
    With `fold`, every operation on constants becomes a constant.
    """

    def __init__(self, arguments: Tensors, fold: bool) -> None:
        super().__init__()
        self.derived, self.fold = Derived(arguments), fold

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        derived = self.derived.has((args, kwargs))
        if not derived and (self.fold or torch.Tag.data_dependent_output in func.tags):
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        if func in _INDEXING:
            args = (args[0], [index for mask in args[1] for index in self._indices(mask)], *args[2:])
        result = func(*args, **(kwargs or {}))
        if derived:
            self.derived.add(result)
        return result

    def _indices(self, index: torch.Tensor | None) -> Tensors:
        if index is None or index.dtype not in _MASKS or self.derived.has(index):
            return (index,)  # type: ignore[return-value]
        with disable_proxy_modes_tracing():
            return index.nonzero(as_tuple=True)


def eager_value_and_grad(function: Callable[..., torch.Tensor], z: torch.Tensor, *arguments: torch.Tensor) -> Pair:
    """A function and its gradient in z by autograd: (dim,) -> (), (dim,)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = function(z, *arguments)
        (gradient,) = torch.autograd.grad(value, z, materialize_grads=True, allow_unused=True)
    return value.detach(), gradient.detach()


class Gradient:
    """Value and gradient of a density at NumPy points, compiled at the first call, or eager where that fails.

    density: `(z, tensors, *extra) -> ()`, in torch; `tensors` are the data, `extra` the indices of minibatches.
    scope: makes the context in which the density may be run.
    frozen: whether the data are constants of the graph, because the density reads their values into Python.
    obstacle: why the density cannot be captured, where that is known beforehand.
    """

    def __init__(
        self, density: Density, scope: Callable[[], Any], *, frozen: bool = False, obstacle: str | None = None
    ) -> None:
        self.density, self.scope, self.frozen, self.obstacle = density, scope, frozen, obstacle
        self._compiled: Callable[..., Pair] | None = None
        self._is_ready = False

    @property
    def is_compiled(self) -> bool:
        """Whether calls run the compiled graph; False before the first call."""
        return self._compiled is not None

    def __call__(self, z: torch.Tensor, tensors: Tensors, *extra: torch.Tensor) -> tuple[np.float64, np.ndarray]:
        """Value and gradient at z: (dim,) -> (), (dim,) in float64; NaN where a factorisation fails."""
        self.prepare(z, tensors, *extra)
        try:
            if self._compiled is not None:
                value, gradient = self._graph(z, tensors, extra)
            else:
                with self.scope():
                    value, gradient = self._eager(z, tensors, extra)
        except LinAlgError:
            return np.float64(np.nan), np.full(len(z), np.nan)
        return np.float64(value.item()), np.asarray(gradient.cpu().numpy(), np.float64)

    def value(self, z: torch.Tensor, tensors: Tensors) -> np.float64:
        """The value alone; a compiled graph computes the gradient along with it, at little cost."""
        self.prepare(z, tensors)
        if self._compiled is not None:
            return self(z, tensors)[0]
        try:
            with torch.no_grad(), self.scope():
                return np.float64(self.density(z, tensors).item())
        except LinAlgError:
            return np.float64(np.nan)

    def _graph(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> Pair:
        return self._compiled(z, *extra) if self.frozen else self._compiled(z, *tensors, *extra)  # type: ignore[misc]

    def _eager(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> Pair:
        return eager_value_and_grad(lambda point: self.density(point, tensors, *extra), z)

    def prepare(self, z: torch.Tensor, tensors: Tensors, *extra: torch.Tensor) -> None:
        """Capture, compile and check at the first call; RuntimeWarning that says why, where that fails."""
        if self._is_ready:
            return
        obstacle = self.obstacle
        if obstacle is None:
            try:
                with self.scope(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._compiled = self._compile(z, tensors, extra)
                    self._check(z, tensors, extra)
            except Exception as error:
                self._compiled, obstacle = None, f"{type(error).__name__}: {_first_line(error)}"
        self._is_ready = True
        if obstacle is not None:
            warnings.warn(
                "The gradient of this program cannot be compiled and is computed eagerly, some 50 times slower "
                f"({obstacle}).\nWrite choices between values of tensors with torch.where, not with Python's if.",
                RuntimeWarning,
                stacklevel=4,
            )

    def _compile(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> Callable[..., Pair]:
        """The compiled graph of value and gradient: `(z, *tensors, *extra)`, or `(z, *extra)` with frozen data."""
        from torch._inductor.compile_fx import compile_fx

        arguments = extra if self.frozen else (*tensors, *extra)

        def function(point: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
            if self.frozen:
                return self.density(point, tensors, *given)
            return self.density(point, given[: len(tensors)], *given[len(tensors) :])

        def pair(point: torch.Tensor, *given: torch.Tensor) -> Pair:
            with _Constants((point, *given), fold=self.frozen):
                return eager_value_and_grad(function, point, *given)

        graph = make_fx(pair)(z, *arguments)
        for node in graph.graph.find_nodes(op="get_attr"):
            constant = getattr(graph, node.target)
            delattr(graph, node.target)
            graph.register_buffer(node.target, constant.detach())  # a parameter here is a constant
        largest = max(node.meta["val"].numel() for node in graph.graph.nodes if hasattr(node.meta.get("val"), "numel"))
        options: dict[str, Any] = {"size_asserts": False, "compile_threads": cores()}
        if largest < _SMALL:
            options["cpp.threads"] = 1
        return compile_fx(graph, [z, *arguments], config_patches=options)  # type: ignore[return-value]

    def _check(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> None:
        """Compare the graph with the program at random points, on these data and on others of their shapes."""
        rng = np.random.default_rng(0)
        for _ in range(_POINTS):
            self._compare(torch.as_tensor(rng.uniform(-1, 1, z.shape)).to(z), tensors, extra)
        if self.frozen:
            return
        resampled = [
            t[torch.from_numpy(rng.integers(len(t), size=len(t)))] if t.ndim and len(t) else t for t in tensors
        ]
        try:
            self._eager(z, resampled, extra)
        except Exception:
            return  # the program refuses such data: nothing to compare
        self._compare(z, [t.contiguous() for t in resampled], extra)

    def _compare(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> None:
        """ArithmeticError if the graph and the program differ at a point by more than rounding."""
        expected = self._eager(z, tensors, extra)
        got = self._graph(z, tensors, extra)
        tolerance = 1e-7 if z.dtype is torch.float64 else 1e-3
        for name, one, other in zip(("value", "gradient"), got, expected, strict=True):
            scale = float(other.nan_to_num(0.0, 0.0, 0.0).abs().max()) if other.numel() else 0.0
            if not torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(scale, 1.0), equal_nan=True):
                raise ArithmeticError(f"the captured graph's {name} differs from the program's")


def _first_line(error: Exception) -> str:
    """The first line of an error's message, at most 120 characters."""
    return (str(error).strip().splitlines() or [""])[0][:120]
