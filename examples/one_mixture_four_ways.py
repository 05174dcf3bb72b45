# %% [markdown]
# # One mixture, four algorithms
# A Gaussian mixture is one program with a prior. `em` and `mle` leave the prior out and climb the likelihood; `nuts` and `svi` give
# the posterior. The density that each believes in is drawn beside the data.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import probgen as pg
from probgen import catalog

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'one_mixture_four_ways.png'}")
rng = np.random.default_rng(0)
centres = np.array([[-2.0, 0.0], [1.0, 1.5], [2.5, -1.0]])
x = centres[rng.choice(3, size=240, p=[0.5, 0.3, 0.2])] + rng.normal(size=(240, 2)) @ [[0.7, 0.3], [0.0, 0.5]]
data = catalog.model("gaussian_mixture").given_rows(x) | {"num_components": 3}

# %% The same words for all; a learner's answer is one point, a sampler's are draws: both become lists of mixtures here.
settings = {"em": {}, "mle": {"num_steps": 1000}, "nuts": {}, "svi": {}}
fits = {name: pg.fit("gaussian_mixture", data, inference=name, seed=1, **s) for name, s in settings.items()}
for name, fit in fits.items():
    weights = fit.draws["weights"].mean((0, 1))
    print(f"{name}: {fit.diagnose().status}, {fit.seconds:.1f} s, weights {np.round(weights, 3)}")


def log_density(fit, points):
    """Of a new point, averaged over up to 100 draws."""
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in fit.draws.items()}
    picked = np.linspace(0, len(flat["weights"]) - 1, min(100, len(flat["weights"]))).astype(int)
    terms = [
        np.log(flat["weights"][i, k])
        + multivariate_normal(flat["loc"][i, k], flat["scale_tril"][i, k] @ flat["scale_tril"][i, k].T).logpdf(points)
        for i in picked for k in range(3)
    ]  # fmt: skip
    return logsumexp(terms, axis=0) - np.log(len(picked))


# %% Likelihood and posterior agree here: there are many rows for each component.
best = log_density(fits["em"], x).mean()
for name, fit in fits.items():
    print(f"{name}: {log_density(fit, x).mean():.4f} nats a row; em {best:.4f}")
    assert best - 0.05 < log_density(fit, x).mean() < best + 1e-3
figure, axes = plt.subplots(1, 4, figsize=(14, 3.5), layout="constrained")
grid = np.stack(np.meshgrid(np.linspace(-5, 5, 120), np.linspace(-4, 4, 120)), -1)
for ax, (name, fit) in zip(axes, fits.items(), strict=True):
    ax.contourf(*np.moveaxis(grid, -1, 0), np.exp(log_density(fit, grid)), 12, cmap="Blues")
    ax.plot(*x.T, ".", color="black", markersize=2)
    ax.set(title=name, xticks=[], yticks=[])
figure.savefig(folder / "one_mixture_four_ways.png")
