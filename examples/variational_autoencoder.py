# %% [markdown]
# # A variational autoencoder, and what its encoder gets wrong
# Program and guide are learned together. The program is then one like any other: chains draw the true posterior of a picture's
# code, beside which the encoder's guess can be held.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

import probgen as pg
from probgen.data import load

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'variational_autoencoder.png'}")
x = load("digits").reshape(-1, 64)
train, test = x[:1437], x[1437:]
fit = pg.fit("vae", {"x": train, "dim": 64, "num_latents": 2}, inference="svi", num_steps=4000)
print(fit.diagnose())

# %% [markdown]
# ## How good is it? Two lower bounds, and the gap between the first and the truth

# %%
elbo, bound = fit.log_prob(test, method="elbo"), fit.log_prob(test, num_particles=2000)
print(f"ELBO {elbo.value.mean():.2f} nats, {bound.value.mean():.2f} by {bound.kind}")

# %% [markdown]
# ## The code that the encoder knows least
# Its posterior has two modes, and the encoder lies between them. NUTS misses one, which the verdict tells; tempering finds both.

# %%
row = test[int(np.argmax(bound.value - elbo.value))]
for word in ("nuts", "tempering"):
    chains = pg.fit(fit.condition(x=row), inference=word, seed=1)
    print(f"{word}: {chains.diagnose().headline}; {chains.diagnose().findings[0].message}")
guess, truth = fit.encode(row[None], num_samples=2000)["z"][:, 0], chains.draws["z"].reshape(-1, 2)
print(f"sd of the encoder's draws {guess.std(0).round(2)}, of the posterior's {truth.std(0).round(2)}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(13, 5), width_ratios=(1, 2, 2), layout="constrained")
panels[0].imshow(row.reshape(8, 8), cmap="gray_r")
panels[0].set_title("a picture")
panels[0].axis("off")
panels[1].plot(*truth.T, ".", ms=2, label="posterior, by tempering")
panels[1].plot(*guess.T, ".", ms=2, label="encoder")
panels[1].set_title("its code")
panels[1].legend(markerscale=6)
line = np.linspace(-2, 2, 16)
plane = np.stack(np.meshgrid(line, -line), -1).reshape(-1, 2)
pictures = fit.decode(z=plane)["x"].reshape(16, 16, 8, 8)
panels[2].imshow(pictures.transpose(0, 2, 1, 3).reshape(128, 128), cmap="gray_r", extent=(-2.1, 2.1, -2.1, 2.1))
panels[2].set_title("what codes mean")
figure.savefig(folder / "variational_autoencoder.png", dpi=100)
