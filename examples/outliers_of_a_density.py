# %% [markdown]
# # What a density finds odd, and what it does not
# A flow learned on patches of one photograph scores patches by log p(x). Noise it finds odd. But a density is no measure of
# likeness: patches of another photograph, which is smoother, are more probable than held-out ones of the first, and flat patches
# are, too. It is a property of densities in many dimensions, not of bad learning (Nalisnick et al. 2019, arXiv:1810.09136).
# The distance of log p(x) from its mean on data ("typicality") does not help either for single patches, which differ too much.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.metrics import roc_auc_score

import probgen as pg
from probgen.data.dequantise import dequantised

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'outliers_of_a_density.png'}")
rng = np.random.default_rng(0)
grey = {k: (load_sample_image(f"{k}.jpg").mean(2) / 8).astype(int)[:424] for k in ("china", "flower")}
patches = {k: rng.permutation(x.reshape(53, 8, 80, 8).swapaxes(1, 2).reshape(-1, 64)) for k, x in grey.items()}
train, test = patches["china"][:3600], patches["china"][3600:]  # 8 x 8 pixels of 32 levels

# %%
settings = {"num_steps": 3000, "batch_size": 256, "learning_rate": 0.001, "validation": 0.1}
fit = pg.fit("neural_spline", dequantised(train, 32, draws=4), "mle", **settings)
print(fit.diagnose())

# %%
images = {"held out": test, "uniform noise": rng.integers(0, 32, test.shape)}
images |= {"shuffled pixels": rng.permuted(test, axis=1), "another photograph": patches["flower"][: len(test)]}
images["flat"] = np.repeat(rng.integers(5, 27, (len(test), 1)), 64, axis=1)
scores = {k: fit.log_prob(dequantised(x, 32)).value for k, x in images.items()}
usual = fit.log_prob(dequantised(train[:600], 32)).value.mean()
figure, axes = plt.subplots(2, 1, figsize=(8, 6), height_ratios=[3, 2], layout="constrained")
print(f"{'':18} mean log p in nats   AUROC by -log p   by |log p - its mean on data|")
auroc = {}
for k, s in scores.items():
    both, label = np.concatenate([scores["held out"], s]), np.repeat([0, 1], len(test))
    auroc[k], typical = (roc_auc_score(label, x) for x in (-both, np.abs(both - usual)))
    print(f"{k:18} {s.mean():19.1f} {auroc[k]:17.3f} {typical:17.3f}")
    axes[0].hist(np.clip(s, -250, 300), 80, histtype="step", label=f"{k}: {auroc[k]:.2f}")
assert auroc["uniform noise"] > 0.99
assert auroc["another photograph"] < 0.5, "the failure that this shows"

# %%
axes[0].set(xlabel="log p(x) in nats", yticks=[])
axes[0].legend(title="AUROC by -log p against held-out patches")
tiles = np.stack([x[:16].reshape(16, 8, 8) for x in images.values()])
tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=31)
axes[1].imshow(tiles.swapaxes(1, 2).reshape(-1, 160), cmap="gray")
axes[1].set(yticks=5 + 10 * np.arange(len(images)), yticklabels=list(images), xticks=[])
figure.savefig(folder / "outliers_of_a_density.png")
