# %% [markdown]
# # One model, four algorithms, one comparison
# What `make demo` runs: eight schools by two samplers, by a normal approximation and by a flow. The normal
# approximation is too narrow in places; the verdict says so, and the comparison shows where.

# %%
from pathlib import Path

import probgen as pg

names = ("nuts", "hmc", "mean_field", "flow")
fits = {name: pg.fit("eight_schools", inference=name, seed=0) for name in names}
for name, fit in fits.items():
    print(f"\n{name}: {fit}\n{fit.diagnose()}")

# %%
compared = pg.compare(fits)
print(f"\n{compared}\n")

# %% The pages: one on the comparison, one on the first fit. Open them in a browser.
folder = Path("runs/demo")
folder.mkdir(parents=True, exist_ok=True)
print(f"Written: {compared.report(folder / 'comparison.html')}, {fits['nuts'].report(folder / 'nuts.html')}")
