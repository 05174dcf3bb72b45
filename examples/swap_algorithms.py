# %% [markdown]
# # Swap the algorithm with one word
# The program and the data stay; `inference` is a name, or a settings object where the defaults do not fit. What can be
# computed from the program decides which algorithms it can carry: `pg.matrix` derives that from the types.

# %%
import numpy as np
import numpyro
import numpyro.distributions as dist

import probgen as pg

rng = np.random.default_rng(0)
x = np.linspace(-2, 2, 40)
y = 0.5 + 1.5 * x + 0.4 * rng.standard_t(3, size=40)


def robust_line(x, y=None):
    intercept = numpyro.sample("intercept", dist.Normal(0, 2))
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.StudentT(3, intercept + slope * x, scale), obs=y)


# %% A name, a name with settings, a settings object.
data = {"x": x, "y": y}
fits = {
    "nuts": pg.fit(robust_line, data, "nuts"),
    "mala": pg.fit(robust_line, data, "mala", num_samples=3000),
    "normal": pg.fit(robust_line, data, pg.inference.FullRank(num_draws=2000)),
}
print(pg.compare(fits))

# %% Each answer comes with a verdict.
for name, fit in fits.items():
    print(f"{name}: {fit.diagnose().headline}")
    assert abs(float(fit.posterior["slope"].mean()) - 1.5) < 0.3

# %% An algorithm that the program cannot carry says what would work; a misspelt one, what was meant.
for wrong in ("nutz", "sgld"):
    try:
        pg.fit(robust_line, data, wrong)
    except (ValueError, pg.Incompatible) as error:
        print(f"{type(error).__name__}: {error}")
