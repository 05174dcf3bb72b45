#!/usr/bin/env bash
# NumPyro's enumeration through `scan` depends on the order of two independent lines: with a local finite site before the state of
# the chain the log density is another number than with the same site after it. Only the second one is that of the model.
# numpyro 0.22.0, funsor 0.4.8, jax 0.10.2. Seen: local site first -5.4308, state first -8.1867, by hand -8.1867.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpyro==0.22.0 funsor==0.4.8 jax==0.10.2 jaxlib==0.10.2
"$folder/venv/bin/python" - <<'PY'
import itertools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor import log_density as enumerated
from numpyro.infer.util import log_density

y, move = jnp.array([0.2, -1.1, 1.4, 2.0, -0.3]), jnp.array([[0.8, 0.2], [0.3, 0.7]])


def program(local_first):
    def step(x, y):
        z = numpyro.sample("z", dist.Bernoulli(0.3)) if local_first else None
        x = numpyro.sample("x", dist.Categorical(move[x]))
        z = z if local_first else numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * x - 1 + z, 0.8), obs=y)
        return x, None

    scan(step, jnp.array(0), y)


def joint(values):
    x, z = values[:5], values[5:]
    seeded = handlers.seed(program, jax.random.key(0))
    return log_density(seeded, (True,), {}, {"x": x, "z": z})[0]


states = jnp.array(list(itertools.product((0, 1), repeat=10)))
by_hand = float(logsumexp(jax.lax.map(joint, states)))
found = {}
for local_first in (True, False):
    marked = enum(config_enumerate(handlers.seed(program, jax.random.key(0))), -1)
    found[local_first] = float(enumerated(marked, (local_first,), {}, {})[0])
print(f"local site first {found[True]:.4f}, state first {found[False]:.4f}, by hand {by_hand:.4f}")
assert abs(found[False] - by_hand) < 1e-3, "the behaviour has changed"
assert abs(found[True] - by_hand) > 0.1, "the behaviour has changed"
PY
