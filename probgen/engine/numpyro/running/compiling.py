"""Compiled code of a kernel: made once, kept in memory and on disk, read again by the next process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable
from jax.sharding import NamedSharding

from probgen import pools, runtime, watch
from probgen.algorithm import Inference
from probgen.engine.numpyro.running import mappings, together
from probgen.engine.numpyro.running.options import options
from probgen.programs.contents import is_library
from probgen.programs.reads import reads_of


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
        return bool((self.rows or elsewhere()) and self.kept and pools.possible())

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
            return _moved(out, jax.local_devices()[0])

    def _here(self) -> Any:
        if self.executable is None:
            self.executable = _loaded(self.kept, jax.local_devices()[:1])
        return self.executable


@functools.cache
def elsewhere() -> bool:
    """Whether this process's CPU has another number than the first of a JAX of several processes has, which written code names.

    What is compiled is then for a pool's, whose number is the same everywhere, and runs in pools alone.
    """
    return not runtime.accelerator() and jax.local_devices()[0].id != 0 and pools.possible()


def begun(make: Callable[..., Any], kernel: Inference, target: Any, *arguments: Any, **settings: Any) -> Begun:
    """`make(kernel, target, *arguments, **settings)` for the shapes of target and arguments, which may be given as shapes.

    From this process, else from the disk, else compiled now, in a thread. The code takes (target.arrays, *arguments).
    """
    leaves, tree = jax.tree.flatten((target.arrays, *arguments))
    shapes = tuple((jnp.shape(leaf), _dtype(leaf), _spread(leaf)) for leaf in leaves)
    settings_of = tuple(sorted(settings.items()))
    return _begun(make, kernel, type(target), target.structure, tree, shapes, settings_of, own(kernel))


def own(kernel: Inference) -> Any:
    """The content of an algorithm that is not probgen's; something new at every call where that cannot be told."""
    if is_library(type(kernel).__module__):
        return None
    return reads_of(type(kernel)).mark or object()


class Begun(NamedTuple):
    """Code that XLA is at work on: `code()` waits for it.

    shapes: of what the code gives back, a pytree; None where it was there already. size: of its text, in characters.
    """

    code: Callable[[], Code]
    shapes: Any = None
    size: int = 0


@functools.lru_cache(maxsize=128)
def _begun(
    make: Callable[..., Any], kernel: Inference, kind: type, structure: Any, tree: Any, shapes: tuple, settings: tuple,
    own: Any,
) -> Begun:  # fmt: skip
    """Python's part here, XLA's in a thread."""
    mappings.relieve(_begun.cache_clear, _density.cache_clear)
    leaves = [jax.ShapeDtypeStruct(shape, dtype, sharding=spread) for shape, dtype, spread in shapes]
    shared = any(
        spread and not spread.is_fully_addressable for *_, spread in shapes
    )  # by processes that run it in step
    file = None if shared else _file(make, kernel, kind, structure, tree, leaves, settings, own)
    if file:
        with contextlib.suppress(Exception):  # absent, cut short, or not this user's
            devices = jax.local_devices() if any(spread for *_, spread in shapes) else jax.local_devices()[:1]
            code = _read(file, devices)
            return Begun(lambda: code)
    found: list[Any] = []

    def flat(*leaves: Any) -> tuple[Any, ...]:
        arrays, *arguments = jax.tree.unflatten(tree, leaves)
        out, shape = jax.tree.flatten(make(kernel, kind(structure, arrays).ready(), *arguments, **dict(settings)))
        found.append(shape)
        return tuple(out)

    there = elsewhere() and not shared
    traced = jax.jit(flat, out_shardings=together.everywhere()) if shared else jax.jit(flat)
    with together.cutting(shared), jax.default_device(pools.side()) if there else contextlib.nullcontext():
        lowered = traced.lower(*leaves)
    text = "" if runtime.accelerator() else lowered.as_text()
    if there and "callback" in text:  # which cannot be written down
        lowered = jax.jit(flat).lower(*leaves)
    rows, shape = pools.rows(text), found[0]
    density = _density_of(kind, structure, tree, leaves)
    arrays = jax.tree.leaves(jax.tree.unflatten(tree, leaves)[0])
    asked = options(make, kernel, leaves, arrays, density) | (pools.one_by_one() if rows else {})
    out = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in jax.tree.leaves(lowered.out_info)]
    wide, work = runtime.wide(), [lowered]  # which the job takes with it

    def finish() -> Code:
        with (
            jax.enable_x64(wide),
            _begun_anew(),
            runtime.no_compile_cache() if file or rows or shared else contextlib.nullcontext(),
            watch.doing(f"XLA compiles `{make.__name__}` of {type(kernel).__name__}"),
        ):
            executable = work.pop().compile(compiler_options=asked)
        kept = None
        if file or ((rows or there) and not shared and "callback" not in text):
            with contextlib.suppress(Exception):  # code that cannot be written down
                kept = serialize_executable.serialize(executable)
        if file and kept:
            with contextlib.suppress(Exception):  # a full disk
                _write(file, (kept, shape, rows))
        return Code(executable, kept if rows or there else None, shape, rows)

    return Begun(watch.Beside(finish).result, jax.tree.unflatten(shape, out), len(text))


