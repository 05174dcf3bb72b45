#!/usr/bin/env bash
# InverseWishart.variance of NumPyro is right on the diagonal and too large beside it: it is (psi_ij^2 + psi_ii psi_jj) / ((n - p - 1)^2
# (n - p - 3)) everywhere, which holds for i = j alone. Draws, mean and density are right. numpyro 0.22.0, jax 0.10.2.
# Expected beside the diagonal: ((n - p + 1) psi_ij^2 + (n - p - 1) psi_ii psi_jj) / ((n - p) (n - p - 1)^2 (n - p - 3)).
# Seen, p = 3, n = 12, psi = I: .00260 of entries beside the diagonal for .00231 (exact) and .0023 (of 400,000 draws); with p = 2, n = 6
# .1111 for .0833.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist


def exact(n, p, own, other):
    """Of entry (0, 1) of psi = I, where psi_01 is 0, or of (0, 0)."""
    return ((n - p + 1) * own**2 + (n - p - 1) * other) / ((n - p) * (n - p - 1) ** 2 * (n - p - 3))


for n, p in ((12.0, 3), (6.0, 2)):
    law = dist.InverseWishart(n, scale_matrix=jnp.eye(p))
    told = np.asarray(law.variance)
    diagonal, beside = exact(n, p, 1.0, 1.0), exact(n, p, 0.0, 1.0)
    print(f"n {n:.0f}, p {p}: diagonal {told[0, 0]:.5f}, exact {diagonal:.5f}; beside it {told[0, 1]:.5f}, exact {beside:.5f}")
    assert abs(told[0, 0] / diagonal - 1) < 1e-5
    assert told[0, 1] / beside > 1.1, "the behaviour has changed"
drawn = dist.InverseWishart(12.0, scale_matrix=jnp.eye(3)).sample(jax.random.key(0), (400_000,))[:, 0, 1].var()
print(f"draws, n 12, p 3: beside the diagonal {float(drawn):.5f}")
assert abs(float(drawn) / exact(12.0, 3, 0.0, 1.0) - 1) < 0.03
PY
