#!/usr/bin/env bash
# The emitters of fused loops that jaxlib 0.10 turns on by default on a CPU make XLA take twice as long over a sampler's code, which runs
# no faster for it. jax and jaxlib 0.10.2, numpyro 0.22.0. Seen, NUTS on eight schools, seconds and microseconds of CPU on two cores,
# three runs: compiling 1.95, 1.77, 1.70 as it is and .92, .88, .90 with xla_cpu_use_fusion_emitters=False; a gradient 7.4, 7.6, 7.8
# and 7.1, 7.5, 7.7. On data of some 10,000 numbers and more the loops that they make are faster (a third, 1,000 x 20).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
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
spent = {}
for name, options in {"as it is": {}, "without": {"xla_cpu_use_fusion_emitters": False}}.items():
    lowered, begun = run.lower(state), time.process_time()
    code = lowered.compile(compiler_options=options)
    compiling, begun = time.process_time() - begun, time.process_time()
    for _ in range(3):
        _, steps = jax.block_until_ready(code(state))
    spent[name] = compiling, (time.process_time() - begun) / 3 / int(steps.sum()) * 1e6
    print(f"{name}: compiling {compiling:.2f} s, running {spent[name][1]:.2f} us a gradient")
(slow, warm), (quick, also) = spent.values()
assert slow > 1.4 * quick and also < 1.3 * warm, "the behaviour has changed"
PY
