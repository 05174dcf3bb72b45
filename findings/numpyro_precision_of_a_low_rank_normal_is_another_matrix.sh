#!/usr/bin/env bash
# LowRankMultivariateNormal.precision_matrix of NumPyro is not the inverse of its covariance_matrix: with as many factors as dimensions it
# returns another matrix without a word, with fewer, which is what the distribution is for, it raises. covariance_matrix, log_prob and draws
# are right. numpyro 0.22.0, jax 0.10.2. Seen, double precision: two factors in two dimensions, off by 678 where the inverse has entries of
# the order of 1; one factor in two dimensions, ValueError of inconsistent sizes. torch's distribution of the name gives the inverse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import jax
import numpy as np
import numpyro.distributions as dist

jax.config.update("jax_enable_x64", True)


def off(rank):
    """How far the covariance, and the precision, of a normal in two dimensions are from what they should be."""
    rng = np.random.default_rng(0)
    factor, diagonal = rng.normal(size=(2, rank)), rng.uniform(0.5, 2, 2)
    law, covariance = dist.LowRankMultivariateNormal(np.zeros(2), factor, diagonal), factor @ factor.T + np.diag(diagonal)
    right = abs(np.asarray(law.covariance_matrix) - covariance).max()
    return right, abs(np.asarray(law.precision_matrix) - np.linalg.inv(covariance)).max()


right, wrong = off(2)
print(f"two factors: the covariance is off by {right:.1e}, the precision by {wrong:.4g}")
assert right < 1e-12 and wrong > 1, "the behaviour has changed: two factors"
try:
    raise SystemExit(f"the behaviour has changed: one factor, off by {off(1)}")
except ValueError as error:
    print("one factor:", str(error)[:90])
PY
