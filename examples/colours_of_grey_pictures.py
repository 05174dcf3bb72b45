# %% [markdown]
# # Colours of grey pictures, pixel by pixel or in order
# Digits that are red or blue, each as often. A model that colours every pixel by itself mixes both within a picture; one that sees
# the colours before does not. Here the conditional is known: log 2 nats a picture, against log 2 nats for every pixel with ink.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

import probgen as pg
from probgen.data.values.colours import RED_AND_BLUE, coloured_digits, joined, palette_of, split, within

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
figure, axes = plt.subplots(2, 1, figsize=(8, 4.6), layout="constrained")


def compare(rows, grey, colour, shown, without=None):
    """Learn both models, and colour a few pictures that they have not seen."""
    drawn = []
    for model in ("colour_by_pixel", "colour_in_order"):
        data = {"grey": rows[0], "colour": rows[1], "num_layers": 2, "num_filters": 12}
        fit = pg.fit(model, data, "mle", num_steps=400, batch_size=64, learning_rate=0.01)
        loss = -fit.log_prob(grey=grey, colour=colour).value.mean()
        drawn.append(np.array([fit.sample(1, seed=i, grey=g)["colour"][0] for i, g in enumerate(grey[shown])]))
        print(f"{model}: {loss:.3f} nats a picture, colour entropy within one {within(drawn[-1], without).mean():.3f}")
    print(f"their own colours: entropy within one {within(colour[shown], without).mean():.3f}")
    return [colour[shown], *drawn]


def show(ax, title, *lines):
    lines = [np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0) for x in lines]
    ax.imshow(np.concatenate([np.concatenate(list(x), axis=1) for x in lines]))
    ax.set_title(title)
    ax.axis("off")


# %%
grey, colour = coloured_digits()
best = np.log(2) * (colour[1500:] > 0).sum((1, 2)).mean()
print(f"Best by pixel {best:.2f} nats a picture, in order {np.log(2):.3f}")
found = compare((grey[:1500], colour[:1500]), grey[1500:], colour[1500:], slice(12), without=0)
show(axes[0], "true, by pixel, in order", *(joined(1 - grey[1500:1512], c, RED_AND_BLUE / 2) for c in found))

# %% A photograph that scikit-learn ships, in squares; those at its right edge are not learned from.
photograph = pg.data.load("china")[:424].reshape(106, 4, 160, 4, 3).mean((1, 3))
squares = [np.lib.stride_tricks.sliding_window_view(x, (8, 8), (0, 1)) for x in np.split(photograph, [124], axis=1)]
palette = palette_of(photograph, 6)
rows, (grey, colour) = (split(np.moveaxis(x[::2, ::2].reshape(-1, 3, 8, 8), 1, -1), palette) for x in squares)
few = np.argsort(-within(colour))[:120:10]  # with many colours
found = [joined(grey[few], c, palette) for c in compare(rows, grey, colour, few)]
show(axes[1], "grey, true, by pixel, in order", np.stack([grey[few]] * 3, -1), *found)
figure.savefig(folder / "colours_of_grey_pictures.png")
