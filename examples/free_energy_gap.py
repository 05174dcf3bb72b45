# %% [markdown]
# # The free-energy gap: overfitting without the constant
# Free energies need no log Z, and the mean over held-out rows minus that over the training rows grows as a model learns its
# rows by heart (Hinton 2010, A practical guide to training RBMs). Here log Z is exact, to see the likelihoods beside it.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpyro

import probgen as pg
from probgen.data import load
from probgen.measures import bits

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'free_energy_gap.png'}")
rng = np.random.default_rng(0)
train, test = np.split(rng.permutation(load("digits").reshape(-1, 64))[:1100], [100])


# %% Learning in stages: the parameters begin at what the stage before has found, which comes as data.
def rbm(W_before, b_before, c_before, v=None):
    W, b, c = numpyro.param("W", W_before), numpyro.param("b", b_before), numpyro.param("c", c_before)
    v = numpyro.sample("v", bits(64), obs=v)
    h = numpyro.sample("h", bits(16))
    numpyro.factor("energy", v @ W @ h + v @ b + h @ c)


settings = {"num_steps": 700, "num_chains": 300, "learning_rate": 0.05, "decay": "constant", "average": 0}
before = {"W_before": 0.01 * rng.normal(size=(64, 16)), "b_before": np.zeros(64), "c_before": np.zeros(16)}
curves = []
for seed in range(14):
    fit = pg.fit(rbm, {"v": train, **before}, "pcd", seed=seed, start="program", progress=False, **settings)
    before = {f"{name}_before": value for name, value in fit.parameters.items()}
    energies = fit.energy(v=np.concatenate([train, test]))
    curves.append([energies[: len(train)].mean(), energies[len(train) :].mean(), fit.log_z().value])

# %%
low, high, log_z = np.transpose(curves)
steps, gaps, learned, held_out = 700 * np.arange(1, 15), high - low, -low - log_z, -high - log_z
best = int(held_out.argmax())
for name, i in (("held-out rows likeliest", best), ("end of learning", -1)):
    print(f"{name}: step {steps[i]}, gap {gaps[i]:.2f} nats; log p {learned[i]:.2f} train, {held_out[i]:.2f} held out")
assert gaps[-1] > gaps[best] + 1
assert learned[-1] > learned[best] > held_out[best] > held_out[-1] + 0.5
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, layout="constrained")
left.plot(steps, gaps, "C3o-")
left.set(title="free-energy gap in nats, without log Z", xlabel="steps", ylim=(0, None))
right.plot(steps, learned, "o-", label="100 training rows")
right.plot(steps, held_out, "o-", label="1000 held-out rows")
right.set(title="exact mean log likelihood in nats", xlabel="steps")
right.legend(loc="center right")
figure.savefig(folder / "free_energy_gap.png")
