"""No run waits for ever: LAPACK in several chains, threads and fits at once; Ctrl-C at any moment; the watchdog.

What could hang runs in a child process with a time limit.
"""

import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_pyro, python

from probgen import pools, watch

LIMIT = 280  # seconds, of a child process that needs about 20 on two quiet cores
GP = """
import threading, numpy as np, numpyro as E, numpyro.distributions as dist, jax, jax.numpy as jnp, probgen as pg
from probgen import pools

x = np.linspace(0, 1, 40)
data = {"x": x, "y": np.sin(6 * x) + 0.1 * np.random.default_rng(0).normal(size=40)}

def gp(x, y=None):
    scale, length, noise = (E.sample(k, dist.LogNormal(0, 0.5)) for k in ("scale", "length", "noise"))
    K = scale**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise**2 + 1e-6) * jnp.eye(len(x))
    E.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), K), obs=y)

def run(inference="nuts", **settings):
    return pg.fit(gp, data, inference, num_warmup=30, num_samples=30, num_chains=4, progress=False, **settings)

def same(one, other):
    return all(np.array_equal(v, other.records[k], equal_nan=True) for k, v in one.records.items())
"""


def child(source, limit=LIMIT):
    """What a program prints, as a user would run it, without the flags of the tests; fails where it hangs or raises."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=limit, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- LAPACK --------------------------------------------------------------------------------------------------------


def test_a_gaussian_process_by_chains_at_once_one_by_one_and_in_threads_of_the_user():
    """Four chains at once return; the same bits come from chains one after the other, and from two threads; sbc returns."""
    told = child(
        GP
        + """
at_once = run()
possible, pools.possible = pools.possible, lambda: False
print("one by one", same(at_once, run()))
pools.possible = possible
found = {}
threads = [threading.Thread(target=lambda i=i: found.update({i: run()})) for i in range(2)]
[t.start() for t in threads], [t.join() for t in threads]
print("threads", [same(at_once, found[i]) for i in range(2)])
found[0].predict(x=x)
sbc = pg.sbc(gp, "nuts", data=data, num_simulations=20, num_warmup=30, num_samples=30, num_chains=4)
print("sbc", sbc.ranks.shape, sbc.failures)
"""
    )
    assert told.splitlines() == ["one by one True", "threads [True, True]", "sbc (20, 4) ()"]


def test_jax_that_began_before_probgen():
    """XLA's flag is too late then; a plate of Cholesky factors in chains at once, and a prior of many of them."""
    source = """
import jax
jax.numpy.ones(1).block_until_ready()
import numpy as np, numpyro as E, numpyro.distributions as dist, jax.numpy as jnp, probgen as pg
from probgen import runtime

def plates(y=None):
    with E.plate("group", 100):
        scale = E.sample("scale", dist.LogNormal(0, 0.5))
        cov = scale[:, None, None] ** 2 * jnp.eye(20) + 0.1
        E.sample("y", dist.MultivariateNormal(jnp.zeros(20), cov), obs=y)
        E.deterministic("roots", sum(jnp.linalg.cholesky(cov + i * jnp.eye(20))[:, 0, 0] for i in range(4)))

fit = pg.fit(plates, {"y": np.ones((100, 20))}, "random_walk", num_warmup=150, num_samples=10, num_chains=2, progress=False)
predicted = fit.predict()["y"].shape
print(runtime.ORDERED, fit.draws["scale"].shape, predicted)
"""
    assert child(source).strip() == "False (2, 10, 100) (2, 10, 100, 20)"


def test_code_that_cannot_be_loaded_elsewhere_runs_one_chain_after_the_other():
    """A callback into this process: no further client has it."""
    source = (
        GP
        + """
def called(x, y=None):
    a = E.sample("a", dist.LogNormal(0, 0.5))
    double, shape = lambda v: 2 * np.asarray(v), jax.ShapeDtypeStruct((), a.dtype)
    twice = jax.pure_callback(double, shape, jax.lax.stop_gradient(a), vmap_method="sequential")
    E.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), (a + 0 * twice) * jnp.eye(len(x))), obs=y)

fit = pg.fit(called, data, "random_walk", num_warmup=100, num_samples=20, num_chains=4, progress=False, precision="float32")
print(fit.draws["a"].shape)
"""
    )
    assert child(source).strip() == "(4, 20)"


