# %% [markdown]
# # Codes against a critic
# VQGAN: the codes of a picture are drawn by a transformer; what a classifier sees and a critic of patches say how pictures look.
# The critic learns alone for a third of the steps, then the decoder feels it, by a weight that keeps it in balance.

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

fit = pg.fit("vqgan", data="digits", num_steps=600, batch_size=64, learning_rate=0.003)
print(fit.diagnose())

# %% The bound is one of codes: log p(x | z) + log p(z), z the codes nearest to what the encoder says.
x = load("digits")[:12]
bound = fit.log_prob(x)
print(f"{bound.value.mean():.1f} nats a row ({bound.kind})")
weight = fit.records["weight"][0]
print(
    f"The decoder felt the critic from step {np.argmax(weight > 0) + 1} on, by a weight of {np.median(weight[weight > 0]):.2f}"
)
assert (weight[:200] == 0).all()
assert (weight[200:] > 0).all()

# %% Digits, the same rebuilt of four codes each, and new ones: most probable bits. Below, what the critic told right.
drawn = fit.decode(z=fit.sample(12)["z"])["x"]
lines = np.stack([x, fit.reconstruct(x)["x"] >= 0.5, drawn >= 0.5]).astype(float)
tiles = np.pad(lines, ((0, 0), (0, 0), (1, 1), (1, 1))).swapaxes(1, 2).reshape(30, 120)
figure, (top, below) = plt.subplots(2, 1, figsize=(7, 4.4), layout="constrained")
top.imshow(tiles, cmap="gray_r")
top.set(title="digits, rebuilt, new", xticks=[], yticks=[])
below.plot(np.convolve(fit.records["right"][0], np.ones(20) / 20, "valid"), label="told right by the critic")
below.plot(weight / weight.max(), label=f"weight, of {weight.max():.1f}")
below.set(xlabel="step", ylim=(0, 1.05))
below.legend()
folder = sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp()
figure.savefig(path := Path(folder) / "codes_against_a_critic.png")
print(f"The figure is {path}")
