#!/usr/bin/env bash
# NumPyro cannot enumerate a mixture whose component means are a site with a batch dimension and no plate of their own: the plate over
# the rows that follows raises KeyError with the plate's name. The same program with .to_event(1) runs.
# numpyro 0.22.0, funsor 0.4.8, jax 0.10.2. Seen: KeyError 'n', then a log density of -81.6 with to_event(1).
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
from numpyro import handlers
from numpyro.contrib.funsor import config_enumerate, enum, log_density


def program(event):
    m = numpyro.sample("m", dist.Normal(0.0, 5.0).expand([2]).to_event(event))
    with numpyro.plate("n", 40):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
        numpyro.sample("y", dist.Normal(m[z], 1.0), obs=jnp.zeros(40))


def density(event):
    marked = enum(config_enumerate(handlers.seed(lambda: program(event), jax.random.key(0))), -2)
    return float(log_density(marked, (), {}, {"m": jnp.array([1.0, 2.0])})[0])


try:
    density(0)
except KeyError as error:
    print("KeyError", error, f"then {density(1):.1f} with to_event(1)")
else:
    raise SystemExit("the behaviour has changed")
PY
