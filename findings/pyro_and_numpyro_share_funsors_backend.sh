#!/usr/bin/env bash
# Pyro and NumPyro enumerate by funsor, which has one backend a process. An AutoGaussian(backend="funsor") of Pyro sets it to torch and
# leaves it so: a mixture that NumPyro has just summed out raises an AttributeError on the next call in the same process.
# pyro-ppl 1.9.2, torch 2.13.0, numpyro 0.22.0, jax 0.10.2, funsor 0.4.8.
# Seen: -1.6843 before, then "DynamicJaxprTracer has no attribute ndimension", then -1.6843 after funsor.set_backend("jax").
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyro-ppl==1.9.2 torch==2.13.0 numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 funsor==0.4.8
"$folder/venv/bin/python" - <<'PY'
import funsor
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pyro
import torch
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor.infer_util import log_density
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGaussian


def mixture():
    with numpyro.plate("row", 1):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
        numpyro.sample("y", dist.Normal(3.0 * k, 1.0), obs=jnp.array([2.0]))


def line():
    mu = pyro.sample("mu", pyro.distributions.Normal(0.0, 1.0))
    pyro.sample("y", pyro.distributions.Normal(mu, 1.0), obs=torch.tensor(2.0))


def summed():
    import jax

    return float(jax.jit(lambda: log_density(enum(config_enumerate(mixture), -2), (), {}, {})[0])())


before = summed()
SVI(line, AutoGaussian(line, backend="funsor"), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step()
backend, error = funsor.util.get_backend(), None
try:
    summed()
except AttributeError as found:
    error = found
funsor.set_backend("jax")
after = summed()
print(f"{before:.4f}; after Pyro's guide the backend is {backend}: {error}; {after:.4f} after set_backend('jax')")
assert backend == "torch" and error is not None and before == after, "the behaviour has changed"
PY
