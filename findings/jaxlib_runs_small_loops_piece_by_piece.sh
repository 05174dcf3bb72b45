#!/usr/bin/env bash
# XLA runs a loop on a CPU piece by piece, at some 50 ns a piece, unless its body touches less than 1,024 bytes; then the loop is one
# function. The bound is xla_cpu_small_while_loop_byte_threshold, one of xla_backend_extra_options, which no page of JAX's names. With
# 300,000 NumPyro's NUTS takes an eighth of the time on eight schools. jax and jaxlib 0.10.2, numpyro 0.22.0. Seen, CPU microseconds
# a gradient, two runs: 5.62 and 5.69 as it is, .58 and .69 with the larger bound.
# A loop with a call of LAPACK, or a product of matrices that is left to a library, stays in pieces at any bound.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6
cat > "$folder/spent.py" <<'PY'
import time

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

y = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
sd = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools():
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, sd), obs=y)


kernel = NUTS(schools)
state = kernel.init(jax.random.key(0), 500, None, (), {})
run = jax.jit(lambda state: jax.lax.scan(lambda s, _: (kernel.sample(s, (), {}), s.num_steps), state, None, length=1000))
jax.block_until_ready(run(state))
begun = time.process_time()
for _ in range(3):
    _, steps = jax.block_until_ready(run(state))
print((time.process_time() - begun) / 3 / int(steps.sum()) * 1e6)
PY
spent() { XLA_FLAGS="${1:-}" "$folder/venv/bin/python" "$folder/spent.py"; }
pieces=$(spent)
whole=$(spent --xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=300000)
echo "CPU microseconds a gradient: $pieces in pieces, $whole as one function"
"$folder/venv/bin/python" -c "assert $pieces > 3 * $whole, 'the behaviour has changed'"
