#!/usr/bin/env bash
# ott-jax's Sinkhorn divergence is a number like any other where one of its three solves gave up: nothing is raised, nothing is NaN.
# ott-jax 0.6.0, jax 0.10.2. Seen, 200 points on a line and 200 a distance 3 away, epsilon=1e-4: 3.14 for 8.43, the exact squared
# distance by sorting. The two solves of a set with itself end early, the one between the sets does not, so the error does not cancel;
# it falls as epsilon grows: 8.4298 at .1. Whether a solve converged stands in the second thing returned, `out.converged`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 ott-jax==0.6.0 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax.numpy as jnp
import numpy as np
from ott.geometry import pointcloud
from ott.tools import sinkhorn_divergence

rng = np.random.default_rng(0)
x = np.sort(rng.normal(size=(200, 1)), 0).astype(np.float32)
y = np.sort(rng.normal(size=(200, 1)) + 3, 0).astype(np.float32)
exact = float(((x - y) ** 2).mean())
told = {}
for epsilon in (0.1, 1e-4):
    value, out = sinkhorn_divergence.sinkhorn_divergence(pointcloud.PointCloud, jnp.array(x), jnp.array(y), epsilon=epsilon)
    told[epsilon] = float(value), [bool(done) for done in out.converged]
    print(f"epsilon {epsilon:g}: {told[epsilon][0]:.4f}, exact {exact:.4f}, converged {told[epsilon][1]}")
assert abs(told[0.1][0] - exact) < 0.01 and all(told[0.1][1]), "the behaviour has changed"
assert told[1e-4][0] < 0.5 * exact and told[1e-4][1] == [False, True, True], "the behaviour has changed"
PY
