"""What all tests share: a compile cache of their own, a watch over process globals, child processes, skips."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probgen import runtime, watch  # noqa: F401  runtime before anything starts JAX: the order of its operations

# Tests compile much and run it briefly: code that LLVM leaves as it is takes a third of the time, here and in child processes.
# In one piece it takes less time still and half the maps of memory, at whose limit all compiled code is forgotten.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1",
)  # fmt: skip
if version("jaxlib").startswith("0.10.") and "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *QUICK_TO_COMPILE))

# Where in its source an operation stands is written into all code that is lowered: a twentieth of the time of a first fit.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

needs_pyro = pytest.mark.skipif(
    importlib.util.find_spec("pyro") is None, reason="Pyro is not installed: its engine is not tested"
)
ENGINES = ["numpyro", pytest.param("pyro", marks=needs_pyro)]


def pytest_configure(config: pytest.Config) -> None:
    """A fresh compile cache for the session, and a thread of torch for each of several workers; child processes inherit them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts jobs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "PYTEST_XDIST_WORKER" not in os.environ and "PROBGEN_CACHE" not in os.environ:
        os.environ["PROBGEN_CACHE"] = config.stash[CACHE] = tempfile.mkdtemp(prefix="probgen-tests-")
    if "PYTEST_XDIST_WORKER" in os.environ and importlib.util.find_spec("torch"):
        importlib.import_module("torch")  # its generator is watched in every test, whichever imports it first


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(CACHE, None):
        os.environ.pop("PROBGEN_CACHE")
        shutil.rmtree(folder, ignore_errors=True)


ALONE = ("test_examples", "test_hangs", "test_kill_kinds")  # what these compile is another process's


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker gets a whole file, so that fixtures are made once and what is compiled is at hand; files of many tests first."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if Path(file).stem in ALONE else file

    return Files(config, log)


SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text().splitlines())


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that a list of measured ones names are slow."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What the imports made stays: without this every full collection of garbage goes through a million objects.

    And tracing makes many objects: at Python's own threshold of 700 new ones a twentieth of the time is collection.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


MOST = float(os.environ.get("PROBGEN_TEST_GIB", "4"))  # of a worker's memory, before what JAX keeps is dropped


@pytest.fixture(autouse=True, scope="module")
def little_memory() -> Iterator[None]:
    """After a file what JAX has compiled is dropped where it is much: a worker would hold 8 GiB of it at the end.

    What is left stays out of further collections of garbage, which are a twentieth of the time otherwise.
    """
    yield
    statm = Path("/proc/self/statm")
    if "jax" in sys.modules and statm.exists() and int(statm.read_text().split()[1]) * 4096 > MOST * 2**30:
        import jax

        gc.unfreeze()
        jax.clear_caches()
        gc.collect()
    gc.freeze()


CACHE = pytest.StashKey[str]()


def process_globals() -> dict[str, Any]:
    """Everything that a library could leave changed behind a user's back, of the packages loaded so far."""
    state: dict[str, Any] = {}
    if "jax" in sys.modules:  # whose import draws from NumPy's generator
        import jax

        state["numpy.random"] = hash(str(np.random.get_state()))  # noqa: NPY002
        state |= {f"jax.{key}": value for key, value in jax.config.values.items()}
        state["jax.x64 here"] = jax.config.jax_enable_x64
    if "numpyro" in sys.modules:
        import numpyro

        state["numpyro validation"] = numpyro.distributions.Distribution._validate_args
        state["numpyro handlers"] = list(numpyro.primitives._PYRO_STACK)
    if "torch" in sys.modules:
        import torch

        state |= {
            "torch dtype": torch.get_default_dtype(),
            "torch threads": torch.get_num_threads(),
            "torch validation": torch.distributions.Distribution._validate_args,
            "torch gradients": torch.is_grad_enabled(),
            "torch.random": hash(torch.get_rng_state().numpy().tobytes()),
        }
    if "pyro" in sys.modules:
        import pyro

        state["pyro settings"] = pyro.settings.get()
        state["pyro parameters"] = dict(pyro.get_param_store())
        state["pyro handlers"] = list(pyro.poutine.runtime._PYRO_STACK)
    return state


@pytest.fixture(autouse=True)
def _globals_are_left_alone() -> Iterator[None]:
    before = process_globals()
    yield
    watch.finish()  # a start alone, whose steps are compiled beside it
    after = process_globals()
    changed = {key: (value, after.get(key)) for key, value in before.items() if after.get(key) != value}
    assert not changed, f"process globals changed: {changed}"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small products of torch on a busy machine: a team of threads waits for itself."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of kernels compiled with LLVM's optimisation, as a user has them: for tests that run more than they compile."""
    from probgen.engine.numpyro.running import compiling, loops

    before, level = compiling.options, {"xla_backend_optimization_level": 1}
    steps = (loops.chunk, loops.chunk_many)
    monkeypatch.setattr(compiling, "options", lambda make, *given: level if make in steps else before(make, *given))


def python(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a child process; its output is captured."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, **keywords)


class Killed(Exception):
    """Stands for a kill after a checkpoint."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Calls a function that writes a run, and stops it after its first checkpoint."""
    from probgen.run.store import Store

    commit = Store.commit

    def stop(*given: Any) -> None:
        commit(*given)
        raise Killed

    def run(function: Callable[..., Any], *given: Any, **keywords: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", stop)
            with pytest.raises(Killed):
                function(*given, **keywords)

    return run