@contextlib.contextmanager
def _begun_anew() -> Iterator[None]:
    """Where XLA fails, the next who asks tries again."""
    try:
        yield
    except Exception:
        _begun.cache_clear()
        raise


def _in_a_thread(job: Callable[[], Any]) -> Any:
    """The result of a job in a thread with this one's precision, so that Ctrl-C need not wait for XLA."""
    wide = runtime.wide()

    def scoped() -> Any:
        with jax.enable_x64(wide):
            return job()

    return watch.apart([scoped])[0]


def _dtype(leaf: Any) -> Any:
    """The type that an array or number has in compiled code."""
    return leaf.dtype if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else jnp.result_type(leaf)


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
    if not isinstance(own, bytes | None) or not runtime.keeps_code():
        return None
    density = _density_of(kind, structure, tree, leaves)
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


def _density_of(kind: type, structure: Any, tree: Any, leaves: list[Any]) -> str:
    """The same of leaves of a target's arrays and what goes with them."""
    return _density(kind, structure, tuple(sorted(jax.tree.unflatten(tree, leaves)[0].items())))


def _sources() -> list[Path]:
    """All files of probgen and of its algorithms, wherever these lie: beside the package in a checkout, in it in a wheel."""
    package, found = Path(__file__).parents[3], importlib.util.find_spec("probgen.inference")
    inference = [Path(folder) for folder in (found and found.submodule_search_locations) or ()]
    return sorted({file for folder in (package, *inference) for file in folder.rglob("*.py")})


@functools.cache
def _machine() -> str:
    """What an executable depends on beside what is computed: versions, flags, processor, probgen's sources."""
    import jaxlib
    from numpy._core._multiarray_umath import __cpu_features__

    device = jax.local_devices()[0]
    sources = hashlib.sha256()
    for file in _sources():
        sources.update(file.read_bytes())
    flags = {k: v for k, v in jax.config.values.items() if "cache" not in k}
    return repr((
        jax.__version__, jaxlib.__version__, flags, runtime.xla_flags(), device.platform, device.device_kind,
        __cpu_features__, sources.hexdigest(),
        device.id if runtime.accelerator() else 0,
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
    """The code of a file that this user wrote; with LAPACK it is loaded where it will run.

    A pickle runs what it says, so that nothing is read which another user could have put there.
    """
    if not runtime.is_own(file):
        raise PermissionError(f"{file} could have been written by another user")
    kept, shape, rows = pickle.loads(file.read_bytes())
    if (rows or elsewhere()) and len(devices) == 1:
        return Code(None, kept, shape, rows)
    return Code(_loaded(kept, devices), None, shape, rows)


def _write(file: Path, found: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(pickle.dumps(found))
    os.replace(part.name, file)


_folded = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
