"""Kernels as loops compiled by XLA: the chains of a run on a NumPyro target, and the compiled code kept between processes.

JAX's persistent cache saves a second process the compilation, but not the tracing and lowering of a kernel, which takes
longer than many posteriors. So the executables themselves are kept, under a key made of everything that they depend on:
the lowered density of the program, the kernel with its settings, the shapes, the sources of probgen, the versions, the
processor.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from probgen import pools, runtime, watch
from probgen.algorithm import Inference, Sampler
from probgen.engine.numpyro.running import together
from probgen.engine.numpyro.running.compiling import Begun, Code, _folded, _in_a_thread, begun, own
from probgen.engine.numpyro.running.loops import answer, chunk, chunk_many, init, init_at, init_many, init_many_at

MANY = 64  # chains that are vectorised on a CPU
BESIDE = 2**21  # characters of a start's text up to which its steps are compiled beside it: XLA takes memory for each
BLOCK = 1024  # of them at a time, so that their states stay in the processor's cache


def _blocks(num_chains: int) -> int:
    """Into how many equal blocks chains are cut; 1 where they cannot be cut into blocks of about `BLOCK`."""
    size = next(size for size in range(min(BLOCK, num_chains), 0, -1) if num_chains % size == 0)
    return num_chains // size if size >= BLOCK // 4 else 1


class Executor:
    """Runs the chains of a kernel: a thread a core over one compiled chain on CPU, vectorised on an accelerator.

    On a CPU, too, many chains are vectorised where every step costs the same. Vectorised chains are spread over all devices
    where they divide evenly among them.
    share: which of the chains this process runs, by default all; how they are run does not depend on it.
    team: of a learner, the processes that share its rows: see `together`.
    """

    def __init__(
        self,
        inference: Inference,
        target: Any,
        seed: int,
        num_chains: int,
        share: range | None = None,
        team: Any = None,
    ):
        chains = range(num_chains) if share is None else share
        self.kernel, self.target = inference.kernel(), target.for_run(inference.density_alone)
        self.num_chains, self.total = len(chains), num_chains
        self.precision = target.precision
        many = runtime.accelerator() or (inference.steady and num_chains >= MANY)
        self.vectorised = inference.together or (many and isinstance(inference, Sampler))
        self.workers = min(len(chains), runtime.cores())
        self.narrow = min(num_chains, runtime.cores()) > 1 or runtime.one_of_several()
        self.spread = runtime.spread(len(chains)) if self.vectorised and isinstance(inference, Sampler) else None
        if self.spread and not runtime.accelerator() and self._calls_lapack():
            self.spread = None  # devices of a CPU share one pool of threads, where LAPACK's calls wait for each other
        if self.spread:
            everywhere = NamedSharding(self.spread.mesh, PartitionSpec())
            self.target = jax.device_put(self.target, everywhere)
        with runtime.in_precision(self.precision):
            key = jax.random.key(seed)
            fold = jax.random.fold_in  # of a few chains one by one, which needs no code of their number
            self.keys: Any = _folded(key, np.asarray(chains)) if self.vectorised else [fold(key, c) for c in chains]
        self.team, self.everywhere = team, (lambda tree: tree) if team is None else together.placed
        self.target = self.everywhere(self.target)
        self._ahead = team is None and not runtime.one_of_several() and isinstance(own(self.kernel), bytes | None)
        self.states: Any = None
        self.compiling = 0.0  # seconds that went into code
        self.capacity = int(np.clip(2**20 // (target.dim + 8), 16, 1024))
        if self.vectorised:
            self.capacity = int(np.clip(2**24 // (num_chains * (target.dim + 8)), 1, 1024))
        self.blocks = 1 if self.spread or runtime.accelerator() else _blocks(len(chains))

    def _calls_lapack(self) -> bool:
        """Whether a step of one chain does."""
        with runtime.tracing(self.precision):
            key = jax.random.key(0)
            state = jax.eval_shape(self.kernel.init, key, self.target)
            step = jax.jit(lambda key, state, arrays: self.kernel.step(key, state, self._on(arrays)))
            return bool(pools.rows(step.lower(key, state, self.target.arrays).as_text()))

    def _on(self, arrays: Any) -> Any:
        return type(self.target)(self.target.structure, arrays)

    def _placed(self, chains: Any) -> Any:
        """Arrays (chain, ...) where they belong."""
        return jax.device_put(chains, self.spread) if self.spread else chains

    def _each(self, code: Code, arguments: Callable[[int], tuple[Any, ...]], what: str) -> list[Any]:
        """The code of every chain, a thread a core."""

        def scoped(chain: int) -> Any:
            with runtime.in_precision(self.precision), watch.doing(f"{what} of chain {chain}"):
                return self._done(lambda: code(*arguments(chain), narrow=self.narrow))

        jobs = [functools.partial(scoped, chain) for chain in range(self.num_chains)]
        return watch.apart(jobs, 1 if code.alone else self.workers)

    def _all(self, code: Code, *arguments: Any, what: str) -> Any:
        """The code of all chains at once, in a thread that Ctrl-C can leave."""
        with watch.doing(what):
            return _in_a_thread(lambda: self._done(lambda: code(*arguments)))

    def _done(self, work: Callable[[], Any]) -> Any:
        """What code gives, when it is there; PeerFailed where another process that runs it in step is gone."""
        try:
            return jax.block_until_ready(work())
        except jax.errors.JaxRuntimeError as error:
            if self.team is None:
                raise
            raise self.team.gone(error) from error

    def _begun(self, make: Callable[..., Any], *arguments: Any, **settings: Any) -> Begun:
        with runtime.tracing(self.precision):
            return begun(make, self.kernel, self.target, *arguments, **settings)

    def _code(self, make: Callable[..., Any], *arguments: Any, **settings: Any) -> Code:
        return self._timed(lambda: self._begun(make, *arguments, **settings).code())

    def _timed(self, ask: Callable[[], Code]) -> Code:
        since = time.perf_counter()
        code = ask()
        self.compiling += time.perf_counter() - since
        return code

    def _start(self, make: Callable[..., Any], *arguments: Any) -> Code:
        """The code of a start; while XLA is at work on it, the steps are traced, and XLA begins with them as well."""
        start = self._begun(make, *arguments)
        if start.shapes is not None and start.size <= BESIDE and self._ahead:
            with contextlib.suppress(Exception):  # raised where the steps are asked for
                span = np.int32(0), np.int32(1)
                self._begun(chunk, self.keys[0], start.shapes, *span, capacity=self.capacity)
        return start.code()

    def init(self, begin: Any = None) -> None:
        """A state for every chain; begin: where each begins, arrays (chain, ...), by default where its kernel finds a start."""
        start = 2**31 - 1  # a step number that no run reaches
        with runtime.in_precision(self.precision):
            if self.vectorised:
                many = self._placed(jax.vmap(jax.random.fold_in, (0, None))(self.keys, start))
                given = () if begin is None else (self._placed(jax.tree.map(jnp.asarray, begin)),)
                code = self._code(init_many_at if given else init_many, many, *given)
                found = self._all(code, self.target.arrays, many, *given, what="the start of the chains")
                self.states = self._placed(found)
                return
            keys = [self.everywhere(jax.random.fold_in(key, start)) for key in self.keys]
            at = lambda c: () if begin is None else (jax.tree.map(lambda a: jnp.asarray(a[c]), begin),)  # noqa: E731
            starts = [at(c) for c in range(self.num_chains)]
        code = self._timed(lambda: self._start(init_at if starts[0] else init, keys[0], *starts[0]))
        watch.load_ahead()
        self.states = self._each(code, lambda c: (self.target.arrays, keys[c], *starts[c]), "the start")

    def advance(self, start: int, num_steps: int) -> dict[str, np.ndarray]:
        """Steps start..start+num_steps-1 of every chain: records (chain, step, ...)."""
        stop = start + min(num_steps, self.capacity)
        span, what = (np.int32(start), np.int32(stop)), f"steps {start} to {stop - 1}"
        if self.vectorised:
            with runtime.in_precision(self.precision):
                keys = self._placed(self.keys)
                settings = {"capacity": self.capacity, "blocks": self.blocks}
                code = self._code(chunk_many, keys, self.states, *span, **settings)
                states, found = self._all(code, self.target.arrays, keys, self.states, *span, what=what)
                self.states, records = self._placed(states), found._asdict()
        else:
            keys, *span = self.everywhere((self.keys, *span))
            code = self._code(chunk, keys[0], self.states[0], *span, capacity=self.capacity)
            given = lambda c: (self.target.arrays, keys[c], self.states[c], *span)  # noqa: E731
            states, parts = zip(*self._each(code, given, what), strict=True)
            cut = lambda p, k: np.asarray(getattr(p, k))[: stop - start]  # noqa: E731
            self.states, records = list(states), {k: np.stack([cut(p, k) for p in parts]) for k in parts[0]._fields}
        return {k: _first(np.asarray(v), stop - start) for k, v in records.items()}

    def answer(self) -> dict[str, np.ndarray]:
        """What a learner reads off its final state."""
        key = self.everywhere(jax.random.fold_in(self.keys[0], 2**31 - 2))
        with runtime.in_precision(self.precision):
            state = jax.tree.map(lambda a: a[0], self.states) if self.vectorised else self.states[0]
            found = self._all(self._code(answer, key, state), self.target.arrays, key, state, what="the answer")
        return {k: np.asarray(v) for k, v in (found if isinstance(found, dict) else found._asdict()).items()}

    def read(self, field: str) -> np.ndarray:
        """One field of every chain's state, such as "z" or "warmup.start.ends": (chain, ...)."""
        get = operator.attrgetter(field)
        if self.vectorised:
            return np.asarray(get(self.states))
        return np.stack([np.asarray(get(state)) for state in self.states])

    def state(self) -> dict[str, np.ndarray]:
        """The states as named arrays, for a checkpoint."""
        return {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self.states))}

    def joined(self, states: list[dict[str, np.ndarray]], shares: list[range]) -> dict[str, np.ndarray]:
        """The `state` of all chains, from those of the shares."""
        if self.vectorised:
            return {k: np.concatenate([state[k] for state in states]) for k in states[0]}
        return {f"{i:04d}": leaf for i, leaf in enumerate(state[k] for state in states for k in sorted(state, key=int))}

    def part(self, arrays: Mapping[str, np.ndarray], share: range) -> dict[str, np.ndarray]:
        """The `state` of a share of the chains, from that of all."""
        if self.vectorised:
            return {k: v[share.start : share.stop] for k, v in arrays.items()}
        size = len(arrays) // self.total
        return {
            f"{i - share.start * size:04d}": arrays[f"{i:04d}"] for i in range(share.start * size, share.stop * size)
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        with runtime.tracing(self.precision):
            key = jax.random.key(0)
            one = jax.eval_shape(self.kernel.init, key, self.target)
            shapes = [one] * self.num_chains
            if self.vectorised:
                shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.num_chains, *a.shape), a.dtype), one)
            leaves, tree = jax.tree.flatten(shapes)
            _check_shapes(shapes, arrays)
            values = [jnp.asarray(arrays[f"{i:04d}"], leaf.dtype) for i, leaf in enumerate(leaves)]
            self.states = self.everywhere(self._placed(jax.tree.unflatten(tree, values)))


def _first(records: np.ndarray, num_steps: int) -> np.ndarray:
    """The first steps of (chain, capacity, ...), by themselves: a view would keep the rest in memory as long as the run lasts."""
    return records if num_steps == records.shape[1] else records[:, :num_steps].copy()


def _check_shapes(state: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, with the first few that differ, where a checkpoint's arrays are not those of a state of these shapes."""
    known, _ = jax.tree_util.tree_flatten_with_path(state)
    if len(known) != len(arrays):
        raise ValueError(
            f"The checkpoint has {len(arrays)} arrays; this program and these settings have {len(known)}: "
            "the program, its critic or a setting that adds state was changed.\nPut it back, or fit anew."
        )
    told = []
    for i, (path, leaf) in enumerate(known):
        if (shape := np.shape(arrays[f"{i:04d}"])) != leaf.shape:
            name = jax.tree_util.keystr(path[1:] if isinstance(state, list) else path).lstrip(".")
            told.append(f"{name} is {leaf.shape}, in the checkpoint {shape}")
    if told:
        more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
        raise ValueError(
            f"The program or its settings have other shapes than the checkpoint: {'; '.join(told[:3])}{more}.\n"
            "Put them back, or fit anew."
        )
