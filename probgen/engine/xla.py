"""Kernels as loops compiled by XLA: the chains of a run on a NumPyro target, and the compiled code kept between processes.

JAX's persistent cache saves a second process the compilation, but not the tracing and lowering of a kernel, which takes
longer than many posteriors. So the executables themselves are kept, under a key made of everything that they depend on:
the lowered density of the program, the kernel with its settings, the shapes, the sources of probgen, the versions, the
processor.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import serialize_executable
from jax.sharding import NamedSharding, PartitionSpec

from probgen import runtime, thinning, watch
from probgen.algorithm import Inference, Sampler
from probgen.engine import mappings, pools
from probgen.reads import is_library, reads_of

# ---- compiled code that outlives the process ---------------------------------------------------------------------


class Code:
    """A function of pytrees, compiled: `code(*arguments)`.

    rows: of the largest matrix that it hands to LAPACK, 0 where it calls none. With LAPACK it runs in a pool that no other
    execution has; `narrow` ones are for chains at once, and `pools` says why.
    """

    def __init__(self, executable: Any, kept: Any, shape: Any, rows: int):
        self.executable, self.kept, self.shape, self.rows = executable, kept, shape, rows
        self._loaded: dict[pools.Pool, Any] = {}

    @property
    def pooled(self) -> bool:
        return bool(self.rows and self.kept and pools.possible())

    @property
    def alone(self) -> bool:
        """Whether no two executions of it may run at once: it calls LAPACK, and there are no pools for it."""
        return bool(self.rows) and not self.pooled and not runtime.accelerator()

    def __call__(self, *arguments: Any, narrow: bool = False) -> Any:
        leaves = jax.tree.leaves(arguments)
        if self.pooled:
            return jax.tree.unflatten(self.shape, self._apart(leaves, narrow))
        with pools.alone() if self.alone else contextlib.nullcontext():
            out = jax.tree.unflatten(self.shape, self._here()(*leaves))
            return jax.block_until_ready(out) if self.alone else out

    def _apart(self, leaves: list[Any], narrow: bool) -> Any:
        """The outputs of an execution in a pool, as arrays of the host."""
        few = narrow or self.rows < pools.LARGE
        with pools.leased(narrow) as pool, pools.one_blas_thread if few else contextlib.nullcontext():
            if pool not in self._loaded:
                self._loaded[pool] = _loaded(self.kept, [pool.device])
            out = jax.block_until_ready(self._loaded[pool](*_moved(leaves, pool.device)))
            return _moved(out, jax.devices()[0])

    def _here(self) -> Any:
        if self.executable is None:
            self.executable = _loaded(self.kept, jax.devices()[:1])
        return self.executable


def compiled(make: Callable[..., Any], kernel: Inference, target: Any, *arguments: Any, **settings: Any) -> Code:
    """`make(kernel, target, *arguments, **settings)` compiled for the shapes of target and arguments.

    From this process, else from the disk, else now. The code takes (target.arrays, *arguments).
    """
    leaves, tree = jax.tree.flatten((target.arrays, *arguments))
    shapes = tuple((jnp.shape(leaf), _dtype(leaf), _spread(leaf)) for leaf in leaves)
    settings_of = tuple(sorted(settings.items()))
    return _compiled(make, kernel, type(target), target.structure, tree, shapes, settings_of, _own(kernel))


def _own(kernel: Inference) -> Any:
    """The content of an algorithm that is not probgen's; something new at every call where that cannot be told."""
    if is_library(type(kernel).__module__):
        return None
    return reads_of(type(kernel)).mark or object()


