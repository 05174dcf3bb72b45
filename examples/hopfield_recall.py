# %% [markdown]
# # Recall of corrupted memories in a Hopfield network
# Hebb's rule stores random patterns in the couplings; Gibbs sampling at a low temperature, from a pattern with a tenth of
# its bits flipped, falls back into the pattern: up to 0.138 patterns a unit, where memory breaks down all at once.

# %%
import sys
import tempfile
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np

import probgen as pg

mpl.use("Agg" if "__file__" in globals() else mpl.get_backend())  # a notebook draws in its cells
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 and "__file__" in globals() else tempfile.mkdtemp())
print(f"The figure goes to {folder / 'hopfield_recall.png'}")
rng = np.random.default_rng(0)
UNITS, FLIPS, SWEEPS = 200, 0.1, 30


def recall(target, corrupted):
    """The ends of Markov chains of the target's own Gibbs sampler, one from each corrupted pattern."""
    sweep, x = jax.jit(jax.vmap(target.sweep)), corrupted.astype(np.float32)
    for i in range(SWEEPS):
        x = sweep(jax.random.split(jax.random.key(i), len(x)), {"x": x})["x"]
    return np.asarray(x)


# %%
stored = rng.integers(0, 2, (20, UNITS)).astype(float)
corrupted = np.where(rng.random(stored.shape) < FLIPS, 1 - stored, stored)
memory = pg.fit("hopfield", {"x": stored, "num_units": UNITS, "beta": 20}, "hebbian")
recalled = recall(memory.condition().blocked(), corrupted)
print(f"bits wrong: {np.mean(corrupted != stored):.3f} before, {np.mean(recalled != stored):.4f} after")

# %% The capacity curve: the same network with other memories, by the same rule.
loads, overlaps = (0.02, 0.06, 0.1, 0.13, 0.16, 0.2, 0.3), []
for load in loads:
    s = rng.choice([-1.0, 1.0], (round(load * UNITS), UNITS))
    target = memory.target.learned({"W": s.T @ s / UNITS}).blocked()
    found = recall(target, (s * rng.choice([1, -1], s.shape, p=[1 - FLIPS, FLIPS]) + 1) / 2)
    overlaps.append(np.mean((2 * found - 1) * s))
    print(f"load {load:.2f}: mean overlap {overlaps[-1]:.3f}")
assert min(overlaps[:3]) >= 0.99 > 0.8 > overlaps[5]

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3), width_ratios=[1, 1, 1, 2], layout="constrained")
for ax, title, x in zip(axes, ("stored", "10 % flipped", "recalled"), (stored, corrupted, recalled), strict=False):
    ax.imshow(x[0].reshape(10, 20), cmap="gray_r")
    ax.set(title=title, xticks=[], yticks=[])
figure.get_layout_engine().set(wspace=0.05)
axes[3].plot(loads, overlaps, "o-")
axes[3].axvline(0.138, color="gray", linestyle=":")
axes[3].set(title="overlap with the memory", xlabel="patterns a unit (dotted: theory)", ylim=(0, 1.05))
figure.savefig(folder / "hopfield_recall.png")
