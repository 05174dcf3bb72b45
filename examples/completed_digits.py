# %% [markdown]
# # Half a digit, completed
# A PixelCNN gives every pixel's probability given those before it, in rows from the top: the lower half given the upper one is
# drawn exactly, pixel by pixel. A classifier that never saw the model reads the results.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import probgen as pg
from probgen.data import load

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'completed_digits.png'}")
digits, labels = load("digits"), load_digits().target
order = np.random.default_rng(0).permutation(len(digits))
train, test = order[:1500], order[1500:]
learner = pg.inference.MLE(num_steps=800, batch_size=100)
fit = pg.fit("pixelcnn", digits[train], learner)
print(fit.diagnose())
print(f"log p of unseen digits: {fit.log_prob(x=digits[test]).value.mean():.2f} nats; {fit.num_steps} steps")

# %% The upper halves of unseen digits; what follows is unknown. 16 draws each.
known, shown = np.arange(8)[:, None] < 4, test[:100]
drawn = np.array([fit.condition(x=np.where(known, x, np.nan)).sample(16)["x"] for x in digits[shown]])
filled = {
    "the digits": digits[shown],
    "completed, read by a vote of 16": drawn[:, 0],
    "mean of 16": drawn.mean(1),
    "filled with the mean digit": np.where(known, digits[shown], digits[train].mean(0)),
}

# %% How many are read correctly? The classifier learned whole digits. The 16 draws of a digit vote.
reader = SVC().fit(digits[train].reshape(-1, 64), labels[train])
read = lambda x: reader.predict(x.reshape(-1, 64)).reshape(x.shape[:-2])  # noqa: E731
right = {name: np.mean(read(x) == labels[shown]) for name, x in filled.items()}
votes = np.array([np.bincount(each, minlength=10).argmax() for each in read(drawn)])
right["completed, read by a vote of 16"] = np.mean(votes == labels[shown])
for name, share in right.items():
    print(f"{name}: {share:.2f} read correctly")
print(f"single draws: {np.mean(read(drawn) == labels[shown][:, None]):.2f}")
assert min(right["completed, read by a vote of 16"], right["mean of 16"]) > right["filled with the mean digit"] + 0.05

# %%
figure, axes = plt.subplots(4, 1, figsize=(8, 4.2), layout="constrained")
for ax, (name, x) in zip(axes, filled.items(), strict=True):
    ax.imshow(np.pad(x[:14], ((0, 0), (1, 1), (1, 1))).swapaxes(0, 1).reshape(10, -1), cmap="gray_r")
    ax.set_title(f"{name}: {right[name]:.0%} read correctly", fontsize=9)
    ax.axis("off")
figure.savefig(folder / "completed_digits.png")
