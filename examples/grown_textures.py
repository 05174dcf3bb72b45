# %% [markdown]
# # Grown textures
# A texture is a random field that its sample shows: a pixel is what it is elsewhere among the same neighbours. Two algorithms grow
# it, pixel by pixel or by blocks, and the verdict says how much was copied in one piece and whether it grew out of the texture.

# %%
import importlib.util
import itertools
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
shipped = importlib.util.find_spec("skimage") is not None  # pip install 'probgen[pictures]'
names = ("brick", "grass", "gravel") if shipped else ("woven",)
side, size = (64, 128) if shipped else (36, 54)

# %% A texture whose period the window sees grows periodic, pixel for pixel.
cell = np.random.default_rng(0).random((5, 7))
for inference in ("efros_leung", "quilting"):
    fit = pg.fit("texture", {"sample": np.tile(cell, (4, 3)), "height": 32, "width": 40, "window": 7}, inference)
    x = fit.draws["x"][0, 0]
    assert np.array_equal(x[5:], x[:-5])
    assert np.array_equal(x[:, 7:], x[:, :-7]), fit.diagnose()

# %%
shown = {}
for name in names:
    data = {"sample": load(name)[:side, :side], "height": size, "width": size}
    shown[name, "sample"] = data["sample"]
    for inference in ("efros_leung", "quilting"):
        fit = pg.fit("texture", data, inference, seed=1)
        shown[name, inference] = fit.draws["x"][0, 0]
        print(f"\n{name}, {inference}, {fit.seconds:.1f} s\n{fit.diagnose()}")

# %% What the verdict is for: with 20 neighbours every pixel is from another place, and little of the texture is left.
garbage = pg.fit("texture", data, "efros_leung", neighbours=20)
shown[name, "20 neighbours"] = garbage.draws["x"][0, 0]
print(f"\n{name}, 20 neighbours\n{garbage.diagnose()}")
assert garbage.diagnose().status != "pass"

# %%
columns = "sample", "efros_leung", "quilting", "20 neighbours"
figure, axes = plt.subplots(len(names), 4, figsize=(9, 2.4 * len(names)), layout="constrained", squeeze=False)
for ax, (name, what) in zip(axes.flat, itertools.product(names, columns), strict=True):
    ax.axis("off")
    if (name, what) in shown:
        ax.imshow(shown[name, what], cmap="gray", vmin=0, vmax=1)
        ax.set(title=f"{name}: {what}", xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
figure.savefig(folder / "grown_textures.png")
print(f"\nThe figure is {folder / 'grown_textures.png'}")
