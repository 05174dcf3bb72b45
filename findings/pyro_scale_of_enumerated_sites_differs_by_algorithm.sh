#!/usr/bin/env bash
# Pyro has two densities for one mixture under poutine.scale (the scale that a subsampled plate sets, too): TraceEnum_ELBO multiplies
# the log of the sum over the finite site, the potential of MCMC multiplies each term inside of the sum. Both are called at one point.
# pyro-ppl 1.9.2, torch 2.13.0. Seen: TraceEnum_ELBO -23.6546 (scale outside), MCMC's potential -25.7212 (scale inside).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyro-ppl==1.9.2 torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PY'
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.mcmc.util import initialize_model

y, at = torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([0.2, 0.5])
weights = torch.tensor([0.3, 0.7])


def mixture(y):
    m = pyro.sample("m", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))
    with pyro.plate("row", len(y)), poutine.scale(scale=2.0):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(m[k], 1.0), obs=y)


def guide(y):
    pyro.sample("m", dist.Delta(at).to_event(1))


elbo = -TraceEnum_ELBO(max_plate_nesting=1).loss(config_enumerate(mixture), guide, y)
potential = initialize_model(mixture, (y,))[1]
mcmc = -float(potential({"m": at}))
prior = dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).log_prob(at).sum()
terms = weights.log() + dist.Normal(at, 1.0).log_prob(y[:, None])
outside = float(prior + 2 * terms.logsumexp(1).sum())
inside = float(prior + (2 * terms).logsumexp(1).sum())
print(f"TraceEnum_ELBO {elbo:.4f} (scale outside {outside:.4f}), MCMC's potential {mcmc:.4f} (scale inside {inside:.4f})")
assert abs(elbo - outside) < 1e-3 and abs(mcmc - inside) < 1e-3 and abs(elbo - mcmc) > 1, "the behaviour has changed"
PY
