#!/usr/bin/env bash
# torch-fidelity's kernel distance says +- 0 where its subsets hold as many rows as there are: all subsets are the same rows.
# torch-fidelity 0.4.0, torch 2.13.0. Seen, two sets of 60 rows of one law, kid_subset_size=60: a standard deviation below 1e-12,
# where the same number for other rows of that law differs by .02. The check refuses subsets that are larger, and allows equal ones.
# Rows are given as features: torchvision, which only pictures need, is left out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 scipy==1.17.1 tqdm pillow requests
"$folder/venv/bin/pip" install -q --no-deps torch-fidelity==0.4.0
"$folder/venv/bin/python" - <<'PY'
import sys
from unittest.mock import MagicMock

import numpy as np
import torch

for name in ("", ".transforms", ".transforms.functional", ".models", ".datasets"):
    sys.modules[f"torchvision{name}"] = MagicMock()
from torch_fidelity.metric_kid import kid_features_to_metric

found = []
for seed in range(20):
    x, y = (torch.from_numpy(np.random.default_rng([seed, i]).normal(size=(60, 16))) for i in (0, 1))
    said = kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=60, verbose=False)
    found.append([said["kernel_inception_distance_mean"], said["kernel_inception_distance_std"]])
means, spreads = np.array(found).T
print(f"told: {means[0]:.4f} +- {spreads[0]:.0e}; other rows of the same laws: sd {means.std():.4f}")
assert spreads.max() < 1e-12 < 1e-3 < means.std(), "the behaviour has changed"
PY
