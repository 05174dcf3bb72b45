# %% [markdown]
# # One model, four algorithms, one comparison
# What `make demo` runs: eight schools by two samplers, by a normal approximation and by a flow. The normal
# approximation is too narrow in places; the verdict says so, and the comparison shows where.

# %%
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

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

# %% The same in one picture: the spread between schools, whose lower end a normal approximation cuts.
figure, panels = plt.subplots(1, 4, figsize=(10, 2.4), sharex=True, sharey=True, layout="constrained")
colours = {"pass": "tab:green", "warn": "tab:orange", "fail": "tab:red"}
for panel, (name, fit) in zip(panels, fits.items(), strict=True):
    verdict = fit.diagnose()
    panel.hist(
        np.log(fit.draws["tau"]).ravel(), bins=np.linspace(-3, 4, 36), density=True, color=colours[verdict.status]
    )
    panel.set(title=f"{name}: {verdict.status}", xlabel="log tau")
figure.savefig(folder / "one_word.png", dpi=80)
print(f"Drawn: {folder / 'one_word.png'}")