@functools.lru_cache(maxsize=128)
def _compiled(
    make: Callable[..., Any], kernel: Inference, kind: type, structure: Any, tree: Any, shapes: tuple, settings: tuple,
    own: Any,
) -> Code:  # fmt: skip
    mappings.relieve(_compiled.cache_clear, _density.cache_clear)
    leaves = [jax.ShapeDtypeStruct(shape, dtype, sharding=spread) for shape, dtype, spread in shapes]
    file = _file(make, kernel, kind, structure, tree, leaves, settings, own)
    if file:
        with contextlib.suppress(Exception):  # absent or cut short
            return _read(file, jax.devices() if any(spread for *_, spread in shapes) else jax.devices()[:1])
    shape: list[Any] = []

    def flat(*leaves: Any) -> tuple[Any, ...]:
        arrays, *arguments = jax.tree.unflatten(tree, leaves)
        out, found = jax.tree.flatten(make(kernel, kind(structure, arrays), *arguments, **dict(settings)))
        shape.append(found)
        return tuple(out)

    lowered = jax.jit(flat).lower(*leaves)
    text = "" if runtime.accelerator() else lowered.as_text()
    rows = pools.rows(text)
    options = OPTIONS.get(make, {}) | (pools.one_by_one() if rows else {})
    with (
        runtime.no_compile_cache() if file or rows else contextlib.nullcontext(),
        watch.doing(f"XLA compiles `{make.__name__}` of {type(kernel).__name__}"),
    ):
        executable = _in_a_thread(lambda: lowered.compile(compiler_options=options))
    kept = None
    if file or (rows and "callback" not in text):
        with contextlib.suppress(Exception):  # code that cannot be written down
            kept = serialize_executable.serialize(executable)
    if file and kept:
        with contextlib.suppress(Exception):  # a full disk
            _write(file, (kept, shape[0], rows))
    return Code(executable, kept if rows else None, shape[0], rows)


def _in_a_thread(job: Callable[[], Any]) -> Any:
    """The result of a job in a thread with this one's precision, so that Ctrl-C need not wait for XLA."""
    wide = jax.config.jax_enable_x64

    def scoped() -> Any:
        with jax.enable_x64(wide):
            return job()

    return watch.apart([scoped])[0]


def _dtype(leaf: Any) -> Any:
    """The type that an array or number has in compiled code."""
    return leaf.dtype if isinstance(leaf, jax.Array) else jnp.result_type(leaf)


def _on_host(leaf: Any) -> Any:
    """An array of the CPU's memory as NumPy's, which costs no copy; random keys, which NumPy has no type for, as they are."""
    keys = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if keys else np.asarray(leaf)


def _moved(leaves: Any, device: Any) -> list[Any]:
    """Arrays that one client has for the code of another: by way of the host, where a move by JAX would copy each of them."""
    held = [_on_host(leaf) for leaf in leaves]
    return [jax.device_put(leaf, device) if isinstance(leaf, jax.Array) else leaf for leaf in held]


def _spread(leaf: Any) -> Any:
    """How an array lies on several devices; None where it lies on one."""
    found = getattr(leaf, "sharding", None)
    return found if isinstance(found, NamedSharding) else None


def _file(*parts: Any) -> Path | None:
    """Where an executable is kept."""
    make, kernel, kind, structure, tree, leaves, settings, own = parts
    if os.environ.get("PROBGEN_CACHE") == "" or not isinstance(own, bytes | None):
        return None
    arrays = jax.tree.unflatten(tree, leaves)[0]
    density = _density(kind, structure, tuple(sorted(arrays.items())))
    if "callback" in density:  # an address of this process
        return None
    if getattr(jax.config, "jax_use_simplified_jaxpr_constants", False):  # constants are arguments, and not in the text
        return None
    said = (make.__name__, repr(kernel), kind.__name__, density, str(tree), str(leaves), settings, own, _machine())
    return runtime.cache_dir() / "executables" / hashlib.sha256(repr(said).encode()).hexdigest()


@functools.lru_cache(maxsize=128)
def _density(kind: type, structure: Any, shapes: tuple) -> str:
    """What a target of arrays of some shapes computes, as text."""
    return kind(structure, dict(shapes)).lowered()


@functools.cache
def _machine() -> str:
    """What an executable depends on beside what is computed: versions, flags, processor, probgen's sources."""
    import jaxlib
    from numpy._core._multiarray_umath import __cpu_features__

    device = jax.devices()[0]
    package = Path(__file__).parents[1]
    folders = (package.parent / "inference", package)
    sources = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        sources.update(file.read_bytes())
    flags = {k: v for k, v in jax.config.values.items() if "cache" not in k}
    return repr((
        jax.__version__, jaxlib.__version__, flags, os.environ.get("XLA_FLAGS"), device.platform, device.device_kind,
        __cpu_features__, sources.hexdigest(),
    ))  # fmt: skip


@functools.cache
def _ready() -> None:
    """LAPACK's addresses are looked up by lowering a call of it, and a loaded executable lowers none."""
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), np.float32))


def _loaded(kept: Any, devices: list[Any]) -> Any:
    """The executable on devices of one client."""
    _ready()
    load = serialize_executable.deserialize_and_load
    return load(*kept, backend=devices[0].client, execution_devices=devices)


