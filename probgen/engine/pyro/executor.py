"""The loop of the Pyro engine: random keys and array words in NumPy, and the executor of kernels.

The bookkeeping of a Markov chain is a handful of tiny vectors, for which a NumPy call costs a third of a torch call;
only gradients are torch. Keys are pairs of 64-bit integers of a counter-based generator (Philox; Salmon et al. 2011,
doi:10.1145/2063384.2063405), so that step i of chain c draws the same numbers however the run is cut into chunks.
"""

from __future__ import annotations

import copy
import operator
import re
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from probgen.engine import thinning
from probgen.engine.pyro.capture import SMALL
from probgen.engine.pyro.graph import threads_for
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.together import Together

Key = np.ndarray  # two 64-bit integers

_MASK = (1 << 64) - 1
_INIT, _ANSWER = 1 << 63, (1 << 63) + 1  # folded into a chain's key: no step has these numbers
AT_ONCE = 2000  # rows of a batch, where an algorithm does not say
_local = threading.local()


def _mix(x: int) -> int:
    """A bijection of the 64-bit integers with full avalanche: SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _generator(key: Key) -> np.random.Generator:
    """This thread's generator, set to the start of a key's stream: 1 us, where a new generator costs 9."""
    if not hasattr(_local, "generator"):
        _local.generator = np.random.Generator(np.random.Philox(key=0))
        _local.state = _local.generator.bit_generator.state
    _local.state["state"]["key"][:] = key
    _local.generator.bit_generator.state = _local.state
    return _local.generator


def _folded(key: Key, i: Any) -> tuple[int, int]:
    """The two words of the i-th key below a key."""
    first, second = key.tolist()
    first = _mix(first ^ _mix(int(i) & _MASK))
    return first, _mix(first ^ second)


class Stream:
    """The uniforms of one key, drawn in blocks: `stream(i)` is the i-th, in [0, 1), in any order of asking."""

    def __init__(self, key: Key) -> None:
        self._key, self._block = key, _generator(key).random(32).tolist()

    def __call__(self, i: int) -> float:
        while i >= len(self._block):
            self._block = _generator(self._key).random(2 * len(self._block)).tolist()
        return self._block[i]


def _nan_where_singular(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a matrix that gives NaN, as JAX's does, where NumPy's raises LinAlgError."""

    def safe(matrix: Any, *rest: Any, **options: Any) -> Any:
        try:
            return function(matrix, *rest, **options)
        except np.linalg.LinAlgError:
            well_posed = function(np.broadcast_to(np.eye(*matrix.shape[-2:]), matrix.shape), *rest, **options)
            return _tree_map(lambda x: np.full_like(x, np.nan), well_posed)

    return safe


_SINGULAR = ("cholesky", "eigh", "eigvalsh", "inv", "qr", "solve", "svd")
_LINALG = {**vars(np.linalg), **{name: _nan_where_singular(getattr(np.linalg, name)) for name in _SINGULAR}}


