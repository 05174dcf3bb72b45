#!/usr/bin/env bash
# POT's distance of weighted points on a circle from the uniform law, ot.semidiscrete_wasserstein2_unif_circle, sorts the points and
# leaves the weights where they were: unless the points come in order, each gets another one's weight, without a word. So does
# ot.sliced_wasserstein_sphere_unif(x, a), whose projections are in no order. Without weights both are right; so is wasserstein_circle,
# with weights as well. POT 0.9.7.post1, numpy 2.4.6. Nothing in the documentation asks for order.
# Expected: the same number for the same weighted points in any order. Seen, 200 points that are uniform, each weighted by how near it is
# to 1/2: .0221 in order, as exact transport to a grid of 2,000 points says, and .0005 as they come. On a sphere, 500 points weighted
# towards a pole: .025 for .174, the same function called for each of the same projections in order.
# What to do: sort points and weights together; on a sphere, project by hand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pot==0.9.7.post1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import ot

rng = np.random.default_rng(0)
x = rng.random(200)
weights = np.exp(-0.5 * ((x - 0.5) / 0.15) ** 2)
weights /= weights.sum()
grid = (np.arange(2000) + 0.5) / 2000
gap = np.abs(x[:, None] - grid)
exact = float(ot.emd2(weights, np.full(2000, 1 / 2000), np.minimum(gap, 1 - gap) ** 2, numItermax=10_000_000))
order = np.argsort(x)
shuffled, ordered = (float(ot.semidiscrete_wasserstein2_unif_circle(x[i], weights[i])[0]) for i in (slice(None), order))
print(f"circle: shuffled {shuffled:.4f}, in order {ordered:.4f}, exact transport {exact:.4f}")
assert abs(ordered - exact) < 1e-4
assert shuffled < 0.5 * exact, "the behaviour has changed"

points = rng.normal(size=(500, 3))
points /= np.linalg.norm(points, axis=1, keepdims=True)
weights = np.exp(4 * points[:, 2])
weights /= weights.sum()
found, log = ot.sliced_wasserstein_sphere_unif(points, weights, n_projections=50, seed=0, log=True)
each = []
for axes in log["projections"]:
    angle = points @ axes
    place = (np.pi + np.arctan2(-angle[:, 1], -angle[:, 0])) / (2 * np.pi)
    i = np.argsort(place)
    each.append(float(ot.semidiscrete_wasserstein2_unif_circle(place[i], weights[i])[0]))
right = np.mean(each) ** 0.5
print(f"sphere: found {found:.3f}, projections in order {right:.3f}")
assert found < 0.7 * right, "the behaviour has changed"
PY