def _read(file: Path, devices: list[Any]) -> Code:
    """The code of a file; with LAPACK it is loaded where it will run."""
    kept, shape, rows = pickle.loads(file.read_bytes())
    if rows and len(devices) == 1:
        return Code(None, kept, shape, rows)
    return Code(_loaded(kept, devices), None, shape, rows)


def _write(file: Path, found: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(pickle.dumps(found))
    os.replace(part.name, file)


# ---- what is compiled --------------------------------------------------------------------------------------------


def init(kernel: Inference, target: Any, key: Any) -> Any:
    """The state of one chain before its first step."""
    return kernel.init(key, target)


def chunk(kernel: Inference, target: Any, key: Any, state: Any, start: Any, stop: Any, *, capacity: int) -> Any:
    """Steps start..stop-1 of one chain, at most `capacity`; how a run is cut into chunks changes nothing in it."""
    step = lambda i, s: kernel.step(jax.random.fold_in(key, i), s, target)  # noqa: E731
    if getattr(kernel, "thin", 1) > 1:
        step = lambda i, s: thinning.step(kernel, key, i, s, target)  # noqa: E731
    _, shapes = jax.eval_shape(step, start, state)
    records = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), shapes)

    def body(carry: Any) -> Any:
        i, state, records = carry
        state, info = step(i, state)
        return i + 1, state, jax.tree.map(lambda r, a: r.at[i - start].set(a), records, info)

    def until(end: Any, carry: Any) -> Any:
        return lax.while_loop(lambda carry: carry[0] < end, body, carry)

    def block(carry: Any) -> Any:
        """To the next look, or to the end; a look at every step would copy the state every time."""
        i, state, records = until(jnp.minimum(stop, (carry[0] // kernel.period + 1) * kernel.period), carry)
        info = jax.tree.map(lambda r: r[i - 1 - start], records)
        look = lambda: kernel.look(state, info, target)  # noqa: E731
        state, info = lax.cond(i % kernel.period == 0, look, lambda: (state, info))
        return i, state, jax.tree.map(lambda r, a: r.at[i - 1 - start].set(a), records, info)

    carry = start, state, records
    _, state, records = (
        lax.while_loop(lambda carry: carry[0] < stop, block, carry) if kernel.period else until(stop, carry)
    )
    return state, records


def answer(kernel: Any, target: Any, key: Any, state: Any) -> Any:
    """What a learner reads off its state."""
    return kernel.answer(key, state, target)


def init_at(kernel: Inference, target: Any, key: Any, begin: Any) -> Any:
    """The same, where the chain begins at a given point."""
    target.begin_at = begin
    return kernel.init(key, target)


def init_many_at(kernel: Inference, target: Any, keys: Any, begin: Any) -> Any:
    """`init_at` of all chains at once."""
    return jax.vmap(lambda key, begin: init_at(kernel, target, key, begin))(keys, begin)


def init_many(kernel: Inference, target: Any, keys: Any) -> Any:
    """`init` of all chains at once."""
    return jax.vmap(lambda key: kernel.init(key, target))(keys)


def chunk_many(
    kernel: Inference, target: Any, keys: Any, states: Any, start: Any, stop: Any, *, capacity: int, blocks: int = 1
) -> Any:
    """`chunk` of all chains at once, or of one block after the other."""
    step = jax.vmap(lambda key, state: chunk(kernel, target, key, state, start, stop, capacity=capacity))
    if blocks == 1:
        return step(keys, states)
    count = len(keys)  # said outright: arrays of a state may be empty
    apart = jax.tree.map(lambda a: a.reshape(blocks, count // blocks, *a.shape[1:]), (keys, states))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), lax.map(lambda block: step(*block), apart))


# `init` and `answer` run once a chain: half the compile time is worth more than the last bit of speed.
OPTIONS = {make: {"xla_backend_optimization_level": 1} for make in (init, init_at, answer)}


_folded = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
MANY = 64  # chains that are vectorised on a CPU
BLOCK = 1024  # of them at a time, so that their states stay in the processor's cache


# ---- the chains of a run -----------------------------------------------------------------------------------------


def _blocks(num_chains: int) -> int:
    """Into how many equal blocks chains are cut; 1 where they cannot be cut into blocks of about `BLOCK`."""
    size = next(size for size in range(min(BLOCK, num_chains), 0, -1) if num_chains % size == 0)
    return num_chains // size if size >= BLOCK // 4 else 1


class Executor:
    """Runs the chains of a kernel: a thread a core over one compiled chain on CPU, vectorised on an accelerator.

    On a CPU, too, many chains are vectorised where every step costs the same. Vectorised chains are spread over all devices
    where they divide evenly among them.
    """

    def __init__(self, inference: Inference, target: Any, seed: int, num_chains: int):
        self.kernel, self.target, self.num_chains = inference.kernel(), target, num_chains
        self.precision = target.precision
        many = runtime.accelerator() or (inference.steady and num_chains >= MANY)
        self.vectorised = inference.together or (many and isinstance(inference, Sampler))
        self.workers = min(num_chains, runtime.cores())
        self.narrow = self.workers > 1 or runtime.one_of_several()
        self.spread = runtime.spread(num_chains) if self.vectorised and isinstance(inference, Sampler) else None
        if self.spread and not runtime.accelerator() and self._calls_lapack():
            self.spread = None  # devices of a CPU share one pool of threads, where LAPACK's calls wait for each other
        if self.spread:
            everywhere = NamedSharding(self.spread.mesh, PartitionSpec())
            self.target = jax.device_put(target, everywhere)
        with runtime.in_precision(self.precision):
            key, chains = jax.random.key(seed), range(num_chains)
            fold = jax.random.fold_in  # of a few chains one by one, which needs no code of their number
            self.keys = _folded(key, np.arange(num_chains)) if self.vectorised else [fold(key, c) for c in chains]
        self.states: Any = None
        self.capacity = int(np.clip(2**20 // (target.dim + 8), 16, 1024))
        if self.vectorised:
            self.capacity = int(np.clip(2**24 // (num_chains * (target.dim + 8)), 1, 1024))
        self.blocks = 1 if self.spread or runtime.accelerator() else _blocks(num_chains)

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
                return jax.block_until_ready(code(*arguments(chain), narrow=self.narrow))

        jobs = [functools.partial(scoped, chain) for chain in range(self.num_chains)]
        return watch.apart(jobs, 1 if code.alone else self.workers)

    def _all(self, code: Code, *arguments: Any, what: str) -> Any:
        """The code of all chains at once, in a thread that Ctrl-C can leave."""
        with watch.doing(what):
            return _in_a_thread(lambda: jax.block_until_ready(code(*arguments)))

    def _code(self, make: Callable[..., Any], *arguments: Any, **settings: Any) -> Code:
        with runtime.tracing(self.precision):
            return compiled(make, self.kernel, self.target, *arguments, **settings)

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
            keys = [jax.random.fold_in(key, start) for key in self.keys]
            at = lambda c: () if begin is None else (jax.tree.map(lambda a: jnp.asarray(a[c]), begin),)  # noqa: E731
            starts = [at(c) for c in range(self.num_chains)]
        code = self._code(init_at if starts[0] else init, keys[0], *starts[0])
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
            code = self._code(chunk, self.keys[0], self.states[0], *span, capacity=self.capacity)
            given = lambda c: (self.target.arrays, self.keys[c], self.states[c], *span)  # noqa: E731
            states, parts = zip(*self._each(code, given, what), strict=True)
            self.states, records = list(states), {k: np.stack([getattr(p, k) for p in parts]) for k in parts[0]._fields}
        return {k: np.asarray(v)[:, : stop - start] for k, v in records.items()}

    def answer(self) -> dict[str, np.ndarray]:
        """What a learner reads off its final state."""
        key = jax.random.fold_in(self.keys[0], 2**31 - 2)
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

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        with runtime.tracing(self.precision):
            key = jax.random.key(0)
            one = jax.eval_shape(self.kernel.init, key, self.target)
            shapes = [one] * self.num_chains
            if self.vectorised:
                shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.num_chains, *a.shape), a.dtype), one)
            leaves, tree = jax.tree.flatten(shapes)
            values = [jnp.asarray(arrays[f"{i:04d}"], leaf.dtype) for i, leaf in enumerate(leaves)]
            if [v.shape for v in values] != [leaf.shape for leaf in leaves]:
                raise ValueError("The checkpoint's state has other shapes than this program and these settings give.")
            self.states = self._placed(jax.tree.unflatten(tree, values))
