#!/usr/bin/env bash
# Two fields of BlackJAX named elbo have opposite signs: meanfield_vi's info.elbo is what its optimiser lowers, minus the evidence lower
# bound, pathfinder's state.elbo the bound itself. blackjax 1.7.1, jax 0.10.2, optax 0.2.8. Expected: one name, one sign, so that guides of
# both can be compared by it. Seen, of y = 1, y | t ~ N(t, 1), t ~ N(0, 1), log p(y) = -1.516, with the exact posterior as the guide, whose
# bound is the evidence whatever is drawn: meanfield_vi 1.516, pathfinder -1.516. Who picks the larger picks the worse of two guides.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q blackjax==1.7.1 jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
"$folder/venv/bin/python" - <<'PY'
import blackjax
import jax
import jax.numpy as jnp
import optax
from jax.scipy.stats import norm


def log_joint(t):
    return norm.logpdf(t) + norm.logpdf(1.0, t)


evidence = float(norm.logpdf(1.0, 0.0, 2.0**0.5))
guide = blackjax.meanfield_vi(log_joint, optax.sgd(0.0))
state = guide.init(jnp.array(0.0))._replace(mu=jnp.array(0.5), rho=jnp.log(0.5**0.5))
mean_field = float(guide.step(jax.random.key(0), state)[1].elbo)
path, _ = blackjax.vi.pathfinder.approximate(jax.random.key(0), log_joint, 3.0)
print(f"log p(y) {evidence:.3f}; elbo of meanfield_vi {mean_field:.3f}, of pathfinder {float(path.elbo):.3f}")
assert abs(mean_field + evidence) < 0.01 and abs(float(path.elbo) - evidence) < 0.01, "the behaviour has changed"
PY
