# %% [markdown]
# # Denoising with an Ising model
# A sheet of digits (scikit-learn's, drawn at 24 x 24 pixels) with every tenth pixel flipped. Neighbours tend to be alike: with
# that prior, and the noise known, the posterior of the clean sheet is an Ising model in a field. Its mode is exact by a
# minimum cut; iterated conditional modes stop before; Gibbs sampling gives each pixel's own most probable value.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.ndimage import zoom

import probgen as pg
from probgen.data import load

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'ising_denoising.png'}")
rng = np.random.default_rng(0)
large = np.pad(zoom(load("digits_grey")[100:105], (1, 3, 3), order=1) >= 0.5, ((0, 0), (1, 1), (1, 1)))
clean = np.concatenate(large, axis=1).astype(float)
noisy = np.where(rng.random(clean.shape) < 0.1, 1 - clean, clean)

# %%
data = {"noisy": noisy, "flips": 0.1, "J": 0.5, "field": 0.0, "height": 26, "width": 130, "periodic": False}
modes = {"minimum_cut": pg.fit("ising", data, "minimum_cut"), "icm": pg.fit("ising", data, "icm", num_restarts=10)}
found = {name: fit.draws["x"][0, 0] for name, fit in modes.items()}
gibbs = pg.fit("ising", data, "gibbs", num_chains=4, num_samples=1000)
found["gibbs"] = gibbs.draws["x"].mean((0, 1)) > 0.5
print(gibbs.diagnose())

# %%
errors = {name: float(np.mean(x != clean)) for name, x in {"noisy": noisy, **found}.items()}
for name, error in errors.items():
    energy = f", log density {float(modes[name].answer['log_p'].max()):.1f} nats" if name in modes else ""
    print(f"{name}: {100 * error:.2f} % of the pixels wrong{energy}")
assert errors["minimum_cut"] <= 0.04

# %%
figure, axes = plt.subplots(5, 1, figsize=(7, 8), layout="constrained")
for ax, (name, x) in zip(axes, {"clean": clean, "noisy": noisy, **found}.items(), strict=True):
    ax.imshow(x, cmap="gray_r")
    ax.set_title(name + (f": {100 * errors[name]:.1f} % wrong" if name in errors else ""))
    ax.axis("off")
figure.savefig(folder / "ising_denoising.png")
