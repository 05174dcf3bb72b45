# %% [markdown]
# # Codes that add up, and digits that do not belong
# Codes of slanted and upright digits differ by a direction, which can be added to any. The bound says how strange a picture is.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import probgen as pg
from probgen.data import load

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

x, labels = load("digits").reshape(-1, 64), load_digits().target
seen = np.arange(len(x)) < 1437
fit = pg.fit("vae", x[seen], inference="svi", num_steps=4000)
print(fit.diagnose())


# %% How far the upper half leans to the right, in pixels; what the codes of each digit's slanted quarter have that others lack.
def slant(pictures):
    halves = pictures.reshape(-1, 2, 4, 8).sum(2)
    centres = (halves * np.arange(8)).sum(2) / halves.sum(2)
    return centres[:, 0] - centres[:, 1]


code, lean, parts = fit.encode(x)["z"], slant(x), []
for digit in range(10):
    order = sorted(np.flatnonzero(seen & (labels == digit)), key=lean.__getitem__)
    parts.append(code[order[-35:]].mean(0) - code[order[:35]].mean(0))
steps = [fit.decode(z=code[~seen] + w * np.mean(parts, 0))["x"] for w in (-2, -1, 0, 1, 2)]
leans = [round(slant(pictures).mean(), 2) for pictures in steps]
print("Mean slant of unseen digits, the direction subtracted and added, in pixels:", *leans)
assert (np.diff(leans) > 0.2).all()

# %% [markdown]
# ## How strange is a digit that was never seen? Minus the bound, in nats
# A four is. A one is not: what has little ink is likely under any of these models, whether it was seen or not.

# %%
figure, panels = plt.subplots(3, 1, figsize=(6, 7), layout="constrained", height_ratios=(2, 1, 1))
tiles = np.pad(np.stack(steps)[:, :12].reshape(5, 12, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
panels[0].imshow(tiles.swapaxes(1, 2).reshape(50, 120), cmap="gray_r")
panels[0].set(title="less slant, digits as they are, more slant", xticks=[], yticks=[])
for strange, panel in zip((4, 1), panels[1:], strict=True):
    left_out = pg.fit("vae", x[seen & (labels != strange)], inference="svi", num_steps=2000)
    score, new = -left_out.log_prob(x[~seen]).value, labels[~seen] == strange  # a bound on log p(x) of each
    print(f"{strange}, never seen: area under the ROC curve {roc_auc_score(new, score):.2f}")
    panel.hist([score[~new], score[new]], bins=30, density=True, label=["seen digits", f"{strange}, never seen"])
    panel.legend(title="minus the bound, nats")
folder = sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp()
figure.savefig(path := Path(folder) / "codes_that_add_up.png")
print(f"The figure is {path}")
