"""XLA's operations on few cores."""

from conftest import python

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
