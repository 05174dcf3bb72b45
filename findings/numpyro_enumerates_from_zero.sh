#!/usr/bin/env bash
# NumPyro's enumeration takes 0, 1, ... as the values of a finite site, whatever its support: of k ~ DiscreteUniform(2, 4) it sums
# over 0, 1, 2. The log density is then that of another model; with validation on, a warning speaks of values out of support.
# numpyro 0.22.0, funsor 0.4.8, jax 0.10.2. Seen: enumerated by NumPyro -8.5044, by hand -5.1554.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpyro==0.22.0 funsor==0.4.8 jax==0.10.2 jaxlib==0.10.2
"$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.contrib.funsor import config_enumerate, enum, log_density

y = jnp.array([3.3, 2.6, 4.1, 3.0])


def program():
    k = numpyro.sample("k", dist.DiscreteUniform(2, 4))
    with numpyro.plate("row", 4):
        numpyro.sample("y", dist.Normal(1.0 * k, 1.0), obs=y)


marked = enum(config_enumerate(handlers.seed(program, jax.random.key(0))), -2)
theirs = float(log_density(marked, (), {}, {})[0])
values = jnp.arange(2, 5)
by_hand = float(logsumexp(dist.Normal(1.0 * values[:, None], 1.0).log_prob(y).sum(1) - jnp.log(3.0)))
print(f"enumerated by NumPyro {theirs:.4f}, by hand {by_hand:.4f}")
assert abs(theirs - by_hand) > 1, "the behaviour has changed"
PY
