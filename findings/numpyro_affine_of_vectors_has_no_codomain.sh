#!/usr/bin/env bash
# NumPyro's AffineTransform takes a `domain`, and with that of vectors no distribution can be made of it: NotImplementedError, without
# a word. numpyro 0.22.0, jax 0.10.2. Seen, TransformedDistribution(N(0, I) of 3 coordinates, AffineTransform(..., domain=real_vector)):
# the error comes from `codomain`, which knows reals, half-lines and intervals alone. With the default domain, of single reals, the same
# distribution is made, and its density is right: coordinates are summed as the base's event.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpyro==0.22.0 jax==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform

base, scale = dist.Normal(0, 1).expand([3]).to_event(1), jnp.full(3, 2.0)
plain = dist.TransformedDistribution(base, AffineTransform(jnp.zeros(3), scale))
exact = dist.Normal(0, 2).expand([3]).to_event(1)
assert abs(float(plain.log_prob(jnp.ones(3)) - exact.log_prob(jnp.ones(3)))) < 1e-5
try:
    dist.TransformedDistribution(base, AffineTransform(jnp.zeros(3), scale, domain=constraints.real_vector))
except NotImplementedError as error:
    print(f"domain=real_vector: NotImplementedError({str(error)!r})")
    assert str(error) == "", "the behaviour has changed"
else:
    raise AssertionError("the behaviour has changed")
PY
