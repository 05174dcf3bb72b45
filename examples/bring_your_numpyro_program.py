# %% [markdown]
# # Bring your own NumPyro program
# Nothing in it has to change: no base class, no registration. Observed sites are found by tracing the program, data are
# passed by the names of its parameters, plates and deterministic sites are kept.

# %%
import numpy as np
import numpyro
import numpyro.distributions as dist

import probgen as pg

minutes = np.array([12.0, 18.0, 25.0, 31.0, 38.0, 44.0, 52.0, 60.0])  # studied
passed = np.array([3, 4, 9, 11, 16, 17, 18, 19])  # of twenty students


def dose_response(minutes, students, passed=None):
    middle = numpyro.sample("middle", dist.Normal(30, 15))
    steepness = numpyro.sample("steepness", dist.LogNormal(-2, 0.7))
    chance = numpyro.deterministic("chance", 1 / (1 + np.e ** (-steepness * (minutes - middle))))
    with numpyro.plate("group", len(minutes)):
        numpyro.sample("passed", dist.Binomial(students, chance), obs=passed)


# %%
fit = pg.fit(dose_response, {"minutes": minutes, "students": 20, "passed": passed}, seed=1)
print(fit.diagnose())
print(fit.summary(var_names=["middle", "steepness"]))

# %% New data, by the same names: what would groups of fifty do?
future = fit.predict(minutes=np.array([20.0, 40.0]), students=50, passed=None)
low, high = np.percentile(future["passed"].values, [5, 95], axis=(0, 1))
print("of fifty, after 20 minutes:", low[0], "to", high[0], "- after 40 minutes:", low[1], "to", high[1])

# %% The tree is ArviZ's: posterior, sample_stats, log_likelihood on demand, ...
print(fit.log_likelihood())
print(fit.loo())
