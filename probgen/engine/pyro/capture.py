"""The graph of value and gradient of a torch density: captured, made small, and compiled.

`make_fx` captures what autograd does along with the density, custom gradients included. The graph is made functional and free of
repetitions: an enumerated chain of 24 states shrinks by a third. Inductor makes one kernel of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch.compile_utils import fx_graph_cse
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from probgen.programs.places import place_of
from probgen.runtime import cores

Tensors = Sequence[torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]

MASKS = (torch.bool, torch.uint8)
_INDEXING = (
    torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
)  # fmt: skip
SMALL = 1 << 15  # elements of the largest array below which one thread is faster than a team
_READS = ("_local_scalar_dense", "data-dependent", "trying to get value out of a tracing tensor")
REMEDY = "Write choices between values of tensors with torch.where, not with Python's if"


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

    def _indices(self, index: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if index is None or index.dtype not in MASKS or self.derived.has(index):
            return (index,)
        with disable_proxy_modes_tracing():
            return index.nonzero(as_tuple=True)


def eager_value_and_grad(function: Callable[..., torch.Tensor], z: torch.Tensor, *arguments: torch.Tensor) -> Pair:
    """A function and its gradient in z by autograd: (dim,) -> (), (dim,)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = function(z, *arguments)
        (gradient,) = torch.autograd.grad(value, z, materialize_grads=True, allow_unused=True)
    return value.detach(), gradient.detach()


def captured(
    function: Callable[..., torch.Tensor], z: torch.Tensor, arguments: Tensors, fold: bool
) -> torch.fx.GraphModule:
    """The graph of value and gradient in z of `function(z, *arguments)`: (dim,), ... -> (), (dim,)."""

    def pair(point: torch.Tensor, *given: torch.Tensor) -> Pair:
        with _Constants((point, *given), fold=fold):
            return eager_value_and_grad(function, point, *given)

    graph = make_fx(pair)(z, *arguments)
    try:
        found = _without_repetitions(make_fx(functionalize(graph))(z, *arguments))
    except Exception:  # what cannot be made functional stays as it is
        found = graph
    for node in found.graph.find_nodes(op="get_attr"):
        constant = getattr(found, node.target)
        delattr(found, node.target)
        found.register_buffer(node.target, constant.detach())  # a parameter here is a constant
    return found


def _without_repetitions(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """A functional graph in which every value is computed once."""
    graph.graph.eliminate_dead_code()
    found = torch.fx.GraphModule(graph, fx_graph_cse(graph.graph))
    found.graph.eliminate_dead_code()
    found.recompile()
    return found


def compiled(graph: torch.fx.GraphModule, z: torch.Tensor, arguments: Tensors) -> Callable[..., Pair]:
    """The graph as Inductor's kernels, of the same arguments."""
    from torch._inductor.compile_fx import compile_fx

    largest = max(node.meta["val"].numel() for node in graph.graph.nodes if hasattr(node.meta.get("val"), "numel"))
    options: dict[str, Any] = {"size_asserts": False, "compile_threads": cores()}
    if largest < SMALL:
        options["cpp.threads"] = 1
    found: Any = compile_fx(graph, [z, *arguments], config_patches=options)
    return found


def interpreted(graph: torch.fx.GraphModule, z: torch.Tensor, arguments: Tensors) -> Callable[..., Pair]:
    """The graph run operation by operation, by torch's interpreter in C++ where that takes it; of the same arguments."""
    run: Any = graph
    with torch.no_grad():
        try:
            run = torch.jit.trace(graph, (z, *arguments), check_trace=False)
        except Exception:  # such as operations that it does not know
            run = graph

    def pair(*given: torch.Tensor) -> Pair:
        with torch.no_grad():
            return run(*given)

    return pair


def reason(error: BaseException) -> str:
    """Why a graph cannot be captured, with the line of the program where that is."""
    place = place_of(error)
    if any(word in str(error) for word in _READS):
        return f"it reads a value of an unknown in Python{place}.\n{REMEDY}"
    first = (str(error).strip().splitlines() or [""])[0][:120]
    return f"{type(error).__name__}: {first}{place}"
