# %% [markdown]
# # A restricted Boltzmann machine on digits
# Learned by persistent contrastive divergence; then everything else is asked of the same fit: what it dreams, what it
# makes of half a digit, and what it finds odd. The sampler is derived from the program's density.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.metrics import roc_auc_score

import probgen as pg
from probgen.data import load

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'rbm_digits.png'}")
rng = np.random.default_rng(0)
digits = rng.permutation(load("digits").reshape(-1, 64))
train, test = digits[:1500], digits[1500:]

# %%
data = {"v": train, "num_visible": 64, "num_hidden": 64}
fit = pg.fit("rbm", data, "pcd", num_steps=5000, learning_rate=0.1, batch_size=300, seed=1)
print(fit.diagnose())

# %% The lower half of unseen digits from their upper half: Gibbs sampling with what is known held in place.
known, filled = np.arange(64) < 32, []
for digit in test[:10]:
    half = fit.condition(v=np.where(known, digit, np.nan))
    found = pg.fit(half, inference="gibbs", num_samples=500, num_chains=4)
    filled.append(found.draws["v"].mean((0, 1)))
wrong = np.mean((np.array(filled) > 0.5)[:, ~known] != test[:10, ~known])
guess = np.mean((train.mean(0) > 0.5)[~known] != test[:, ~known])
print(f"pixels wrong in the lower half: {wrong:.3f}; by each pixel's commonest value {guess:.3f}")

# %% The free energy is large for what does not look like the data: digits whose pixels were shuffled among themselves.
odd = rng.permuted(test, axis=1)
scores = fit.energy(v=np.concatenate([test, odd]))
auroc = roc_auc_score(np.repeat([0, 1], len(test)), scores)
print(f"AUROC of the free energy, held-out digits against shuffled ones: {auroc:.4f}")
assert auroc > 0.9

# %%
figure, axes = plt.subplots(4, 1, figsize=(8, 8), height_ratios=[3, 2, 2, 3], layout="constrained")
show = {"filters": fit.parameters["W"].T[:30], "samples": fit.sample(20)["v"]}
show["upper halves of unseen digits, and below their mean completion"] = np.stack([test[:10] * known, filled])
for ax, (title, x) in zip(axes, show.items(), strict=False):
    tiles = np.pad(x.reshape(-1, 10, 8, 8).astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    ax.imshow(tiles.swapaxes(1, 2).reshape(-1, 100), cmap="RdBu" if title == "filters" else "gray_r")
    ax.set_title(title)
    ax.axis("off")
axes[3].hist([scores[: len(test)], scores[len(test) :]], bins=40)
axes[3].set(title=f"free energy in nats: AUROC {auroc:.3f}; blue: held-out digits, orange: shuffled pixels", yticks=[])
figure.savefig(folder / "rbm_digits.png")