def test_executions_on_narrow_pools_do_not_wait_for_each_other():
    """Two threads, each with the many matrices that make two threads on one pool wait for ever."""
    source = """
import threading, numpy as np
from probgen import pools
import jax, jax.numpy as jnp
a = np.tile(np.eye(20) * 3, (400, 1, 1))
def work():
    for _ in range(20):
        with pools.leased(narrow=True) as pool:
            b = jax.device_put(a, pool.device)
            jax.block_until_ready([jnp.linalg.cholesky(b), jax.scipy.linalg.lu_factor(b), jnp.linalg.eigh(b)])
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
print("done")
"""
    assert child(source).strip() == "done"


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (lambda x: x @ x, 0),
        (jnp.linalg.cholesky, 7),
        (lambda x: jax.vmap(jnp.linalg.eigh)(jnp.stack([x] * 50))[0], 7),
        (lambda x: jnp.linalg.qr(x[:, :3])[1], 7),
        (jnp.linalg.slogdet, 7),
        (lambda x: jnp.linalg.svd(x)[1], 7),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.linalg.solve(y, x), x), 7),
    ],
)
def test_lapack_is_found_in_lowered_code(function, rows):
    assert pools.rows(jax.jit(function).lower(jax.ShapeDtypeStruct((7, 7), np.float32)).as_text()) == rows


def test_blas_has_one_thread_within_and_its_threads_afterwards():
    threads = lambda: [library.num_threads for library in pools._libraries()]  # noqa: E731
    before = threads()
    with pools.one_blas_thread:
        with pools.one_blas_thread:
            assert set(threads()) <= {1}
        assert set(threads()) <= {1}
    assert threads() == before


# ---- threads of the user -----------------------------------------------------------------------------------------------

TWO_THREADS = {
    "numpyro": """
import numpyro as E, numpyro.distributions as dist
""",
    "pyro": """
import pyro as E, pyro.distributions as dist, torch
""",
}


@pytest.mark.parametrize("engine", ["numpyro", pytest.param("pyro", marks=needs_pyro)])
def test_two_programs_in_two_threads_are_not_mixed(engine):
    """Both libraries keep one stack of handlers a process; every thread gets the draws that it gets alone."""
    source = (
        TWO_THREADS[engine]
        + """
import sys, threading, numpy as np, probgen as pg
sys.setswitchinterval(1e-5)
y = np.linspace(-1, 2, 12)

def one(y):
    m = E.sample("m", dist.Normal(0.0, 1.0))
    with E.plate("row", len(y)):
        E.sample("y", dist.Normal(m, 1.0), obs=y)

def other(y):
    m, s = E.sample("m", dist.Normal(0.0, 5.0)), E.sample("s", dist.HalfNormal(1.0))
    with E.plate("row", len(y)):
        E.sample("y", dist.Normal(m, s), obs=y)

def run(program):
    fit = pg.fit(program, {"y": y}, "random_walk", num_warmup=40, num_samples=40, num_chains=2, progress=False)
    return {**fit.draws, **{f"predicted {k}": v.values for k, v in fit.predict().items()}}

found = {}
threads = [threading.Thread(target=lambda i=i: found.update({i: run((one, other)[i])})) for i in range(2)]
[t.start() for t in threads], [t.join() for t in threads]
alone = [run(one), run(other)]
print([all(np.array_equal(v, found[i][k]) for k, v in alone[i].items()) for i in range(2)])
"""
    )
    assert child(source).strip() == "[True, True]"


# ---- Ctrl-C ------------------------------------------------------------------------------------------------------------

START = {
    "numpyro": TWO_THREADS["numpyro"],
    "pyro": TWO_THREADS["pyro"],
}
PRESSED = """
import os, signal, sys, threading, numpy as np, probgen as pg
from probgen import watch
y, moment, doing = np.linspace(-1, 2, 12), sys.argv[1], watch.doing

def program(y):
    m = E.sample("m", dist.Normal(0.0, 1.0))
    with E.plate("row", len(y)):
        E.sample("y", dist.Normal(m, 1.0), obs=y)

def press(what):
    if moment in what:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    return doing(what)

watch.doing = press
if moment == "soon":
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
pg.fit(program, {"y": y}, "nuts", num_samples=10**6, num_chains=2, progress=False, out=sys.argv[2])
"""
MOMENTS = [
    ("numpyro", "soon"),
    ("numpyro", "compiles `init`"),
    ("numpyro", "compiles `chunk`"),
    pytest.param("pyro", "soon", marks=needs_pyro),
]


