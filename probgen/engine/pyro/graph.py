"""The gradient of a torch log density as one compiled graph.

`make_fx` captures value and gradient as a graph of tensor operations with the data as arguments, and Inductor compiles
it; called without Dynamo's guards it costs about 10 us on a small regression, against 1,000 us for eager Pyro. A graph
has no Python in it, so what the program decides in Python from the values of tensors cannot be captured: the compiled
gradient is compared with the eager one before it is used. Where the compiler fails the graph is run as it is, some five times
faster than eager Pyro; where there is no graph the eager gradient serves, with a warning that says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from probgen.engine.pyro import capture as pyro_capture
from probgen.engine.pyro.capture import MASKS, SMALL, Derived, eager_value_and_grad

LinAlgError = torch.linalg.LinAlgError

Density = Callable[..., torch.Tensor]
Tensors = Sequence[torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]

SLOW = "The gradient of this program is not compiled, so that every step takes as long as Pyro's own: {}."
_LARGEST = 1500  # operations of a graph that a C++ compiler is given: half a minute or so
_POINTS = 3  # random points at which a captured graph is compared with the program


class threads_for:
    """A scope for work on arrays of at most so many numbers: one thread for small ones.

    A team of threads whose members wait for each other, as on a busy machine, takes a hundred times longer for a small matrix.
    """

    def __init__(self, largest: int) -> None:
        self.before = torch.get_num_threads() if largest <= SMALL else 1

    def __enter__(self) -> None:
        if self.before > 1:
            torch.set_num_threads(1)

    def __exit__(self, *error: Any) -> None:
        if self.before > 1:
            torch.set_num_threads(self.before)


class Watch:
    """Notes whether a computation reads values of the given tensors into Python, or draws random numbers.

    with Watch(tensors) as watch: ...
    watch.reads, watch.random, watch.largest
    """

    def __init__(self, tensors: Tensors) -> None:
        self.reads = self.random = False
        self.largest = max((t.numel() for t in tensors), default=0)  # numbers of the largest array
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
        self.largest = max(self.largest, getattr(result, "numel", int)())
        if not self.derived.has(arguments):
            return
        if func is torch.ops.aten.index.Tensor:  # boolean masks select as many rows as they have ones
            self.reads |= any(i is not None and i.dtype in MASKS for i in arguments[0][1])
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


class Gradient:
    """Value and gradient of a density at NumPy points, compiled at the first call, or eager where that fails.

    density: `(z, tensors, *extra) -> ()`, in torch; `tensors` are the data, `extra` the indices of minibatches.
    scope: makes the context in which the density may be run.
    frozen: whether the data are constants of the graph, because the density reads their values into Python.
    obstacle: why the density cannot be captured, where that is known beforehand.
    largest: numbers of its largest array.
    """

    def __init__(
        self,
        density: Density,
        scope: Callable[[], Any],
        *,
        frozen: bool = False,
        obstacle: str | None = None,
        largest: int = SMALL,
    ) -> None:
        self.density, self.scope, self.frozen, self.obstacle, self.largest = density, scope, frozen, obstacle, largest
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
            with threads_for(self.largest):
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
        assert self._compiled is not None
        return self._compiled(z, *extra) if self.frozen else self._compiled(z, *tensors, *extra)

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
                    self._compiled = self._fastest(z, tensors, extra)
            except Exception as error:
                self._compiled, obstacle = None, pyro_capture.reason(error)
        self._is_ready = True
        if obstacle is not None:
            warnings.warn(SLOW.format(obstacle), RuntimeWarning, stacklevel=4)

    def _fastest(self, z: torch.Tensor, tensors: Tensors, extra: Tensors) -> Callable[..., Pair]:
        """The compiled graph; the graph itself where a compiler fails at it or would take minutes. Both are checked."""
        arguments = extra if self.frozen else (*tensors, *extra)
        graph = pyro_capture.captured(self._function(len(tensors), tensors), z, arguments, self.frozen)
        if len(graph.graph.nodes) <= _LARGEST:
            with suppress(Exception):
                self._compiled = pyro_capture.compiled(graph, z, arguments)
                self._check(z, tensors, extra)
                return self._compiled
        self._compiled = pyro_capture.interpreted(graph, z, arguments)
        self._check(z, tensors, extra)
        return self._compiled

    def _function(self, count: int, tensors: Tensors) -> Callable[..., torch.Tensor]:
        """The density as a function of the graph's arguments: `(z, *tensors, *extra)`, or `(z, *extra)` with frozen data."""

        def function(point: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
            if self.frozen:
                return self.density(point, tensors, *given)
            return self.density(point, given[:count], *given[count:])

        return function

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
