#!/usr/bin/env bash
# torchcfm draws its pairs of noise and data from NumPy's global generator: torch.manual_seed, and a checkpoint of torch's state, do not
# fix them. torchcfm 1.0.7, pot 0.9.6, torch 2.13.0. Times and noise of the same call are torch's. Expected: one seed, one batch.
# Seen, ExactOptimalTransportConditionalFlowMatcher on the same two batches of 256 after the same torch.manual_seed: the times are equal,
# none of 256 places has the same point at both calls; with numpy.random.seed beside it all do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 scipy==1.17.1 pot==0.9.6
"$folder/venv/bin/pip" install -q --no-deps torchcfm==1.0.7
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

generator = torch.Generator().manual_seed(0)
noise, points = (torch.randn(256, 2, generator=generator) for _ in range(2))
matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)


def drawn(numpy_too):
    torch.manual_seed(0)
    if numpy_too:
        np.random.seed(0)
    t, z, u = matcher.sample_location_and_conditional_flow(noise, points)
    return t, z + (1 - t[:, None]) * u


shares = []
for numpy_too in (False, True):
    (times, ends), (again, others) = drawn(numpy_too), drawn(numpy_too)
    assert torch.equal(times, again)
    shares.append(float(torch.isclose(ends, others, atol=1e-5).all(1).double().mean()))
print(f"places with the same point at both calls: {shares[0]:.1%} by torch's seed, {shares[1]:.1%} with NumPy's beside it")
assert shares[0] < 0.1 and shares[1] == 1.0, "the behaviour has changed"
PY
