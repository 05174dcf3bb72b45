#!/usr/bin/env bash
# arviz_stats.summary(..., ci_kind="hdi") labels its columns hdi and fills them with equal-tailed intervals.
# arviz-stats 0.8.0, arviz-base 0.8.2. Seen, of exponential draws: column hdi89_lb 0.0510, hdi() 0.0005, eti() 0.0510.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "arviz-stats[xarray]==0.8.0" arviz-base==0.8.2
"$folder/venv/bin/python" - <<'PY'
import arviz_stats
import numpy as np
import xarray as xr

x = np.random.default_rng(0).exponential(size=(4, 500))
draws = xr.Dataset({"x": (("chain", "draw"), x)})
table = arviz_stats.summary(draws, ci_kind="hdi", round_to="none")
column = next(c for c in table.columns if c.startswith("hdi") and c.endswith("_lb"))
shown = float(table.loc["x", column])
hdi, eti = (float(f(draws, prob=0.89)["x"].min()) for f in (arviz_stats.hdi, arviz_stats.eti))
print(f"column {column} {shown:.4f}, hdi() {hdi:.4f}, eti() {eti:.4f}")
assert abs(shown - eti) < 1e-3 < abs(shown - hdi), "the behaviour has changed"
PY
