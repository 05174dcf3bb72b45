#!/usr/bin/env bash
# arviz_stats.survival.generate_survival_curves, which plot_ppc_censored draws, leaves out predicted times beyond 1.2 times the largest
# observed one and counts each of the others once, whatever its ties: the curve of a right model falls to 0 where the study ends, with
# the rest of the data alive. Its documentation says that the factor limits the curves. arviz-stats 0.8.0, arviz-base 0.8.2.
# Expected, of lifetimes that are exponential with mean 10, watched for 5: P(T > 5) = .607 of predictions, as Kaplan and Meier's curve
# of the data says. Seen: .13 of predictions of the true law, .60 with extrapolation_factor=None. Of whole days, 9 of 10 units failing
# on day 1 and one on day 2: .50 after day 1 for .10. What to do: extrapolation_factor=None, and times without ties.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "arviz-stats[xarray]==0.8.0" arviz-base==0.8.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import arviz_base
import numpy as np
from arviz_stats.survival import generate_survival_curves, kaplan_meier

rng = np.random.default_rng(0)
life = rng.exponential(10.0, 2000)
seen, failed = np.minimum(life, 5.0), (life <= 5.0).astype(int)
groups = {
    "posterior_predictive": {"t": rng.exponential(10.0, (2, 50, 500))},
    "observed_data": {"t": seen},
    "constant_data": {"t": failed},
}
study = arviz_base.from_dict(groups)


def alive(curves, at):
    """The share that lives on at a time, over the curves."""
    found = []
    for times, shares in zip(*(np.atleast_2d(curves.sel(plot_axis=axis).values) for axis in ("x", "y"))):
        before = shares[times <= at]
        found.append(before[-1] if len(before) else 1.0)
    return float(np.mean(found))


data = alive(kaplan_meier(study, "t")["t"], 4.99)
cut, whole = (
    alive(generate_survival_curves(study, "t", num_samples=100, extrapolation_factor=f)["t"], 4.99) for f in (1.2, None)
)
days = np.array([1.0] * 9 + [2.0])
tied = arviz_base.from_dict({"posterior_predictive": {"t": np.tile(days, (1, 4, 1))}, "observed_data": {"t": days}})
after = alive(generate_survival_curves(tied, "t", num_samples=4)["t"], 1.0)
print(f"P(T > 5): exact {np.exp(-0.5):.3f}, data {data:.3f}; predictions {cut:.3f}, without a limit {whole:.3f}")
print(f"after day 1, on which 9 of 10 fail: {after:.2f}")
assert abs(data - (life > 4.99).mean()) < 1e-6 and abs(whole - 0.607) < 0.03
assert cut < 0.2, "the behaviour has changed: times beyond the limit"
assert abs(after - 0.5) < 1e-6, "the behaviour has changed: ties"
PY
