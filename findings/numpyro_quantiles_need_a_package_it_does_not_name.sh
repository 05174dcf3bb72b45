#!/usr/bin/env bash
# icdf of NumPyro's Gamma, Beta and StudentT (and of what is truncated from them) works only beside tensorflow_probability, which no
# requirement and no extra of the package names; cdf of the same three works. numpyro 0.22.0, jax 0.10.2, a fresh installation.
# Seen: ImportError of each of the three, "Please install `tensorflow_probability>=0.18`"; Normal's and Gumbel's icdf work. Copulas,
# inverse-probability draws and quantiles of predictions of these laws therefore stop on a fresh installation. SciPy has all three.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpyro==0.22.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import requires

import numpyro.distributions as dist

named = [r for r in requires("numpyro") if "tensorflow" in r.lower() or "tfp" in r.lower()]
print("requirements and extras that name it:", named)
failed = []
for law in (dist.Normal(), dist.Gumbel(), dist.Gamma(2.0, 1.0), dist.Beta(2.0, 3.0), dist.StudentT(3.0)):
    try:
        print(type(law).__name__, float(law.cdf(0.5)), float(law.icdf(0.5)))
    except ImportError as error:
        failed.append(type(law).__name__)
        print(type(law).__name__, float(law.cdf(0.5)), "ImportError:", error)
assert failed == ["Gamma", "Beta", "StudentT"] and not named, "the behaviour has changed"
PY
