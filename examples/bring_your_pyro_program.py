# %% [markdown]
# # Bring your own Pyro program
# A Pyro program runs on the same words. Its log density and gradient are captured as one graph and compiled, so NUTS
# does not crawl through Python; your parameter store, seeds and default dtype stay as they are. JAX is never imported.

# %%
import sys

import numpy as np
import pyro
import pyro.distributions as dist

import probgen as pg

rng = np.random.default_rng(0)
county = np.repeat(np.arange(6), 8)
level = rng.normal(1.0, 0.5, 6)[county] + rng.normal(0, 0.3, 48)


def radon(county, num_counties, level=None):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    between = pyro.sample("between", dist.HalfNormal(1.0))
    within = pyro.sample("within", dist.HalfNormal(1.0))
    with pyro.plate("counties", num_counties):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    with pyro.plate("houses", len(county)):
        pyro.sample("level", dist.Normal(mean + between * effect[county], within), obs=level)


# %%
data = {"county": county, "num_counties": 6, "level": level}
fit = pg.fit(radon, data, "nuts", num_warmup=300, num_samples=300, num_chains=2, target_accept=0.9)
print(fit.summary(var_names=["mean", "between", "within"]))
print(fit.diagnose().headline)
assert "jax" not in sys.modules
assert not pyro.get_param_store()