class Ops:
    """The array words in which a kernel is written once for both engines; here NumPy in float64.

    A key is immutable and used once: `split` or `fold_in` make new ones, as in JAX. Singular matrices give NaN.
    """

    xp: Any = SimpleNamespace(**{**vars(np), "linalg": SimpleNamespace(**_LINALG)})
    cholesky = staticmethod(_LINALG["cholesky"])
    dtype = np.float64

    @staticmethod
    def key(seed: int) -> Key:
        """The key of a seed, any Python integer."""
        first = _mix(int(seed) & _MASK)
        return np.array([first, _mix(first ^ ((int(seed) >> 64) & _MASK))], np.uint64)

    @staticmethod
    def each(function: Callable[[Any], Any], points: Any) -> np.ndarray:
        """A function of one point at many."""
        return np.array([function(point) for point in points])

    @staticmethod
    def fold_in(key: Key, i: Any) -> Key:
        """The i-th key below a key; `i` may be negative."""
        return np.array(_folded(key, i), np.uint64)

    @staticmethod
    def split(key: Key, n: int = 2) -> np.ndarray:
        """n independent keys: (n, 2)."""
        return np.array([_folded(key, i) for i in range(n)], np.uint64)

    @staticmethod
    def seed(key: Key) -> int:
        """A seed (63 bits) of a key, for torch's generators."""
        first, second = key.tolist()
        return _mix(first ^ second) >> 1

    @staticmethod
    def generator(key: Key) -> np.random.Generator:
        """A NumPy generator at the start of a key's stream, valid until the next draw of this thread."""
        return _generator(key)

    @staticmethod
    def normal(key: Key, shape: Any = ()) -> Any:
        """Standard normal draws."""
        return _generator(key).standard_normal(shape or None)

    @staticmethod
    def uniform(key: Key, shape: Any = ()) -> Any:
        """Uniform draws in [0, 1)."""
        return _generator(key).random(shape or None)

    @staticmethod
    def exponential(key: Key, shape: Any = ()) -> Any:
        """Draws of the exponential distribution of rate 1."""
        return _generator(key).standard_exponential(shape or None)

    @staticmethod
    def stream(key: Key) -> Stream:
        """A stream `s` of uniforms: `s(i)` is the i-th."""
        return Stream(key)

    @staticmethod
    def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], state: Any) -> Any:
        """`body` applied while `condition` holds."""
        while condition(state):
            state = body(state)
        return state

    @staticmethod
    def cond(predicate: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], *operands: Any) -> Any:
        """One of two functions of the operands."""
        return if_true(*operands) if predicate else if_false(*operands)

    @staticmethod
    def where(condition: Any, if_true: Any, if_false: Any) -> Any:
        """One of two values; where the condition is an array, entry by entry."""
        if isinstance(condition, np.ndarray) and condition.ndim:
            return np.where(condition, if_true, if_false)
        return if_true if condition else if_false

    @staticmethod
    def put(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
        """A copy of an array with one entry, or one row, replaced."""
        array = np.array(array)
        array[index] = value
        return array

    @staticmethod
    def popcount(i: Any) -> int:
        """The number of ones in the binary form of i >= 0."""
        return int(i).bit_count()

    @staticmethod
    def map(function: Callable[[Any], Any], xs: Any) -> Any:
        """`function` of every entry along the leading axis of `xs`, the results stacked leaf by leaf."""
        length = len(next(iter(_leaves(xs)))[1])
        return _stack([function(_tree_map(lambda x, i=i: x[i], xs)) for i in range(length)])


OPS = Ops()


class Executor:
    """Runs the chains of a kernel, one after another in this process.

    inference: its `kernel()` has `init(key, target) -> state` and `step(key, state, target) -> (state, info)`, which may change
        the tensors of a state in place.
    share: which of the chains this process runs; by default all. team: of a learner, the processes that share its rows.
    seed: step i of chain c uses `fold_in(fold_in(key(seed), c), i)`, whatever the chunks.
    """

    def __init__(
        self, inference: Any, target: Any, seed: int, num_chains: int, share: range | None = None, team: Any = None
    ) -> None:
        self.kernel, self.target = inference.kernel().on("pyro"), target
        if team is not None:
            self.kernel.rows = Together(team)
        self._keys = [OPS.fold_in(OPS.key(seed), chain) for chain in share or range(num_chains)]
        self._states: list[Any] | None = None
        of: Any = getattr(target, "largest", SMALL)  # a number, or a function of the rows of a batch
        self._largest: Any = of(getattr(inference, "batch_size", None) or AT_ONCE) if callable(of) else of

    def init(self, begin: Any = None) -> None:
        """Make the state of every chain; begin: where each begins, (chain, dim), by default where its kernel finds a start."""
        target = copy.copy(self.target)
        with scoped(self.target.precision), self._threads(), np.errstate(all="ignore"):
            self._states = []
            for chain, key in enumerate(self._keys):
                target.begin_at = None if begin is None else np.asarray(begin[chain], np.float64)
                self._states.append(self.kernel.init(OPS.fold_in(key, _INIT), target))

    def advance(self, start: int, n: int) -> dict[str, np.ndarray]:
        """Run steps start .. start + n - 1 of every chain; the infos as arrays (chain, n, ...).

        The states change only when every chain is done: interrupted, the call can be repeated, bit for bit.
        """
        states = self._initialised()
        with scoped(self.target.precision), self._threads(), np.errstate(all="ignore"):
            runs = [self._chain(key, state, start, n) for key, state in zip(self._keys, states, strict=True)]
        infos = {name: np.stack([run[1][name] for run in runs]) for name in runs[0][1]}
        self._states = [run[0] for run in runs]
        return infos

    def _threads(self) -> threads_for:
        return threads_for(self._largest)

    def _chain(self, key: Key, state: Any, start: int, n: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The last state of n steps of one chain and their infos, arrays (n, ...)."""
        infos, state = [], _tree_map(lambda x: x.clone() if hasattr(x, "detach") else x, state)
        for i in range(start, start + n):
            state, info = self._step(key, i, state)
            infos.append(info if isinstance(info, dict) else info._asdict())
        return state, {name: np.stack([_array(info[name]) for info in infos]) for name in (infos[0] if infos else ())}

    def _step(self, key: Key, i: int, state: Any) -> tuple[Any, Any]:
        if thinning.asked(self.kernel):
            return thinning.step(self.kernel, key, i, state, self.target)
        return self.kernel.step(OPS.fold_in(key, i), state, self.target)

    def answer(self) -> dict[str, np.ndarray]:
        """What a learner reads off its final state."""
        with scoped(self.target.precision), np.errstate(all="ignore"):
            found = self.kernel.answer(OPS.fold_in(self._keys[0], _ANSWER), self._initialised()[0], self.target)
        return {name: _array(value) for name, value in (found if isinstance(found, dict) else found._asdict()).items()}

    def read(self, field: str) -> np.ndarray:
        """One field of every chain's state, such as "z" or "warmup.start.ends": (chain, ...)."""
        get = operator.attrgetter(field)
        return np.stack([_array(get(state)) for state in self._initialised()])

    def state(self) -> dict[str, np.ndarray]:
        """The states as flat arrays, named "chain.path|kind"; `restore` takes them back bit for bit."""
        leaves = (leaf for chain, state in enumerate(self._initialised()) for leaf in _leaves(state, str(chain)))
        return {f"{path}|{_kind(leaf)}": _array(leaf) for path, leaf in leaves}

    def joined(self, states: list[dict[str, np.ndarray]], shares: list[range]) -> dict[str, np.ndarray]:
        """The `state` of all chains, from those of the shares."""
        apart = zip(states, shares, strict=True)
        return {_shifted(k, share.start): v for state, share in apart for k, v in state.items()}

    def part(self, arrays: dict[str, np.ndarray], share: range) -> dict[str, np.ndarray]:
        """The `state` of a share of the chains, from that of all."""
        return {_shifted(k, -share.start): v for k, v in arrays.items() if _chain_of(k) in share}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take up the states that `state` gave; ValueError if they belong to another algorithm or chain count."""
        if self._states is None:
            self.init()
        saved = {name.rpartition("|")[0]: (name.rpartition("|")[2], value) for name, value in arrays.items()}
        expected = [path for chain, state in enumerate(self._initialised()) for path, _ in _leaves(state, str(chain))]
        if set(expected) != set(saved):
            odd = sorted(set(expected) ^ set(saved))
            raise ValueError(
                f"The saved state does not fit {type(self.kernel).__name__} with {len(self._keys)} chains: "
                f"{odd[0]!r} is in one of them only.\nResume with the settings of the first run."
            )
        self._states = [_rebuild(state, str(chain), saved) for chain, state in enumerate(self._initialised())]

    def _initialised(self) -> list[Any]:
        if self._states is None:
            raise RuntimeError("The executor has no state: call init() or restore() first.")
        return self._states


def _chain_of(name: str) -> int:
    """The number of the chain that a named array of `state` belongs to."""
    return int(re.split(r"\D", name, maxsplit=1)[0])


def _shifted(name: str, by: int) -> str:
    chain = _chain_of(name)
    return f"{chain + by}{name[len(str(chain)) :]}"


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """Names and values of a nest's entries, or None for a leaf; the None value is an empty nest."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [(str(key), value) for key, value in tree.items()]
    if isinstance(tree, tuple | list):
        names = getattr(tree, "_fields", range(len(tree)))
        return [(str(name), value) for name, value in zip(names, tree, strict=True)]
    return None


def _like(tree: Any, values: list[Any]) -> Any:
    """A nest of the type of `tree` with other entries."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return dict(zip(tree, values, strict=True))
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every leaf, in order."""
    children = _children(tree)
    if children is None:
        yield path, tree
        return
    for name, child in children:
        yield from _leaves(child, f"{path}.{name}")


def _tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The nest of `function` of every leaf."""
    children = _children(tree)
    return function(tree) if children is None else _like(tree, [_tree_map(function, child) for _, child in children])


def _stack(trees: list[Any]) -> Any:
    """One nest from many of the same form, its leaves stacked along a new leading axis."""
    children = [_children(tree) for tree in trees]
    if children[0] is None:
        return np.stack([_array(tree) for tree in trees])
    return _like(trees[0], [_stack([child for _, child in entry]) for entry in zip(*children, strict=True)])


def _rebuild(tree: Any, path: str, saved: dict[str, tuple[str, np.ndarray]]) -> Any:
    """The nest of the form of `tree` with saved leaves, each of the kind that it had when it was saved."""
    children = _children(tree)
    if children is None:
        return _from_array(*saved[path])
    return _like(tree, [_rebuild(child, f"{path}.{name}", saved) for name, child in children])


def _array(leaf: Any) -> np.ndarray:
    """A leaf as an array of its own; a torch tensor leaves its device."""
    return np.array(leaf.detach().cpu().numpy() if hasattr(leaf, "detach") else leaf)


def _kind(leaf: Any) -> str:
    """How to restore a leaf: a torch tensor, an array, a NumPy scalar, a Python number."""
    if hasattr(leaf, "detach"):
        return f"tensor@{leaf.device}"
    if isinstance(leaf, np.ndarray):
        return "array"
    if isinstance(leaf, np.generic):
        return "scalar"
    if isinstance(leaf, bool | int | float):
        return "number"
    raise TypeError(
        f"A kernel's state holds a {type(leaf).__name__}; it may hold arrays, NumPy scalars, Python numbers and torch\n"
        "tensors, in nests of NamedTuple, tuple, list and dict."
    )


def _from_array(kind: str, value: np.ndarray) -> Any:
    """The inverse of `_array`."""
    import torch

    value = np.array(value)
    if kind.startswith("tensor@"):
        return torch.from_numpy(value).to(kind.removeprefix("tensor@"))
    return {"array": lambda: value, "scalar": lambda: value[()], "number": value.item}[kind]()
