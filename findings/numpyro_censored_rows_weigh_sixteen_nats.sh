#!/usr/bin/env bash
# NumPyro's RightCensoredDistribution takes log(1 - F(x)) with F held below 1 - eps: a row that lives on weighs at most 15.9 nats in
# single precision (36.0 in double), and from there on has no slope. Its documentation says log(1 - F(value)). With times in days and a
# rate that starts near 1 a day, such rows say nothing, and the posterior is that of the other rows. numpyro 0.22.0, jax 0.10.2.
# Expected, of 20 failures within weeks and two units alive after a year, rate ~ Gamma(1, 1): Gamma(21, 1 + all days), mean .0242 a day.
# Seen: NUTS finds .153, as from the 20 alone (.154), R-hats 1.00, no divergence; log P(T > 20) at rate 1 is -15.94 for -20, its slope
# 0 for -20. With -rate * t written as a factor NUTS finds .0242. What to do: write the log of the tail as a factor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import gelman_rubin
from numpyro.infer import MCMC, NUTS

days = np.append(np.random.default_rng(0).exponential(5.0, 20), [365.0, 365.0])
alive = np.arange(22) >= 20


def program(by_hand):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    with numpyro.plate("unit", 22):
        if by_hand:
            numpyro.factor("log_likelihood", jnp.where(alive, 0.0, jnp.log(rate)) - rate * days)
        else:
            numpyro.sample("t", dist.RightCensoredDistribution(dist.Exponential(rate), alive), obs=days)


def drawn(by_hand):
    mcmc = MCMC(NUTS(program), num_warmup=500, num_samples=500, num_chains=4, chain_method="sequential", progress_bar=False)
    mcmc.run(jax.random.key(0), by_hand)
    chains = np.asarray(mcmc.get_samples(group_by_chain=True)["rate"])
    return chains.mean(), gelman_rubin(chains), int(mcmc.get_extra_fields()["diverging"].sum())


def log_tail(rate):
    return dist.RightCensoredDistribution(dist.Exponential(rate), True).log_prob(20.0)


exact, alone = 21 / (1 + days.sum()), 21 / (1 + days[:20].sum())
value, slope = jax.value_and_grad(log_tail)(1.0)
(library, r_hat, diverged), (by_hand, *_) = drawn(False), drawn(True)
print(f"exact {exact:.4f}; NumPyro {library:.4f}, R-hat {r_hat:.3f}, {diverged} diverged; by hand {by_hand:.4f}; the 20 alone {alone:.4f}")
print(f"log P(T > 20) at rate 1: {value:.2f}, slope {slope:.2f}")
assert abs(by_hand / exact - 1) < 0.05, "the same model by hand"
assert abs(library / alone - 1) < 0.05 and r_hat < 1.01 and diverged == 0, "the behaviour has changed"
assert value > -16 and slope == 0, "the behaviour has changed"
PY
