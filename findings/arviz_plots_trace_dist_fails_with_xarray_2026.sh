#!/usr/bin/env bash
# arviz_plots.plot_trace_dist and plot_rank_dist raise TypeError on any draws with the newest xarray, which the package's requirements allow:
# PlotCollection.grid passes a Dataset to xr.Dataset. plot_trace, plot_rank and plot_forest of the same draws work.
# arviz-plots 0.8.0, arviz-base 0.8.2, arviz-stats 0.8.0, xarray 2026.9.0, matplotlib 3.10.9.
# Seen: "Passing a Dataset as `data_vars` to the Dataset constructor is not supported."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "arviz-plots[matplotlib]==0.8.0" arviz-base==0.8.2 "arviz-stats[xarray]==0.8.0" xarray==2026.9.0 matplotlib==3.10.9
"$folder/venv/bin/python" - <<'PY'
import arviz_base
import arviz_plots
import matplotlib
import numpy as np

matplotlib.use("Agg")
draws = arviz_base.from_dict({"posterior": {"mu": np.random.default_rng(0).normal(size=(4, 100))}})
for name in ("plot_trace", "plot_rank", "plot_forest"):
    getattr(arviz_plots, name)(draws, backend="matplotlib")
for name in ("plot_trace_dist", "plot_rank_dist"):
    try:
        getattr(arviz_plots, name)(draws, backend="matplotlib")
    except TypeError as error:
        print(f"{name}: {error}")
        assert "Dataset" in str(error)
    else:
        raise SystemExit(f"{name}: the behaviour has changed")
PY
