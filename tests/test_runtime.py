"""XLA's operations on few cores."""

import os
import threading

import pytest
from conftest import python

from probgen import runtime, watch

LAPACK = """
from probgen import runtime
import jax, jax.numpy as jnp

@jax.jit
def many(x):
    spd = x @ x.swapaxes(1, 2) + 20 * jnp.eye(20)
    found = [f(spd + i * jnp.eye(20)) for i in range(6) for f in (jnp.linalg.cholesky, lambda a: jax.scipy.linalg.lu_factor(a)[0])]
    return sum(a.sum() for a in found)

x = jax.random.normal(jax.random.key(0), (200, 20, 20))
for _ in range(100):
    many(x).block_until_ready()
"""


def test_many_lapack_calls_of_one_program_do_not_wait_for_each_other():
    done = python("-c", LAPACK)
    assert done.returncode == 0, done.stderr


def test_the_compile_cache_is_off_while_any_thread_wants_none():
    import jax

    before = jax.config.jax_enable_compilation_cache
    first, second = runtime.no_compile_cache(), runtime.no_compile_cache()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not jax.config.jax_enable_compilation_cache
    second.__exit__(None, None, None)
    assert jax.config.jax_enable_compilation_cache == before


def test_work_beside_the_callers_own():
    """It is waited for, and raises what it raised."""
    go = threading.Event()
    job = watch.Beside(lambda: go.wait(10))
    go.set()
    assert job.result() is True
    with pytest.raises(ZeroDivisionError):
        watch.Beside(lambda: 1 / 0).result()


LOOP = """
{before}
from probgen import runtime
import jax, jax.numpy as jnp
loop = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda _, x: jnp.cos(x) + jnp.sum(x), x))
print('xla_cpu_small_call="true"' in loop.lower(jnp.ones(1000), 5).compile().as_text())
"""


@pytest.mark.parametrize(("before", "flags", "whole"), [
    ("", "", "True"),
    ("import jax; jax.numpy.ones(1)", "", "False"),
    ("", "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1024", "False"),
])  # fmt: skip
def test_a_small_loop_is_one_function_unless_jax_began_or_the_user_says_otherwise(before, flags, whole):
    done = python("-c", LOOP.format(before=before), env={**os.environ, "XLA_FLAGS": flags})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == whole


def test_flags_in_a_file_are_left_as_they_are(tmp_path):
    """XLA_FLAGS may name a file; the process ended where flags were added to its name. What the file says is seen."""
    file = tmp_path / "flags"
    file.write_text(f"--{runtime.LEVEL}=2\n")
    source = "from probgen import runtime\nimport jax\njax.numpy.ones(1)\nprint(runtime.xla_flags())"
    done = python("-c", source, env={**os.environ, "XLA_FLAGS": str(file)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == file.read_text().strip()