@pytest.mark.parametrize(("engine", "moment"), MOMENTS)
def test_ctrl_c_while_a_run_starts(engine, moment, tmp_path):
    """KeyboardInterrupt and the end of Python by SIGINT: no crash, no hang; a fresh start finds no obstacle."""
    run = tmp_path / "run"
    words = [sys.executable, "-c", START[engine] + PRESSED, moment, str(run)]
    empty = os.environ | {"PROBGEN_CACHE": str(tmp_path / "cache")}  # else there may be nothing to compile
    tick = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, env=empty)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.strip().endswith("KeyboardInterrupt"), done.stderr
    assert time.monotonic() - tick < LIMIT / 2
    assert not (run / "state.safetensors").exists()


def test_ctrl_c_within_the_compiler_waits_for_its_end():
    """Python crashes at its end where KeyboardInterrupt is raised as XLA's compiler returns."""
    source = """
import os, signal, threading, jax, jax.numpy as jnp
from probgen import watch

def long(x):
    for i in range(100):
        x = jnp.sin(x @ x) + jnp.cumsum(x, axis=i % 2) * i
    return x

lowered = jax.jit(long).lower(jnp.ones((30, 30)))
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
with watch.interruptible():
    lowered.compile()
    while True:
        jnp.ones(3).block_until_ready()
"""
    done = python("-c", source)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.strip().endswith("KeyboardInterrupt")


def test_the_first_ctrl_c_is_noted_where_there_are_draws_and_the_second_raises():
    with watch.interruptible() as ctrl_c:
        ctrl_c.keeps = True
        signal.raise_signal(signal.SIGINT)
        assert ctrl_c.pressed
        with watch.interruptible() as inner:
            assert inner is ctrl_c
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Pressing:
    """Has Ctrl-C pressed while it is collected."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


class Pressed:
    """What a weak reference knows of, whose callback has Ctrl-C pressed."""


def pressing(phase, info, pressed=[]):  # noqa: B006  once
    """As JAX's own callback of the garbage collector, with Ctrl-C in its midst."""
    if not pressed:
        pressed.append(phase)
        signal.raise_signal(signal.SIGINT)


def collected(way):
    """Collect garbage with Ctrl-C in its midst, and go on for a while."""
    if way == "a finaliser":
        Pressing()
    if way == "a weak reference":
        watched = Pressed()
        kept = weakref.ref(watched, lambda _: signal.raise_signal(signal.SIGINT))
        del watched
        assert kept() is None
    gc.collect()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("way", ["a finaliser", "a callback", "a weak reference"])
def test_ctrl_c_while_garbage_is_collected_is_not_lost(way):
    """Python drops what is raised there: the interrupt comes a moment later."""
    callbacks = [pressing] if way == "a callback" else []
    gc.callbacks.extend(callbacks)
    try:
        with watch.interruptible(), pytest.raises(KeyboardInterrupt):
            collected(way)
    finally:
        for callback in callbacks:
            gc.callbacks.remove(callback)


# ---- work in threads, the watchdog -----------------------------------------------------------------------------------------


def test_jobs_in_threads_give_results_in_order_and_the_first_error():
    assert watch.apart([functools.partial(pow, i, 2) for i in range(9)], 3) == [i**2 for i in range(9)]
    with pytest.raises(ZeroDivisionError):
        watch.apart([lambda: 1, lambda: 1 // 0, lambda: 2], 2)


def test_a_word_after_a_while_without_progress(monkeypatch, caplog):
    monkeypatch.setattr(watch, "PATIENCE", 0.06)
    monkeypatch.setattr(watch, "_watcher", None)
    with caplog.at_level(logging.WARNING, "probgen"), watch.doing("steps 1 to 2 of chain 0"):
        deadline = time.monotonic() + 20
        while "steps 1 to 2 of chain 0" not in caplog.text and time.monotonic() < deadline:
            threading.Event().wait(0.02)
    assert "No progress for" in caplog.text
    assert not watch._doing
