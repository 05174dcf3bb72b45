#!/usr/bin/env bash
# NumPyro's kl_divergence of a Kumaraswamy from a Beta is the first ten terms of a series that converges slowly, and TraceMeanField_ELBO
# takes it for the divergence, without a word: its documentation promises closed forms "when those are available", otherwise draws.
# A comment in the source knows of it, and names 1,000 terms, which still leave .92 of the 2.29 nats below. numpyro 0.22.0, jax 0.10.2.
# Expected: 0 of one law from itself, Kumaraswamy(1, b) being Beta(1, b), and a bound that is below log p(y).
# Seen, Beta(1, b) from itself: .27 nats for b = .5, 2.29 for b = .2, -.008 for b = 2. Kumaraswamy(1, 1) from Beta(1, 10): 5.88 for 6.70.
# A chance of prior Beta(1, 5), 18 successes of 20, a Kumaraswamy as guide, learned: the bound -8.10, above log p(y) = -8.17; with
# Trace_ELBO -8.18. Guides of sticks of a Dirichlet process are such ones, and the error is that of one stick for each of them.
# What to do: Trace_ELBO.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 optax==0.2.8 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro import infer
from scipy.special import betaln, comb

for b, seen in ((2.0, -0.008), (0.5, 0.270), (0.2, 2.290)):
    found = float(dist.kl_divergence(dist.Kumaraswamy(1.0, b), dist.Beta(1.0, b)))
    x = np.linspace(0.05, 0.95, 10)
    same = abs(np.asarray(dist.Kumaraswamy(1.0, b).log_prob(x) - dist.Beta(1.0, b).log_prob(x))).max()
    print(f"Kumaraswamy(1, {b}) from Beta(1, {b}), whose log densities differ by {same:.0e}: {found:.3f} nats")
    assert same < 1e-5 and abs(found - seen) < 0.002, "the behaviour has changed"
uniform, exact = float(dist.kl_divergence(dist.Kumaraswamy(1.0, 1.0), dist.Beta(1.0, 10.0))), 9 - np.log(10)
print(f"Kumaraswamy(1, 1) from Beta(1, 10): {uniform:.2f} nats, exactly {exact:.2f}")
assert uniform < exact - 0.7, "the behaviour has changed"


def model():
    chance = numpyro.sample("chance", dist.Beta(1.0, 5.0))
    numpyro.sample("y", dist.Binomial(20, chance), obs=18)


def guide():
    a, b = (numpyro.param(name, 2.0, constraint=dist.constraints.positive) for name in "ab")
    numpyro.sample("chance", dist.Kumaraswamy(a, b))


evidence = float(betaln(19, 7) - betaln(1, 5) + np.log(comb(20, 18)))
bounds = {}
for elbo in (infer.Trace_ELBO, infer.TraceMeanField_ELBO):
    learned = infer.SVI(model, guide, optax.adam(0.02), elbo(20)).run(jax.random.key(0), 3000, progress_bar=False).params
    bounds[elbo.__name__] = -float(elbo(20_000).loss(jax.random.key(1), learned, model, guide))
print(f"log p(y) {evidence:.3f}, bounds:", ", ".join(f"{name} {bound:.3f}" for name, bound in bounds.items()))
assert bounds["Trace_ELBO"] < evidence, "below, as it should be"
assert bounds["TraceMeanField_ELBO"] > evidence + 0.04, "the behaviour has changed"
PY
