# %% [markdown]
# # A ball in basket weave
# Style transfer is the mode of a Gibbs law: the correlations of a weave's responses to filters, and a ball from afar. Two starts
# end in different pictures of the same energy.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

import probgen as pg
from probgen.data.values.photographs import woven
from probgen.models.texture.style_transfer import shaded

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
content, style = shaded(32), woven(32)

# %%
fits = {
    "from the ball": pg.fit("style_transfer", data=(content, style), init={"x": content}, num_steps=600),
    "from noise": pg.fit("style_transfer", data=(content, style), num_steps=600),
}
energies = {start: fit.records["loss"].ravel()[-1] for start, fit in fits.items()}
print({start: f"{energy:.2f} nats" for start, energy in energies.items()})
assert np.ptp(list(energies.values())) < 1.0
print(fits["from noise"].diagnose())

# %%
shown = {"content": content, "style": style} | {k: fit.draws["x"].reshape(content.shape) for k, fit in fits.items()}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
for ax, (name, x) in zip(axes, shown.items(), strict=True):
    ax.imshow(np.clip(x, 0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set_title(name)
    ax.axis("off")
figure.savefig(folder / "a_ball_in_basket_weave.png")
print(f"The figure is {folder / 'a_ball_in_basket_weave.png'}")
