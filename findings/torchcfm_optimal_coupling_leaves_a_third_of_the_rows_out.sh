#!/usr/bin/env bash
# torchcfm's exact optimal transport draws pairs from the plan with replacement: of every batch 37 % of the rows are not learned from,
# and others two, three or more times. torchcfm 1.0.7, pot 0.9.6, torch 2.13.0. The plan of two batches of one size is a permutation,
# each row with one partner, so that nothing asks for a draw. Seen, batches of 256 by ExactOptimalTransportConditionalFlowMatcher:
# 64 % of the points of a batch appear among the ends of the paths, one of them six times; 1 - 1/e is .632.
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

torch.manual_seed(0)
np.random.seed(0)
matcher, shares, most = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0), [], 0
for _ in range(20):
    noise, points = torch.randn(256, 2), torch.randn(256, 2)
    t, z, u = matcher.sample_location_and_conditional_flow(noise, points)
    ends = z + (1 - t[:, None]) * u
    which = torch.cdist(ends.double(), points.double()).argmin(1)
    counts = torch.bincount(which, minlength=256)
    shares.append(float((counts > 0).double().mean()))
    most = max(most, int(counts.max()))
print(f"{np.mean(shares):.1%} of the rows of a batch are used; one of them {most} times")
assert 0.60 < np.mean(shares) < 0.66 and most >= 4, "the behaviour has changed"
PY
